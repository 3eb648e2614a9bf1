"""Reports and comparisons: numbers by hand, joins by name, intervals, rendering."""

import io
import json

import numpy as np
import polars as pl
import pytest

from shelfwise import metrics
from shelfwise.answers import AnswerBlock, Answers, RowError
from shelfwise.catalog import Catalog
from shelfwise.errors import CatalogError, PredictionError, ShelfwiseError, UsageError
from shelfwise.evaluate import compare, evaluate
from shelfwise.predictions import Block, Predictions
from shelfwise.report import Report
from shelfwise.roles import Columns
from shelfwise.taxonomy import Choice, Taxonomy

FORMS = ("box", "tube")
COLORS = {"caps": ("blue", "green", "red"), "bags": ("black", "white")}


def catalog_of(rows, **options):
    frame = pl.DataFrame(rows, schema=["id", "category", "color", "form"], orient="row")
    return Catalog.read(frame, columns=Columns(choice=("color", "form")), **options)


def small():
    """Five caps and five bags; every value five times or more over the table so that columns are labels."""
    rows = [
        ("007", "caps", "red", "box"),
        ("008", "caps", "red", "tube"),
        ("009", "caps", "blue", None),
        ("010", "caps", "green", "box"),
        ("011", "caps", None, None),
        *((f"1{k:02}", "bags", "black" if k % 3 else "white", None) for k in range(40)),
    ]
    return catalog_of(rows)


def predict(catalog, answer, sure=0.9, errors=(), taxonomy=None):
    """Predictions with probability ``sure`` on the value that ``answer(row, attribute, stated)`` names."""
    taxonomy = taxonomy or catalog.taxonomy
    blocks = []
    for category in catalog.present:
        rows = np.array([row for row in catalog.rows(category).tolist() if row not in errors], np.int64)
        if not len(rows):
            continue
        labels = {row: catalog.labels(category)[k] for k, row in enumerate(catalog.rows(category).tolist())}
        probs = np.zeros((len(rows), taxonomy.width(category)), np.float32)
        names = [choice.name for choice in catalog.taxonomy.choices(category)]
        for choice, part in zip(taxonomy.choices(category), taxonomy.slices(category), strict=True):
            values = catalog.taxonomy.choice(category, choice.name).values
            for k, row in enumerate(rows.tolist()):
                code = labels[row][names.index(choice.name)]
                stated = values[code] if code >= 0 else None
                named = answer(row, choice.name, stated)
                others = max(len(choice.values) - 1, 1)
                probs[k, part] = (1 - sure) / others if len(choice.values) > 1 else 1
                probs[k, part.start + choice.values.index(named if named else choice.values[0])] = sure
        blocks.append(Block(category, rows, probs))
    failed = {row: RowError("image", "missing") for row in errors}
    return Predictions(taxonomy, catalog.ids, tuple(blocks), failed)


def noisy(catalog, right, seed, **options):
    rng = np.random.default_rng(seed)

    def answer(row, attribute, stated):
        values = catalog.taxonomy.choice(catalog.taxonomy.categories[catalog.category[row]], attribute).values
        return stated if stated and rng.random() < right else values[rng.integers(len(values))]

    return predict(catalog, answer, **options)


def big(n=300, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(n):
        category = ("caps", "bags")[k % 3 == 0]
        color = rng.choice(COLORS[category]) if rng.random() < 0.8 else None
        rows.append((f"{k:04}", category, color, rng.choice(FORMS) if rng.random() < 0.5 else None))
    return catalog_of(rows)


def test_scores_by_hand():
    catalog = small()
    report = evaluate(
        predict(catalog, lambda row, name, stated: "red" if (row, name) == (2, "color") else stated), catalog
    )
    # caps/color: truth red red blue green, answered red red red green
    macro = (2 * 2 / (2 + 3) + 0 + 1) / 3
    color = 2 * macro * 0.75 / (macro + 0.75)
    assert report.line("harmonic_f1", "caps", "color").score == pytest.approx(color)
    assert report.line("macro_f1", "caps", "color").score == pytest.approx(macro)
    assert report.line("micro_f1", "caps", "color").score == 0.75
    assert report.line("harmonic_f1", "caps", "form").score == 1
    assert report.line(category="caps").score == pytest.approx((color + 1) / 2)
    assert report.line(category="bags").score == 1
    assert report.score == pytest.approx(((color + 1) / 2 + 1) / 2)
    assert report.line("f1", "caps", "color", "red")[5:] == (
        pytest.approx(0.8),
        pytest.approx(np.nan, nan_ok=True),
        pytest.approx(np.nan, nan_ok=True),
        2,
    )
    assert report.line("recall", "caps", "color", "blue").score == 0
    assert report.line("rows_right").score == pytest.approx(43 / 44)
    assert report.line("rows_right").support == 44  # one cap states nothing
    assert report.line("cells_right").score == pytest.approx(46 / 47)
    assert report.line("coverage").score == 1
    loss = -(3 * np.log(0.9) + np.log(0.05)) / 4
    assert report.line("log_loss", "caps", "color").score == pytest.approx(loss, rel=1e-4)
    assert report.line("ece", "bags", "color").score == pytest.approx(0.1, abs=1e-6)
    low, high = report.interval
    assert low < report.score <= high


def test_majority_reference():
    catalog = small()
    report = evaluate(predict(catalog, lambda row, name, stated: stated), catalog, bootstrap=0)
    black = 2 * 26 / (26 + 40)
    micro, macro = 26 / 40, black / 2
    assert report.line("majority", "bags").score == pytest.approx(2 * micro * macro / (micro + macro))
    assert np.isnan(report.interval[0])


def test_rows_without_answer_are_wrong_unless_coverage_is_asked():
    catalog = small()
    predictions = predict(catalog, lambda row, name, stated: stated, errors=[0, 7])
    report = evaluate(predictions, catalog, bootstrap=0)
    assert report.errors == 2
    assert report.line("accuracy", "caps", "color").score == 3 / 4
    assert report.line("coverage", "caps", "color").score == 3 / 4
    assert report.line("accuracy", "caps", "form").score == 2 / 3
    answered = evaluate(predictions, catalog, bootstrap=0, coverage=True)
    assert answered.line("accuracy", "caps", "color").score == 1
    assert answered.score == 1
    assert answered.line("coverage", "caps", "color").score == 3 / 4


def test_answers_that_abstain():
    catalog = small()
    answers = predict(catalog, lambda row, name, stated: stated).answers()
    blocks = tuple(
        AnswerBlock(
            b.category, b.rows, np.where(b.rows[:, None] % 2 == 0, b.codes, -1), b.probability, b.runner_up
        )
        for b in answers.blocks
    )
    report = evaluate(Answers(answers.taxonomy, answers.ids, blocks), catalog, bootstrap=0)
    assert report.line("accuracy", "bags").score == report.line("coverage", "bags").score == 0.5
    assert np.isnan(report.line("log_loss").score)
    assert "log loss" not in str(report)
    with pytest.raises(PredictionError, match="copy the stated values"):
        evaluate(answers.keep_stated(catalog), catalog)


def test_rows_are_joined_by_id():
    catalog = big()
    predictions = noisy(catalog, 0.6, 0)
    order = np.random.default_rng(1).permutation(len(catalog))
    shuffled = evaluate(predictions.select(order), catalog, bootstrap=50)
    assert shuffled.to_json() == evaluate(predictions, catalog, bootstrap=50).to_json()
    with pytest.raises(PredictionError, match="0299"):
        evaluate(predictions.select(np.arange(299)), catalog)


def test_values_are_joined_by_name():
    catalog = big()
    predictions = noisy(catalog, 0.6, 0)
    turned = Taxonomy(
        {
            category: tuple(
                Choice(choice.name, ("teal", *choice.values[::-1]))
                for choice in catalog.taxonomy.choices(category)[::-1]
            )
            for category in catalog.taxonomy.categories[::-1]
        }
    )
    blocks = []
    for block in predictions.blocks:
        parts = [
            np.concatenate(
                [np.zeros((len(block.rows), 1), np.float32), block.probs[:, part][:, ::-1]], axis=1
            )
            for part in catalog.taxonomy.slices(block.category)[::-1]
        ]
        blocks.append(Block(block.category, block.rows, np.concatenate(parts, axis=1)))
    same = evaluate(Predictions(turned, catalog.ids, tuple(blocks)), catalog, bootstrap=20)
    assert str(same) == str(evaluate(predictions, catalog, bootstrap=20))


def test_a_value_only_the_predictions_know_is_wrong():
    catalog = small()
    wider = Taxonomy(
        {
            category: tuple(
                Choice(choice.name, ("teal", *choice.values)) for choice in catalog.taxonomy.choices(category)
            )
            for category in catalog.taxonomy.categories
        }
    )
    predictions = predict(
        catalog, lambda row, name, stated: "teal" if row == 3 and name == "color" else stated, taxonomy=wider
    )
    report = evaluate(predictions, catalog, bootstrap=0)
    assert report.line("accuracy", "caps", "color").score == 0.75
    assert report.line("macro_f1", "caps", "color").score == pytest.approx((1 + 1 + 0 + 0) / 4)
    assert report.line("f1", "caps", "color", "teal").score == 0


def test_a_stated_value_nobody_knows_is_wrong_and_reported():
    catalog = small()
    rows = [("a1", "caps", "purple", "box"), ("a2", "caps", "red", "box"), ("a3", "hats", "red", "box")]
    frame = pl.DataFrame(rows, schema=["id", "category", "color", "form"], orient="row")
    other = Catalog.read(frame, schema=catalog.schema)
    report = evaluate(
        predict(other, lambda row, name, stated: stated or "red", errors=[2]), other, bootstrap=0
    )
    assert report.line("accuracy", "caps", "color").score == 0.5
    assert report.rows == 2
    assert any("1 cells state a value" in note for note in report.notes)
    assert any("1 products of a category the taxonomy lacks" in note for note in report.notes)


def test_an_attribute_the_predictions_lack():
    catalog = small()
    less = Taxonomy({c: catalog.taxonomy.choices(c)[:1] for c in catalog.taxonomy.categories})
    report = evaluate(predict(catalog, lambda row, name, stated: stated, taxonomy=less), catalog, bootstrap=0)
    assert report.line("accuracy", "caps", "form").score == 0
    assert report.line("coverage", "caps", "form").score == 0
    assert any("caps / form" in note for note in report.notes)


def test_a_product_answered_as_another_category():
    catalog = small()
    predictions = predict(catalog, lambda row, name, stated: stated)
    caps, bags = (predictions.block(name) for name in ("caps", "bags"))
    moved = Block("bags", np.append(np.int64(0), bags.rows), np.concatenate([bags.probs[:1], bags.probs]))
    rest = Block("caps", caps.rows[1:], caps.probs[1:])
    report = evaluate(Predictions(catalog.taxonomy, catalog.ids, (moved, rest)), catalog, bootstrap=0)
    assert report.line("accuracy", "caps", "color").score == 0.75
    assert report.line("accuracy", "bags", "color").score == 1
    assert any("1 products were answered as another category" in note for note in report.notes)


def test_least_rows_and_values():
    catalog = small()
    predictions = predict(catalog, lambda row, name, stated: stated)
    report = evaluate(predictions, catalog, bootstrap=0, min_rows=10)
    assert [line.category for line in report.of("category")] == ["bags"]
    assert any("1 categories with fewer than 10" in note for note in report.notes)
    report = evaluate(predictions, catalog, bootstrap=0, min_values=3)
    assert [(line.category, line.attribute) for line in report.of("attribute")] == [("caps", "color")]


def test_nothing_stated():
    catalog = small()
    bare = catalog.select([4])
    with pytest.raises(CatalogError, match="no stated value"):
        evaluate(predict(bare, lambda row, name, stated: stated), bare)


def test_groups_widen_the_interval():
    rows = [(f"{k:03}", "bags", ("black", "white")[k % 2], None) for k in range(200)]
    rows = [row for row in rows for _ in range(10)]
    catalog = catalog_of([(f"{k:05}", *row[1:]) for k, row in enumerate(rows)])
    groups = np.repeat(np.arange(200) + 7000, 10)
    wrong = set(np.random.default_rng(0).choice(200, 60, replace=False).tolist())
    swap = {"black": "white", "white": "black"}
    predictions = predict(catalog, lambda row, name, stated: swap[stated] if row // 10 in wrong else stated)
    alone = evaluate(predictions, catalog, bootstrap=300)
    grouped = evaluate(predictions, catalog, groups=groups, bootstrap=300)
    assert grouped.groups == 200
    assert alone.score == grouped.score
    ratio = np.diff(grouped.interval) / np.diff(alone.interval)
    assert 2.5 < ratio < 4  # sqrt(10)
    with pytest.raises(UsageError, match="group numbers"):
        evaluate(predictions, catalog, groups=groups[:-1])


def test_same_seed_same_report_and_json_round_trip(tmp_path):
    catalog = big()
    report = evaluate(noisy(catalog, 0.6, 0), catalog, bootstrap=50, seed=5).with_notes("a sentence")
    again = evaluate(noisy(catalog, 0.6, 0), catalog, bootstrap=50, seed=5)
    assert again.with_notes("a sentence").to_json() == report.to_json()
    assert evaluate(noisy(catalog, 0.6, 0), catalog, bootstrap=50, seed=6).interval != report.interval
    back = Report.from_json(report.to_json())
    assert back.to_json() == report.to_json()
    assert str(back) == str(report)
    assert back.interval == report.interval
    for text in ("{}", "[]", "no", '{"format": 2}'):
        with pytest.raises(ShelfwiseError, match="not a report"):
            Report.from_json(text)
    for ending in ("json", "parquet", "csv", "txt"):
        report.write(tmp_path / f"report.{ending}")
    frame = pl.read_parquet(tmp_path / "report.parquet")
    assert frame.columns == [
        "level", "category", "attribute", "value", "metric", "score", "low", "high", "support",
    ]  # fmt: skip
    overall = frame.filter((pl.col("level") == "overall") & (pl.col("metric") == "harmonic_f1"))
    assert overall["score"].to_list() == [report.score]
    assert pl.read_csv(tmp_path / "report.csv").height == frame.height
    assert "nan" not in (tmp_path / "report.csv").read_text().lower()
    assert "NaN" not in (tmp_path / "report.json").read_text()
    with pytest.raises(UsageError, match="pdf"):
        report.write(tmp_path / "report.pdf")


def test_the_printed_report():
    catalog = small()
    predictions = predict(catalog, lambda row, name, stated: stated, errors=[0])
    text = str(evaluate(predictions, catalog, bootstrap=100))
    assert text.startswith("harmonic_f1 0.")
    assert "45 products, 1 with errors" in text
    assert "nan" not in text.lower()
    assert max(map(len, text.splitlines())) <= 120
    starts = ("category / attribute ", "caps  ", "bags  ", "  color ")
    table = [line for line in text.splitlines() if line.startswith(starts)]
    assert len(table) == 5
    assert len({len(line) for line in table}) == 1
    from rich.console import Console

    console = Console(width=140, file=io.StringIO())
    with console.capture() as shown:
        console.print(evaluate(predictions, catalog, bootstrap=100).table())
    assert "caps" in shown.get()


def test_another_metric():
    catalog = big()
    predictions = noisy(catalog, 0.6, 0)
    report = evaluate(predictions, catalog, metric="log_loss", bootstrap=50)
    assert report.metric == "log_loss"
    assert report.score == pytest.approx(evaluate(predictions, catalog, bootstrap=0).line("log_loss").score)
    assert report.interval[0] < report.score < report.interval[1]
    with pytest.raises(UsageError, match="harmonic_f1"):
        evaluate(predictions, catalog, metric="harmonic_f")


def test_frequency_bands_count_every_value_once():
    catalog = big()
    report = evaluate(noisy(catalog, 0.6, 0), catalog, bootstrap=0)
    bands = [report.line("values", value=name) for name in ("rare", "medium", "frequent")]
    assert sum(line.score for line in bands) == 3 + 2 + 2 * 2
    assert sum(line.support for line in bands) == report.line("cells_right").support
    recall = report.line("recall", value="frequent")
    assert recall.score == pytest.approx(report.line("cells_right").score)  # no value here is under 20 %


def test_compare_shows_a_real_difference():
    catalog = big(900)
    good, bad = noisy(catalog, 0.8, 0), noisy(catalog, 0.5, 1)
    groups = np.arange(900) // 2
    found = compare([("bad", bad), ("good", good)], catalog, groups=groups, bootstrap=200)
    line = found.overall()
    assert line.verdict == "better"
    assert line.difference == pytest.approx(
        evaluate(good, catalog, bootstrap=0).score - evaluate(bad, catalog, bootstrap=0).score
    )
    assert 0 < line.low < line.difference < line.high
    assert found.sentence().startswith("good is better than bad by 0.")
    turned = compare([("good", good), ("bad", bad)], catalog, groups=groups, bootstrap=200)
    assert turned.overall().verdict == "worse"
    assert turned.overall().low == pytest.approx(-line.high, abs=0.02)
    loss = compare([("bad", bad), ("good", good)], catalog, metric="log_loss", bootstrap=200)
    assert loss.overall().difference < 0
    assert loss.overall().verdict == "better"


def test_compare_is_paired():
    catalog = big(600)
    one = noisy(catalog, 0.6, 0)
    blocks = list(one.blocks)
    changed = blocks[0].probs.copy()
    changed[:20] = changed[:20, ::-1]
    other = Predictions(
        one.taxonomy, one.ids, (Block(blocks[0].category, blocks[0].rows, changed), *blocks[1:])
    )
    line = compare([("one", one), ("other", other)], catalog, bootstrap=200).overall()
    width = np.diff(evaluate(one, catalog, bootstrap=200).interval)
    assert line.high - line.low < width  # far narrower than that of unpaired scores
    same = compare([("one", one), ("copy", one), ("other", other)], catalog, bootstrap=50)
    assert same.overall("copy")[6:10] == (0, 0, 0, "not shown")
    assert "No difference shown between copy and one" in same.sentence("copy")
    assert len(str(same).splitlines()) > 10
    data = json.loads(same.to_json())
    assert data["names"] == ["one", "copy", "other"]
    assert len(data["words"]) == 2
    assert same.frame().height == len(data["differences"])


def test_compare_covers_no_difference():
    """Two equally good sets of predictions: a difference is claimed about once in twenty."""
    claimed = 0
    for trial in range(40):
        catalog = big(150, trial)
        pair = [("a", noisy(catalog, 0.6, 2 * trial)), ("b", noisy(catalog, 0.6, 2 * trial + 1))]
        claimed += compare(pair, catalog, bootstrap=100).overall().verdict != "not shown"
    assert claimed <= 7


def test_compare_needs_two_names():
    catalog = small()
    predictions = predict(catalog, lambda row, name, stated: stated)
    with pytest.raises(UsageError, match="two or more"):
        compare([("a", predictions)], catalog)
    with pytest.raises(UsageError, match="different names"):
        compare([("a", predictions), ("a", predictions)], catalog)
    with pytest.raises(UsageError, match="'c' was not compared"):
        compare([("a", predictions), ("b", predictions)], catalog, bootstrap=10).overall("c")


def test_progress_ends_at_the_total():
    catalog = small()
    calls = []
    evaluate(
        predict(catalog, lambda row, name, stated: stated), catalog, bootstrap=10,
        progress=lambda what, done, total: calls.append((what, done, total)),
    )  # fmt: skip
    assert calls[-1][1] == calls[-1][2] == 30


def test_the_metric_module_agrees():
    catalog = big()
    predictions = noisy(catalog, 0.5, 4)
    report = evaluate(predictions, catalog, bootstrap=0)
    for category in catalog.present:
        codes = predictions.answers().block(category).codes
        for a, choice in enumerate(catalog.taxonomy.choices(category)):
            expected = metrics.score(
                "harmonic_f1", catalog.labels(category)[:, a], codes[:, a], len(choice.values)
            )
            assert report.line(None, category, choice.name).score == pytest.approx(expected)


def test_coverage_is_a_column_only_where_something_is_unanswered():
    catalog = small()
    full = evaluate(predict(catalog, lambda row, name, stated: stated), catalog, bootstrap=0)
    part = evaluate(predict(catalog, lambda row, name, stated: stated, errors=[0]), catalog, bootstrap=0)
    assert "coverage" not in str(full)
    assert "coverage" in str(part)
    assert str(Report("harmonic_f1", (), 0)).startswith("harmonic_f1 -")
