"""Decisions: best for the metric that counts, held back where they are not sure, and never taught by their own fold."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shelfwise import metrics
from shelfwise.answers import STATES, Answers, RowError
from shelfwise.errors import BundleError
from shelfwise.predictions import Block, Familiarity, Predictions
from shelfwise.roles import Layout
from shelfwise.taxonomy import Choice, Taxonomy
from shelfwise.trust import decide as module
from shelfwise.trust.calibrate import Calibration, PairCalibration, calibrate
from shelfwise.trust.decide import Rule, best_offsets, decide, decided_out_of_fold
from shelfwise.trust.promise import Promise, Promised
from simulated import CATEGORY, Told, evidence_of, misstated, truth

SAME = PairCalibration((1.0,), 0.0)
SKEWED = (0.8, 0.12, 0.05, 0.03)
NAME = (CATEGORY, "a")


def plain_rule(**fields: object) -> Rule:
    """A rule that leaves probabilities as they are."""
    return Rule("accuracy", Calibration({}, SAME, {}), **fields)  # type: ignore[arg-type]


def skewed(rng: np.random.Generator, n: int) -> tuple[Told, np.ndarray]:
    """What a predictor with class weights says of a skewed attribute, and the true probabilities."""
    probs, labels = truth(rng, n, SKEWED, 1.5)
    return Told(misstated(probs, np.array(SKEWED), 0.75, 1.3), labels), probs


def codes_of(answers: Answers, attribute: int = 0) -> np.ndarray:
    return answers.blocks[0].codes[:, attribute]


@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_the_counts_of_every_step_are_those_of_answering_anew(seed: int, values: int, rows: int):
    rng = np.random.default_rng(seed)
    probs_mv = rng.dirichlet(np.full(values, 0.7), size=rows)
    logits_mv, offset_v = np.log(np.maximum(probs_mv, 1e-12)), rng.normal(size=values)
    value, row = int(rng.integers(values)), np.arange(rows)
    grid_K = offset_v[value] + np.linspace(-3, 3, 13) + 0.01 * rng.normal()
    scores_mv = logits_mv + offset_v
    scores_mv[:, value] = -np.inf
    other_m = scores_mv.argmax(axis=1)
    turn_m = scores_mv[row, other_m] - logits_mv[:, value]
    found = module._expected_counts(turn_m, other_m, probs_mv, value, grid_K, probs_mv.sum(axis=0))
    for at, offset in enumerate(grid_K):
        tried_v = offset_v.copy()
        tried_v[value] = offset
        answer_m = (logits_mv + tried_v).argmax(axis=1)
        answered_v = np.bincount(answer_m, minlength=values)
        correct_v = np.bincount(answer_m, probs_mv[row, answer_m], values)
        assert found.answered_V[at] == pytest.approx(answered_v)
        assert found.correct_V[at] == pytest.approx(correct_v)
    assert found.truth_V[0] == pytest.approx(probs_mv.sum(axis=0))


@pytest.mark.parametrize("metric", ["macro_f1", "harmonic_f1"])
def test_offsets_raise_what_is_expected_and_what_comes(metric: str):
    """On other rows than they were fitted on, over ten draws; and every draw's expectation."""
    gains = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        told, _ = skewed(rng, 1500)
        rule = decide(evidence_of({"a": told}), metric)
        fresh, _ = skewed(rng, 3000)
        evidence = evidence_of({"a": fresh})
        decided = codes_of(rule.answers(evidence.predictions()))
        plain = codes_of(replace(rule, offsets={}).answers(evidence.predictions()))
        gains.append(
            metrics.score(metric, fresh.labels, decided, 4) - metrics.score(metric, fresh.labels, plain, 4)
        )
        probs = rule.calibration.blended(NAME, [told.probs])
        expected = [expected_score(metric, probs, offset) for offset in (rule.offsets[NAME], np.zeros(4))]
        assert expected[0] > expected[1]
    assert np.mean(gains) > 0.01
    assert np.sum(np.array(gains) > 0) >= 8


def expected_score(metric: str, probs: np.ndarray, offset: np.ndarray) -> float:
    answer = (np.log(probs) + offset).argmax(axis=1)
    correct = np.bincount(answer, probs[np.arange(len(probs)), answer], probs.shape[1])
    answered = np.bincount(answer, minlength=probs.shape[1]).astype(np.float64)
    nothing = np.zeros(())
    return float(metrics.apply(metric, metrics.Tally(correct, answered, probs.sum(axis=0), nothing, nothing)))


def test_accuracy_is_served_by_the_most_probable_value():
    told, _ = skewed(np.random.default_rng(0), 800)
    evidence = evidence_of({"a": told})
    for metric in ("accuracy", "micro_f1"):
        rule = decide(evidence, metric)
        assert rule.offsets == {}
        found = codes_of(rule.answers(evidence.predictions()))
        assert np.array_equal(found, rule.calibration.blended(NAME, [told.probs]).argmax(axis=1))


def test_few_labels_get_the_mild_tilt_only():
    told, probs = skewed(np.random.default_rng(0), 40)
    counts = np.bincount(told.labels, minlength=4)
    expected = -module.TILT * (np.log(counts + 0.5) - np.log(counts + 0.5).mean())
    assert best_offsets(probs, counts, "macro_f1") == pytest.approx(expected)


def test_an_offset_moves_nothing_when_every_row_is_sure():
    """Certain rows: no offset changes an answer, so the penalty keeps the start."""
    labels = np.arange(400) % 3
    probs = np.full((400, 3), 1e-9)
    probs[np.arange(400), labels] = 1
    counts = np.bincount(labels)
    assert best_offsets(probs, counts, "macro_f1") == pytest.approx(np.zeros(3), abs=0.01)


def test_costs_give_the_least_expected_cost():
    rng = np.random.default_rng(3)
    costs = rng.uniform(0, 5, size=(4, 4)) * (1 - np.eye(4))
    told, _ = skewed(rng, 600)
    both = evidence_of({"a": told, "b": told})
    rule = decide(both, "macro_f1", costs={NAME: tuple(map(tuple, costs.tolist()))})
    assert NAME not in rule.offsets
    assert (CATEGORY, "b") in rule.offsets
    found = rule.answers(both.predictions())
    probs = rule.calibration.blended(NAME, [told.probs])
    for row in range(600):
        each = [sum(probs[row, true] * costs[true, answer] for true in range(4)) for answer in range(4)]
        assert each[codes_of(found)[row]] == pytest.approx(min(each))
    assert not np.array_equal(codes_of(found), codes_of(found, 1))
    # Where every mistake costs the same, the cheapest answer is the most probable one.
    alike = decide(both, "macro_f1", costs={NAME: tuple(map(tuple, (1 - np.eye(4)).tolist()))})
    assert np.array_equal(codes_of(alike.answers(both.predictions())), probs.argmax(axis=1))


def test_written_as_json_and_read_it_is_the_same_rule():
    rng = np.random.default_rng(4)
    told = {
        "a": skewed(rng, 300)[0],
        "ü": skewed(rng, 300)[0],
        "one": Told(np.ones((300, 1)), np.zeros(300, int)),
    }
    told["ü"] = replace(told["ü"], opinions=(told["ü"].probs, told["a"].probs))
    told["a"] = replace(told["a"], opinions=(told["a"].probs,) * 2)
    told["one"] = replace(told["one"], opinions=(told["one"].probs,) * 2)
    evidence = evidence_of(told)
    costs = {NAME: tuple(map(tuple, rng.uniform(0, 1, (4, 4)).tolist()))}
    rule = replace(
        decide(evidence, costs=costs),
        untrained=frozenset({(CATEGORY, "new")}),
        untrained_values=frozenset({(CATEGORY, "ü", "v1"), (CATEGORY, "fresh", "x/y")}),
    )
    read = Rule.from_table(json.loads(json.dumps(rule.table())), "decision.json")
    assert read.table() == rule.table()
    for field in ("metric", "offsets", "costs", "untrained", "untrained_values"):
        assert getattr(read, field) == getattr(rule, field), field
    for field in ("pairs", "pooled", "counts"):
        assert getattr(read.calibration, field) == getattr(rule.calibration, field), field
    one, two = (r.answers(evidence.predictions()).blocks[0] for r in (rule, read))
    assert np.array_equal(one.codes, two.codes)
    assert np.array_equal(one.probability, two.probability)


def test_an_attribute_that_came_later_is_answered_after_reading_too():
    """Never learnt, so without counts: uniform probabilities, unsure."""
    rule = plain_rule(untrained=frozenset({NAME}))
    evidence = evidence_of({"a": Told(np.full((3, 2), 0.5), np.zeros(3, int))})
    read = Rule.from_table(json.loads(json.dumps(rule.table())), "decision.json")
    for each in (rule, read):
        assert each.answers(evidence.predictions()).counts() == {"unsure": 3}
        assert each.answers(evidence.predictions(), every_cell=True).counts() == {"answered": 3}


def test_something_else_than_a_rule_is_refused():
    table = plain_rule(offsets={NAME: (0.0, 1.0)}).table()
    for wrong in ({}, {**table, "pairs": [{}]}, {**table, "pooled": None}, {**table, "pairs": 3}):
        with pytest.raises(BundleError, match=r"decision\.json: not a decision"):
            Rule.from_table(wrong, "decision.json")


TAXONOMY = Taxonomy(
    {
        "Cups": (
            Choice("colour", ("red", "blue", "green")),
            Choice("handle", ("one", "two", "n/a"), not_applicable="n/a"),
            Choice("odd", ()),
        )
    }
)
ROWS = np.array(
    [
        [0.90, 0.06, 0.04, 0.20, 0.10, 0.70],
        [0.50, 0.30, 0.20, 0.80, 0.15, 0.05],
        [0.30, 0.60, 0.10, 0.10, 0.85, 0.05],
        [0.98, 0.01, 0.01, 0.40, 0.30, 0.30],
    ],
    np.float32,
)


def cups(familiarity: Familiarity | None = None) -> Predictions:
    """Four cups in rows 0, 1, 3, 4; row 2 has no picture."""
    errors = {2: RowError("image", "truncated")}
    block = Block("Cups", np.array([0, 1, 3, 4]), ROWS)
    return Predictions(TAXONOMY, tuple("abcde"), (block,), errors, familiarity=familiarity)


def promised(colour: float, handle: float, unseen: tuple[str, ...] = ()) -> Promise:
    pairs = {
        ("Cups", "colour"): Promised(colour, 0.5, 0.9, 100, unseen=unseen),
        ("Cups", "handle"): Promised(handle, 0.5, 0.9, 100),
    }
    return Promise(0.9, 0.95, "attribute", pairs)


def states(answers: Answers, attribute: int) -> list[str]:
    return [STATES[code] for code in answers.blocks[0].state[:, attribute]]


def test_without_a_promise_every_cell_is_answered():
    found = plain_rule().answers(cups())
    assert states(found, 0) == ["answered"] * 4
    assert states(found, 1) == ["not applicable", "answered", "answered", "answered"]
    assert states(found, 2) == ["unsure"] * 4, "no values, no answer"
    assert found.of(0)["handle"]["value"] == "n/a"
    assert found.counts() == {"answered": 7, "unsure": 4, "not applicable": 1, "error": 1}
    assert found.block("Cups") is found.blocks[0]
    assert found.block("Plates") is None


def test_below_the_threshold_a_cell_is_unsure_and_keeps_its_candidate():
    found = plain_rule().answers(cups(), promised(0.6, np.inf))
    assert states(found, 0) == ["answered", "unsure", "answered", "answered"], (
        "as sure as the threshold is enough"
    )
    assert states(found, 1) == ["unsure"] * 4
    assert found.of(1)["colour"] == {
        "value": None,
        "probability": 0.5,
        "state": "unsure",
        "candidate": "red",
        "runner_up": "blue",
        "runner_up_probability": 0.3,
    }
    assert found.counts() == {"answered": 3, "unsure": 9, "error": 1}
    other = Promise(0.9, 0.95, "attribute", {})
    assert plain_rule().answers(cups(), other).counts() == {"unsure": 12, "error": 1}, (
        "nothing said, nothing filled"
    )


def test_a_promise_is_about_the_most_probable_value():
    """Offsets that would answer another value are for answers without a promise."""
    rule = plain_rule(offsets={("Cups", "colour"): (0.0, 9.0, 0.0)})
    assert rule.answers(cups()).of(0)["colour"]["value"] == "blue"
    assert rule.answers(cups()).of(0)["colour"]["probability"] == 0.06
    assert rule.answers(cups(), promised(0.8, 0.8)).of(0)["colour"]["value"] == "red"


def test_a_value_that_was_never_checked_is_not_answered_under_a_promise():
    found = plain_rule().answers(cups(), promised(0.5, 0.5, unseen=("blue",)))
    assert states(found, 0) == ["answered", "answered", "unsure", "answered"]
    assert found.of(3)["colour"]["candidate"] == "blue"


def test_strange_products_are_flagged_and_keep_their_candidates():
    nan = np.nan
    familiarity = Familiarity(
        np.array([0.5, 0.01, nan, 0.001, nan], np.float32),
        np.array([0.5, 0.5, nan, 0.001, 0.01], np.float32),
        np.array([0, 0, -1, 0, 0], np.int32),
    )
    rule, given_ = plain_rule(), cups(familiarity)
    found = rule.answers(given_)
    assert states(found, 0) == ["answered", "unfamiliar", "unfamiliar", "category?"]
    assert states(found, 1) == ["not applicable", "unfamiliar", "unfamiliar", "category?"]
    assert found.of(1)["colour"]["value"] is None
    assert found.of(1)["colour"]["candidate"] == "red"
    assert found.flagged() == {1: "unfamiliar", 3: "unfamiliar", 4: "category?"}
    told = found.error_frame()
    assert told.select("row", "field").rows() == [(2, "image"), (3, "image"), (4, "image"), (5, "category")]
    assert "'Cups' is likelier" in told["error"][3]
    assert rule.answers(given_, every_cell=True).flagged() == {}
    assert found.likelier is not None
    assert found.likelier.tolist() == [0, 0, -1, 0, 0]
    assert states(rule.answers(given_, alarm=0.005), 0) == ["answered", "answered", "unfamiliar", "answered"]
    assert states(rule.answers(given_, alarm=0.0), 0) == ["answered"] * 4
    held = rule.answers(given_, promised(0.95, 0.95))
    assert states(held, 0) == ["unsure", "unfamiliar", "unfamiliar", "category?"]


def test_every_cell_overrides_promise_familiarity_and_what_is_untrained():
    low = np.zeros(5, np.float32)
    rule = plain_rule(untrained=frozenset({("Cups", "colour")}))
    given_ = cups(Familiarity(low, low, np.zeros(5, np.int32)))
    found = rule.answers(given_, promised(np.inf, np.inf), every_cell=True)
    assert found.counts() == {"answered": 7, "unsure": 4, "not applicable": 1, "error": 1}
    assert found.of(0)["colour"]["value"] == "red"


def test_what_was_never_learnt_is_unsure():
    rule = plain_rule(
        untrained=frozenset({("Cups", "handle")}), untrained_values=frozenset({("Cups", "colour", "blue")})
    )
    found = rule.answers(cups())
    assert states(found, 0) == ["answered", "answered", "unsure", "answered"]
    assert states(found, 1) == ["unsure"] * 4, "not even as not applicable"
    assert found.of(3)["colour"]["candidate"] == "blue"


def test_explained_in_a_file(tmp_path: Path):
    found = replace(plain_rule().answers(cups(), promised(0.6, np.inf)), categories=("Cups",) * 5)
    found = replace(found, layout=Layout("named", "id", "category", ("colour", "handle", "odd")))
    found.write(tmp_path / "out.csv", explain=True)
    frame = pl.read_csv(tmp_path / "out.csv", infer_schema=False)
    explained = ["colour", "colour.state", "colour.probability", "colour.candidate", "colour.runner_up"]
    assert frame.columns[2:7] == explained
    assert frame["colour"].to_list() == ["red", None, None, "blue", "red"]
    assert frame["colour.state"].to_list() == ["answered", "unsure", "error", "answered", "answered"]
    assert frame["colour.candidate"].to_list() == ["red", "red", None, "blue", "red"]
    assert frame["colour.runner_up"].to_list()[1] == "blue"
    assert float(frame["colour.probability"][1]) == pytest.approx(0.5)
    assert frame["handle"].to_list() == [None] * 5
    assert frame["handle.candidate"].to_list() == ["n/a", "one", None, "two", "one"]
    found.write(tmp_path / "filled.csv", filler="?")
    assert pl.read_csv(tmp_path / "filled.csv")["handle"].to_list() == ["?"] * 5


def test_a_fold_is_decided_without_its_own_labels():
    rng = np.random.default_rng(6)
    evidence = evidence_of({"a": skewed(rng, 600)[0], "b": skewed(rng, 600)[0]})
    block, inside = evidence.blocks[0], evidence.fold == 2
    labels = block.labels.copy()
    labels[inside] = rng.integers(0, 4, size=labels[inside].shape)
    changed = replace(evidence, blocks=(replace(block, labels=labels),))
    before, after = (decided_out_of_fold(each).blocks[0] for each in (evidence, changed))
    for field in ("codes", "probability", "second", "runner_up"):
        assert np.array_equal(getattr(before, field)[inside], getattr(after, field)[inside]), field
    assert not np.array_equal(before.probability[~inside], after.probability[~inside])
    rule = decide(evidence.select(~inside))
    assert np.array_equal(before.codes[inside], rule.answers(evidence.predictions()).blocks[0].codes[inside])


def test_the_rule_is_calibrated_on_the_whole_evidence():
    evidence = evidence_of({"a": skewed(np.random.default_rng(7), 400)[0]})
    assert decide(evidence).calibration.pairs == calibrate(evidence).pairs
    empty = decided_out_of_fold(evidence.select(np.zeros(400, bool)))
    assert empty.counts() == {"error": 400}


def test_a_row_is_answered_alike_in_any_batch():
    rng = np.random.default_rng(8)
    evidence = evidence_of({"a": skewed(rng, 300)[0]})
    rule, given_ = decide(evidence), evidence.predictions()
    whole = rule.answers(given_).blocks[0]
    for rows in (np.arange(300)[::-1], rng.permutation(300)[:11], [299]):
        part = rule.answers(given_.select(rows)).blocks[0]
        assert np.array_equal(part.codes, whole.codes[np.asarray(rows)])
        assert np.array_equal(part.probability, whole.probability[np.asarray(rows)])
