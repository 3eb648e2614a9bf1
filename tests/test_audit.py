"""The audit: planted errors come first, for cells and for words, out of fold where products were learnt from."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shelfwise.catalog import Catalog
from shelfwise.errors import PredictionError, TaxonomyError, UsageError
from shelfwise.predictions import Block, Predictions, RowError
from shelfwise.trust.audit import COLUMNS, audit
from shelfwise.trust.claims import Claims
from shelfwise.trust.evidence import Evidence
from shelfwise.trust.learnt import look_alike_ids, out_of_fold
from shelfwise.trust.noise import (
    PRIOR_SHARE,
    Chances,
    Noise,
    chances_of,
    fit_noise,
    likeness,
    read_from_text,
    tempered,
)

VALUES = {"colour": ("Black", "Blue", "Navy", "Red", "White"), "sleeve": ("long", "short"), "one": ("only",)}


def table(n: int = 400, seed: int = 0) -> pl.DataFrame:
    """Shirts and hats whose values are drawn evenly; ids keep a leading zero and one looks like a formula."""
    rng = np.random.default_rng(seed)
    ids = [f"{i:04d}" for i in range(n)]
    ids[1] = "=1+1"
    cells = {name: [str(v) for v in rng.choice(values, n)] for name, values in VALUES.items()}
    return pl.DataFrame(
        {"id": ids, "category": ["Hats" if i % 4 == 0 else "Shirts" for i in range(n)], **cells}
    )


def seen_by_a_model(catalog: Catalog, seed: int = 0, sure: float = 0.9, wrong: float = 0.1) -> Predictions:
    """Probabilities that are calibrated: of ``wrong`` of the cells the picture shows the value most alike."""
    rng = np.random.default_rng(seed)
    blocks = []
    for category in catalog.present:
        labels = catalog.labels(category)
        parts = []
        for a, choice in enumerate(catalog.taxonomy.choices(category)):
            v = len(choice.values)
            shown = np.maximum(labels[:, a], 0)
            shown = np.where(rng.random(len(shown)) < wrong, (shown + 1) % v, shown)
            probs = np.full((len(shown), v), 0.0002)
            probs[np.arange(len(shown)), (shown + 1) % v] = 0.08
            probs[np.arange(len(shown)), (shown - 1) % v] += wrong
            probs[np.arange(len(shown)), shown] = sure
            parts.append(probs / probs.sum(axis=1, keepdims=True))
        blocks.append(
            Block(category, catalog.rows(category), np.concatenate(parts, axis=1).astype(np.float32))
        )
    return Predictions(catalog.taxonomy, catalog.ids, tuple(blocks))


def with_cells(catalog: Catalog, cells: Mapping[tuple[int, str], str | None]) -> Catalog:
    """The same catalogue with some cells changed."""
    frame = catalog.frame
    for (row, column), value in cells.items():
        values = frame[column].to_list()
        values[row] = value
        frame = frame.with_columns(pl.Series(column, values, dtype=pl.String))
    return Catalog.read(frame, schema=catalog.schema)


@pytest.fixture(scope="module")
def clean() -> Catalog:
    return Catalog.read(table())


@pytest.fixture(scope="module")
def predictions(clean: Catalog) -> Predictions:
    return seen_by_a_model(clean, wrong=0.0)


def other(value: str, steps: int = 2) -> str:
    """A colour that is not the one most alike."""
    values = VALUES["colour"]
    return values[(values.index(value) + steps) % len(values)]


@pytest.fixture(scope="module")
def damaged(clean: Catalog) -> Catalog:
    wrong = {(row, "colour"): other(clean.frame["colour"][row]) for row in range(5, 25)}
    return with_cells(clean, wrong)


def test_planted_errors_come_first(damaged: Catalog, predictions: Predictions, clean: Catalog) -> None:
    found = audit(predictions, damaged)
    frame = found.frame()
    assert tuple(frame.columns) == COLUMNS
    assert len(frame) == int((damaged.codes >= 0).sum())
    assert sorted(frame["id"][:20].to_list()) == sorted(clean.ids[5:25])
    assert frame["seen"][:20].to_list() == [
        clean.frame["colour"][clean.ids.index(i)] for i in frame["id"][:20]
    ]
    assert (np.diff(frame["odds"].to_numpy()) <= 0).all()
    assert found.suspects == 20
    assert set(frame["column"]) == set(VALUES)


def test_equal_odds_keep_the_order_of_the_rows(clean: Catalog, predictions: Predictions) -> None:
    found = audit(predictions, clean)
    same = found.odds[1:] == found.odds[:-1]
    assert same.any()
    assert (np.diff(found.row)[same] >= 0).all()


def test_the_order_of_rows_does_not_matter(damaged: Catalog, predictions: Predictions) -> None:
    order = np.random.default_rng(2).permutation(len(damaged))
    one = audit(predictions, damaged).frame()
    two = audit(predictions.select(order), damaged.select(order)).frame()
    key = ["id", "attribute", "column"]
    joined = one.join(two, on=key, suffix="_two")
    assert len(joined) == len(one)
    np.testing.assert_allclose(joined["odds"], joined["odds_two"], rtol=1e-6)


def test_weights_multiply_the_odds(damaged: Catalog, predictions: Predictions) -> None:
    key = ["id", "attribute"]
    one = audit(predictions, damaged).frame().sort(key)
    two = audit(predictions, damaged, weights={"sleeve": 1e6}).frame()
    assert set(two["attribute"][:100]) == {"sleeve"}
    ratio = (two.sort(key)["odds"] / one["odds"]).to_numpy()
    sleeve = (one["attribute"] == "sleeve").to_numpy()
    one_valued = (one["attribute"] == "one").to_numpy()
    np.testing.assert_allclose(ratio[sleeve], 1e6, rtol=1e-9)
    np.testing.assert_allclose(ratio[~sleeve & ~one_valued], 1, rtol=1e-9)


@pytest.mark.parametrize(
    ("weights", "message"), [({"color": 2.0}, "colour"), ({"colour": 0.0}, "above zero")]
)
def test_wrong_weights_are_refused(
    clean: Catalog, predictions: Predictions, weights: dict[str, float], message: str
) -> None:
    with pytest.raises(TaxonomyError, match=message):
        audit(predictions, clean, weights=weights)


def test_an_attribute_of_one_value_is_never_suspect(clean: Catalog, predictions: Predictions) -> None:
    frame = audit(predictions, clean).frame().filter(pl.col("attribute") == "one")
    assert len(frame) == 400
    assert (frame["odds"] == 0).all()
    assert (frame["p_stated"] == 1).all()


def test_products_without_a_picture_are_counted_not_judged(clean: Catalog, predictions: Predictions) -> None:
    lost = predictions.select(np.arange(len(clean)))
    blocks = tuple(Block(b.category, b.rows[b.rows != 7], b.probs[b.rows != 7]) for b in lost.blocks)
    found = audit(replace(lost, blocks=blocks, errors={7: RowError("image", "not there")}), clean)
    assert found.unseen == 1
    assert 7 not in found.row
    assert len(found) == 3 * 399


def test_other_rows_and_taxonomies_are_refused(clean: Catalog, predictions: Predictions) -> None:
    with pytest.raises(PredictionError, match="line up"):
        audit(predictions, clean.select(np.arange(10)))
    other_one = Catalog.read(table().with_columns(pl.lit("x").alias("one")))
    with pytest.raises(PredictionError, match="another taxonomy"):
        audit(predictions, other_one)


def test_challenge_columns_keep_their_names() -> None:
    frame = table().rename({"colour": "attr_1", "sleeve": "attr_2", "one": "attr_3", "category": "Category"})
    lists = {name: ["colour", "sleeve", "one"] for name in ("Hats", "Shirts")}
    catalog = Catalog.read(frame, attributes=lists)
    found = audit(seen_by_a_model(catalog), catalog).frame()
    pairs = set(zip(found["attribute"], found["column"], strict=True))
    assert pairs == {("colour", "attr_1"), ("sleeve", "attr_2"), ("one", "attr_3")}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_audit_is_written_and_ids_stand_unchanged(
    damaged: Catalog, predictions: Predictions, tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"audit.{ending}"
    found = audit(predictions, damaged)
    found.write(path)
    read = pl.read_csv(path, infer_schema=False) if ending == "csv" else pl.read_parquet(path)
    assert tuple(read.columns) == COLUMNS
    assert read["id"].to_list() == found.frame()["id"].to_list()
    assert "=1+1" in read["id"].to_list()
    assert [path.name] == [p.name for p in tmp_path.iterdir()]
    with pytest.raises(UsageError, match=r"\.csv or \.parquet"):
        found.write(tmp_path / "audit.xlsx")


def claims_of(catalog: Catalog, said: list[tuple[int, str, str, bool, float]]) -> Claims:
    """Claims in a column ``title``: row, attribute, value, denied, precision of the reading."""
    rows = []
    for row, attribute, value, negated, precision in said:
        category = catalog.taxonomy.categories[catalog.category[row]]
        names = [choice.name for choice in catalog.taxonomy.choices(category)]
        rows.append(
            (
                row,
                names.index(attribute),
                catalog.taxonomy.code(category, attribute, value),
                negated,
                precision,
            )
        )
    row, attribute_, code, negated_, precision_ = (np.array(column) for column in zip(*rows, strict=True))
    column = np.zeros(len(row), np.int64)
    return Claims(
        catalog.ids,
        ("title",),
        row,
        column,
        attribute_,
        code,
        negated_.astype(bool),
        precision_,
        ("x",) * len(row),
    )


def test_claims_are_ranked_like_cells_under_the_name_of_their_column(
    clean: Catalog, predictions: Predictions
) -> None:
    colour = clean.frame["colour"].to_list()
    said = [
        (row, "colour", colour[row] if row > 10 else other(colour[row]), False, 0.99) for row in range(1, 300)
    ]
    frame = audit(predictions, clean, claims=claims_of(clean, said)).frame()
    words = frame.filter(pl.col("column") == "title")
    assert len(words) == 299
    assert set(words["id"][:10]) == set(clean.ids[1:11])
    assert set(frame["id"][:10]) == set(clean.ids[1:11])


def test_a_denied_value_is_judged_by_its_own_probability(clean: Catalog, predictions: Predictions) -> None:
    colour = clean.frame["colour"].to_list()
    said = [(1, "colour", colour[1], True, 0.99), (2, "colour", other(colour[2]), True, 0.99)]
    found = audit(predictions, clean, claims=claims_of(clean, said))
    words = found.frame().filter(pl.col("column") == "title")
    assert words["stated"].to_list() == [f"not {colour[1]}", f"not {other(colour[2])}"]
    assert words["p_stated"][0] < 0.2 < 0.9 < words["p_stated"][1]
    assert words["odds"][0] > 10 * words["odds"][1]
    kinds = found.findings().counts()
    assert kinds == {"suspect_claim": 1}


def test_suspects_are_findings(damaged: Catalog, predictions: Predictions, clean: Catalog) -> None:
    findings = audit(predictions, damaged).findings()
    assert findings.counts() == {"suspect_label": 20}
    first = next(f for f in findings if f.row == 6)
    assert first.id == clean.ids[5]
    assert first.field == "colour"
    assert first.evidence["seen"] == clean.frame["colour"][5]
    assert first.evidence["stated"] == damaged.frame["colour"][5]
    assert repr(first.evidence["seen"]) in first.message


probability = st.floats(1e-6, 1 - 1e-6)


@given(st.tuples(probability, probability), probability, st.floats(0.001, 0.2), st.floats(0.001, 0.2))
@settings(deadline=None)
def test_a_less_probable_value_is_more_suspect(
    pair: tuple[float, float], rest: float, slip: float, mix_up: float
) -> None:
    low, high = sorted(pair)
    probs = np.array([[p, (1 - p) * rest, (1 - p) * (1 - rest)] for p in (low, high)])
    chances = chances_of(probs, [0, 0], likeness(np.eye(3)))
    odds = Noise(slip, mix_up).odds(chances)
    assert odds[0] >= odds[1] * (1 - 1e-9)


@given(probability, st.tuples(st.floats(0.5, 1), st.floats(0.5, 1)))
@settings(deadline=None)
def test_a_reading_that_is_less_sure_is_less_suspect(p: float, trust: tuple[float, float]) -> None:
    probs = np.array([[p, 1 - p]] * 2)
    chances = chances_of(probs, [0, 0], likeness(probs))
    odds = Noise().odds(read_from_text(chances, np.sort(trust), np.full(2, 0.5)))
    assert odds[0] <= odds[1] * (1 + 1e-9)


def drawn(n: int, slips: float, mix_ups: float) -> Chances:
    """Stated values drawn from calibrated probabilities of five values, some of them gone wrong."""
    rng = np.random.default_rng(0)
    shown = rng.integers(0, 5, n)
    probs = np.full((n, 5), 0.002)
    probs[np.arange(n), shown] = 0.98
    probs[np.arange(n), (shown + 1) % 5] = 0.014
    alike = likeness(probs)
    stated = np.array([rng.choice(5, p=row) for row in probs])
    kind = rng.random(n)
    slip = (stated + rng.integers(1, 5, n)) % 5
    mix = np.array([rng.choice(5, p=alike[code]) for code in stated])
    stated = np.where(kind < slips, slip, np.where(kind < slips + mix_ups, mix, stated))
    return chances_of(probs, stated, alike)


@pytest.mark.parametrize(("slips", "mix_ups"), [(0.08, 0.0), (0.0, 0.08), (0.04, 0.04)])
def test_the_noise_is_estimated(slips: float, mix_ups: float) -> None:
    noise = fit_noise([drawn(8000, slips, mix_ups)])
    assert noise.slip == pytest.approx(slips, abs=0.015)
    assert noise.mix_up == pytest.approx(mix_ups, abs=0.02)


@given(st.integers(0, 500), st.floats(0, 1))
@settings(deadline=None)
def test_a_model_of_few_labels_cannot_deny_a_value(n: int, p: float) -> None:
    mixed = tempered(np.array([[p, 1 - p]]), np.zeros(n, np.int64))
    assert mixed.sum() == pytest.approx(1)
    assert mixed.min() > 0
    assert abs(mixed[0, 0] - p) <= 1 / (n + 1)


def test_a_value_of_a_tiny_category_is_no_suspect(clean: Catalog, predictions: Predictions) -> None:
    gloves = table(3).with_columns(pl.lit("Gloves").alias("category"), ("x" + pl.col("id")).alias("id"))
    catalog = Catalog.read(pl.concat([table(), gloves]))
    blind = []
    for block in seen_by_a_model(catalog, wrong=0.0).blocks:
        if block.category == "Gloves":
            probs = np.full_like(block.probs, 1e-7)
            probs[:, 0] = 1
            block = Block(block.category, block.rows, probs)
        blind.append(block)
    found = audit(Predictions(catalog.taxonomy, catalog.ids, tuple(blind)), catalog)
    assert found.suspects == 0


def test_without_cells_the_noise_is_the_usual_one() -> None:
    assert fit_noise([]) == Noise(pytest.approx(PRIOR_SHARE), pytest.approx(PRIOR_SHARE))


@pytest.fixture(scope="module")
def evidence(clean: Catalog, predictions: Predictions) -> Evidence:
    return Evidence.of(predictions, clean, np.arange(len(clean)))


def flat(predictions: Predictions) -> Predictions:
    """The model that has seen the labels: nothing looks suspicious to it."""
    return replace(
        predictions, blocks=tuple(replace(b, probs=np.ones_like(b.probs)) for b in predictions.blocks)
    )


def test_products_that_were_learnt_from_are_judged_out_of_fold(
    clean: Catalog, predictions: Predictions, evidence: Evidence
) -> None:
    order = np.random.default_rng(3).permutation(len(clean))[:100]
    part, known = clean.select(order), predictions.select(order)
    found = out_of_fold(flat(known), part, evidence)
    for block in found.blocks:
        np.testing.assert_array_equal(block.probs, known.block(block.category).probs)  # type: ignore[union-attr]


def test_another_table_with_the_same_ids_is_not_taken_for_the_training_table(
    clean: Catalog, predictions: Predictions, evidence: Evidence
) -> None:
    stranger = Catalog.read(
        table(seed=9).with_columns(pl.col("colour").reverse(), pl.lit(None, pl.String).alias("one")),
        schema=clean.schema,
    )
    found = out_of_fold(flat(predictions), stranger, evidence)
    kept = np.concatenate([(block.probs == 1).all(axis=1) for block in found.blocks])
    assert 0.2 < kept.mean() < 0.6  # both values differ
    nothing = out_of_fold(flat(predictions), stranger, evidence, same=np.zeros(len(clean), bool))
    assert all((block.probs == 1).all() for block in nothing.blocks)
    renamed = replace(clean, ids=tuple(f"new-{id_}" for id_ in clean.ids))
    found = out_of_fold(replace(flat(predictions), ids=renamed.ids), renamed, evidence)
    assert all((block.probs == 1).all() for block in found.blocks)


def test_look_alikes_are_confirmed_and_never_the_product_itself(
    damaged: Catalog, predictions: Predictions, clean: Catalog
) -> None:
    evidence = Evidence.of(predictions, damaged, np.arange(len(clean)))
    found = audit(predictions, damaged)
    near = np.tile(np.arange(len(clean)), (len(clean), 1))
    near[:, -1] = -1
    ids = look_alike_ids(found, near, clean.ids, evidence, 3)
    filled = found.with_evidence(ids)
    place = {id_: row for row, id_ in enumerate(clean.ids)}
    for row, attribute, names in zip(found.row.tolist(), found.attribute.tolist(), ids, strict=True):
        assert len(names) == 3
        assert clean.ids[row] not in names
        assert {damaged.category[place[name]] for name in names} == {damaged.category[row]}
        if attribute == 0:
            assert not {place[name] for name in names} & set(range(5, 25))
    assert filled.frame()["evidence"][0] == ";".join(ids[0])
    with pytest.raises(PredictionError, match="look-alikes of 0"):
        found.with_evidence([])


def test_an_empty_audit_has_its_columns(clean: Catalog) -> None:
    none = clean.select(np.zeros(0, np.int64))
    found = audit(Predictions(clean.taxonomy, (), ()), none)
    assert tuple(found.frame().columns) == COLUMNS
    assert len(found.findings()) == 0


def test_weights_are_read_from_the_command_line() -> None:
    from shelfwise.auditing import weights_of

    assert weights_of("colour=2, a=b=0.5") == {"colour": 2.0, "a=b": 0.5}
    assert weights_of("") == {}
    for wrong in ("colour", "=2", "colour=much"):
        with pytest.raises(UsageError, match="name=number"):
            weights_of(wrong)


def test_the_verb_writes_a_row_for_every_stated_value(
    shell: Any, toy: Any, saved: Path, tmp_path: Path
) -> None:
    out = tmp_path / "audit.csv"
    ran = shell("audit", saved, toy.table, "-o", out, "--weights", "colour=2")
    assert ran.code == 0, ran.err
    assert "suspects" in ran.out
    frame = pl.read_csv(out, infer_schema=False)
    assert tuple(frame.columns) == COLUMNS
    assert len(frame.filter(pl.col("column").is_in(["colour", "size", "pattern"]))) == int(
        (toy.catalog.codes >= 0).sum()
    )
    assert (np.diff(frame["odds"].cast(pl.Float64).to_numpy()) <= 1e-9).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-o", "audit.xlsx"), ".csv or .parquet"),
        (("-o", "audit.csv", "--html", "audit.pdf"), ".html"),
        (("-o", "audit.csv", "--weights", "colr=2"), "colour"),
    ],
)
def test_wrong_options_are_refused_in_one_message(
    shell: Any, toy: Any, saved: Path, words: tuple[str, ...], message: str
) -> None:
    ran = shell("audit", saved, toy.table, *words)
    assert ran.code == 2
    assert message in ran.err


def test_clean_lists_suspects_and_changes_nothing(shell: Any, toy: Any, saved: Path, tmp_path: Path) -> None:
    frame = pl.read_csv(toy.table, infer_schema=False)
    table = toy.directory / "changed.csv"
    row = next(i for i in range(len(frame)) if frame["colour"][i] == "red" and frame["category"][i] == "Cups")
    cells = frame["colour"].to_list()
    cells[row] = "blue"
    frame.with_columns(pl.Series("colour", cells)).write_csv(table)
    before = table.read_bytes()
    out = tmp_path / "findings.csv"
    try:
        ran = shell("clean", table, "-o", out, "--suspects", "--bundle", saved)
    finally:
        after = table.read_bytes()
        table.unlink()
    assert ran.code == 0, ran.err
    assert before == after
    found = pl.read_csv(out, infer_schema=False).filter(pl.col("kind") == "suspect_label")
    assert frame["id"][row] in found.filter(pl.col("field") == "colour")["id"].to_list()
    alone = shell("clean", toy.table, "-o", out, "--suspects")
    assert alone.code == 2
    assert "--bundle" in alone.err
