"""Calibration: known distortions are taken back, few labels borrow from the others, no row judges itself."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shelfwise.metrics import expected_calibration_error
from shelfwise.predictions import Block, Predictions
from shelfwise.taxonomy import Choice, Taxonomy
from shelfwise.trust.calibrate import Calibration, PairCalibration, calibrate, out_of_fold
from shelfwise.trust.evidence import Evidence, EvidenceBlock
from simulated import CATEGORY, Told, evidence_of, misstated, normal, probs_of, truth

PRIOR = (0.55, 0.25, 0.12, 0.08)


def name(attribute: str = "a") -> tuple[str, str]:
    return CATEGORY, attribute


def weighted(rng: np.random.Generator, n: int, temperature: float = 1.0, power: float = 0.75) -> Told:
    """What a predictor with class weights says of a skewed attribute, and the labels."""
    probs, labels = truth(rng, n, PRIOR)
    counts = np.bincount(labels, minlength=len(PRIOR)) + 0.5
    return Told(misstated(probs, counts, power, temperature), labels)


def ece(evidence: Evidence) -> float:
    probs, labels = probs_of(evidence), evidence.blocks[0].labels[:, 0]
    return expected_calibration_error(probs.max(axis=1), probs.argmax(axis=1) == labels, scheme="mass")


@pytest.mark.parametrize(("temperature", "power"), [(1.0, 0.75), (2.0, 0.75), (0.5, 0.0), (0.6, 1.0)])
def test_temperature_and_prior_are_found(temperature: float, power: float):
    """said = (true / count ** power) ** (1 / T): the exponent is T and the weight of log count is the power."""
    told = weighted(np.random.default_rng(1), 6000, temperature, power)
    calibration = calibrate(evidence_of({"a": told}))
    found = calibration.of(name())
    assert found.opinions[0] == pytest.approx(temperature, rel=0.1)
    assert found.prior == pytest.approx(power, abs=0.12)
    first, both = calibration.blended(name(), [told.probs]), calibration.probabilities(name(), [told.probs])
    assert np.abs(both - first).max() < 0.03, "nothing is left for the second step to mend"


def with_probs(evidence: Evidence, found: Predictions) -> Evidence:
    pairs = zip(evidence.blocks, found.blocks, strict=True)
    return replace(evidence, blocks=tuple(replace(b, probs=f.probs, opinions=f.opinions) for b, f in pairs))


@pytest.mark.parametrize("temperature", [0.5, 2.0, 3.0])
def test_calibration_error_falls_to_the_floor_on_fresh_data(temperature: float):
    """The floor is what the true probabilities themselves score on as many rows."""
    errors = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        calibration = calibrate(evidence_of({"a": weighted(rng, 3000, temperature)}))
        probs, labels = truth(rng, 6000, PRIOR)
        counts = np.bincount(labels, minlength=4) + 0.5
        fresh = evidence_of({"a": Told(misstated(probs, counts, 0.75, temperature), labels)})
        after = with_probs(fresh, calibration.apply(fresh.predictions()))
        errors.append([ece(each) for each in (fresh, after, evidence_of({"a": Told(probs, labels)}))])
        assert np.abs(probs_of(after) - probs).mean() < 0.25 * np.abs(probs_of(fresh) - probs).mean()
    before, mended, floor = np.mean(errors, axis=0)
    assert before > 0.05
    assert mended < floor + 0.008


def test_out_of_fold_it_is_calibrated_too():
    evidence = evidence_of({"a": weighted(np.random.default_rng(3), 3000, 0.5)})
    assert ece(evidence) > 0.06
    assert ece(out_of_fold(evidence)) < 0.025


def test_a_useless_opinion_gets_no_weight_and_two_halves_are_added():
    rng = np.random.default_rng(4)
    n = 4000
    labels = rng.choice(3, size=n, p=(0.5, 0.3, 0.2))
    seen = rng.normal(size=(2, n, 3))
    seen[:, np.arange(n), labels] += 1.5
    noise = normal(1.5 * rng.normal(size=(n, 3)))
    one, other = (normal(np.log([0.5, 0.3, 0.2]) + 1.5 * part) for part in seen)
    useless = calibrate(evidence_of({"a": Told(one, labels, (one, noise))})).of(name())
    assert useless.opinions[0] == pytest.approx(1, abs=0.1)
    assert useless.opinions[1] == pytest.approx(0, abs=0.05)
    # p(y | both) is proportional to p(y | one) p(y | other) / p(y): each in full, the prior taken out once.
    both = evidence_of({"a": Told(one, labels, (one, other))})
    calibration = calibrate(both)
    assert calibration.of(name()).opinions == pytest.approx((1, 1), abs=0.12)
    assert calibration.of(name()).prior == pytest.approx(-1, abs=0.25)
    right = (probs_of(out_of_fold(both)).argmax(axis=1) == labels).mean()
    assert right > max((part.argmax(axis=1) == labels).mean() for part in (one, other)) + 0.05


def test_few_labels_fall_back_to_what_the_others_say():
    """Six attributes agree on a temperature of 2; of three more, one has 4 labels and one 4000, both saying 0.5."""
    rng = np.random.default_rng(5)
    n = 4000
    told = {f"a{k}": weighted(rng, n, 2.0) for k in range(6)}
    odd = weighted(rng, n, 0.5)
    for label, kept in (("few", 4), ("some", 60), ("many", n)):
        told[label] = Told(odd.probs, np.where(np.arange(n) < kept, odd.labels, -1))
    found = calibrate(evidence_of(told))
    few, some, many = (found.of(name(label)).opinions[0] for label in ("few", "some", "many"))
    assert many == pytest.approx(0.5, abs=0.07)
    assert many < some < few
    assert abs(few - found.pooled.opinions[0]) < 0.25 * abs(many - found.pooled.opinions[0])
    assert found.of(("Things", "unheard of")) == found.pooled


def test_odd_attributes_do_not_crash():
    """One value, five labels, none, none in a fold, a value that no label has, always right and always wrong."""
    rng = np.random.default_rng(6)
    n = 300
    probs, labels = truth(rng, n, (0.6, 0.4))
    missing = np.full(n, -1)
    three = np.hstack([0.9 * probs, np.full((n, 1), 0.1)])
    sure = np.full((n, 2), 1e-12)
    sure[np.arange(n), labels] = 1
    evidence = evidence_of(
        {
            "one value": Told(np.ones((n, 1)), np.zeros(n, int)),
            "five labels": Told(probs, np.where(np.arange(n) < 5, labels, -1)),
            "no label": Told(probs, missing),
            "not in a fold": Told(probs, np.where(np.arange(n) % 5 == 2, -1, labels)),
            "unseen value": Told(three, labels),
            "one value seen": Told(probs, np.where(labels == 0, 0, -1)),
            "always right": Told(sure, labels),
            "always wrong": Told(sure[:, ::-1], labels),
            "no values": Told(np.zeros((n, 0)), missing),
        }
    )
    for found in (
        out_of_fold(evidence),
        with_probs(evidence, calibrate(evidence).apply(evidence.predictions())),
    ):
        for attribute, choice in enumerate(evidence.taxonomy.choices(CATEGORY)):
            probs = probs_of(found, attribute)
            assert np.isfinite(probs).all(), choice.name
            assert (probs >= 0).all()
            if choice.values:
                assert probs.sum(axis=1) == pytest.approx(1, abs=1e-5), choice.name
    unseen = probs_of(found, 4)
    assert unseen[:, 2].mean() < 0.05, "a value without a label among 300 is unlikely"
    assert probs_of(found, 6).max(axis=1).mean() > 0.97
    assert (probs_of(found, 7).argmax(axis=1) == labels).all(), (
        "who is always wrong tells of two values the right one"
    )


def test_no_evidence_and_one_fold_leave_probabilities_nearly_alone():
    evidence = evidence_of({"a": weighted(np.random.default_rng(0), 50)})
    empty = calibrate(evidence.select(np.zeros(50, bool)))
    assert empty.pairs == {}
    one = out_of_fold(replace(evidence, fold=np.zeros(50, np.int64)))
    assert probs_of(one).argmax(axis=1).tolist() == probs_of(evidence).argmax(axis=1).tolist()
    assert np.abs(probs_of(one) - probs_of(evidence)).max() < 0.05


def test_a_category_that_has_fewer_opinions_than_the_others():
    """A category whose rows are all in one fold was never learnt out of it: its probabilities are one opinion."""
    rng = np.random.default_rng(7)
    probs, labels = truth(rng, 200, (0.5, 0.5))
    taxonomy = Taxonomy({"Big": (Choice("a", ("x", "y")),), "Small": (Choice("a", ("x", "y")),)})
    packed = probs.astype(np.float32)
    blocks = (
        EvidenceBlock(
            "Big", np.arange(190), packed[:190], labels[:190, None].astype(np.int32), (packed[:190],) * 2
        ),
        EvidenceBlock(
            "Small",
            np.arange(190, 200),
            np.full((10, 2), 0.5, np.float32),
            labels[190:, None].astype(np.int32),
        ),
    )
    fold = np.where(np.arange(200) < 190, np.arange(200) % 3, 1)
    evidence = Evidence(taxonomy, tuple(map(str, range(200))), np.arange(200), fold, blocks)
    found = calibrate(evidence)
    assert {len(part.opinions) for part in found.pairs.values()} == {2}
    for done in (found.apply(evidence.predictions()), out_of_fold(evidence).predictions()):
        small = done.block("Small")
        assert small is not None
        assert np.isfinite(small.probs).all()
    # Learnt from everything, the predictor has both opinions on it; alike they say what one says for both.
    twice = found.probabilities(("Small", "a"), [packed[190:], packed[190:]])
    assert twice == pytest.approx(found.probabilities(("Small", "a"), [packed[190:]]))
    # Calibrated when there was one opinion, asked with two: each has half of its weight.
    one = Calibration({}, PairCalibration((0.8,), 0.0), {})
    assert one.blended(("Big", "a"), [packed, packed]) == pytest.approx(one.blended(("Big", "a"), [packed]))
    assert one.blended(("Big", "a"), [packed, packed[:, ::-1]]) == pytest.approx(np.full((200, 2), 0.5))


def test_rows_in_another_order_give_the_same_calibration():
    rng = np.random.default_rng(8)
    told, n = {"a": weighted(rng, 900, 1.5), "b": weighted(rng, 900, 0.7)}, 900
    evidence = evidence_of(told)
    order = rng.permutation(n)
    shuffled = evidence_of(
        {label: Told(one.probs[order], one.labels[order]) for label, one in told.items()},
        group=evidence.group[order],
        fold=evidence.fold[order],
    )
    first, second = calibrate(evidence), calibrate(shuffled)
    for label in told:
        one, two = first.of(name(label)), second.of(name(label))
        assert one.opinions == pytest.approx(two.opinions, rel=1e-6)
        assert (one.prior, one.shift, one.slope, one.tail) == pytest.approx(
            (two.prior, two.shift, two.slope, two.tail), abs=1e-6
        )
    assert out_of_fold(shuffled).blocks[0].probs == pytest.approx(
        out_of_fold(evidence).blocks[0].probs[order], abs=1e-5
    )


def test_a_row_is_calibrated_alike_in_any_batch():
    rng = np.random.default_rng(9)
    evidence = evidence_of({"a": weighted(rng, 500, 1.5), "b": weighted(rng, 500, 0.7)})
    calibration, given_ = calibrate(evidence), evidence.predictions()
    whole = calibration.apply(given_).blocks[0].probs
    for rows in (np.arange(500)[::-1], rng.permutation(500)[:37], [499], [3, 1]):
        part = calibration.apply(given_.select(rows)).blocks[0].probs
        assert np.array_equal(part, whole[np.asarray(rows)])


def test_a_fold_is_calibrated_without_its_own_labels():
    """Other labels in fold 1 change the probabilities of every other fold and not one of its own."""
    rng = np.random.default_rng(10)
    evidence = evidence_of({"a": weighted(rng, 600), "b": weighted(rng, 600)})
    block, inside = evidence.blocks[0], evidence.fold == 1
    labels = block.labels.copy()
    labels[inside] = rng.integers(0, 4, size=labels[inside].shape)
    changed = replace(evidence, blocks=(replace(block, labels=labels),))
    before, after = out_of_fold(evidence).blocks[0].probs, out_of_fold(changed).blocks[0].probs
    assert np.array_equal(before[inside], after[inside])
    assert (before[~inside] != after[~inside]).any(axis=1).all()


@given(
    st.lists(st.lists(st.floats(1e-6, 1), min_size=3, max_size=3), min_size=1, max_size=8),
    st.floats(-6, 6),
    st.floats(-1, 4),
    st.floats(-1, 4),
)
@settings(max_examples=200, deadline=None)
def test_the_second_step_keeps_the_most_probable_value(
    rows: list[list[float]], shift: float, slope: float, tail: float
):
    said = np.array(rows) / np.sum(rows, axis=1, keepdims=True)
    calibration = Calibration(
        {name(): PairCalibration((1.0,), 0.0, shift, slope, tail)}, PairCalibration((1.0,), 0.0), {}
    )
    first, both = calibration.blended(name(), [said]), calibration.probabilities(name(), [said])
    taken = both.astype(np.float32)
    assert taken[np.arange(len(said)), first.argmax(axis=1)] == pytest.approx(taken.max(axis=1))
    assert both.sum(axis=1) == pytest.approx(1, abs=1e-6)
    assert (both >= 0).all()
    top = first.argmax(axis=1)
    rest = np.arange(3) != top[:, None]
    ratio = first[rest].reshape(-1, 2)
    kept = both[rest].reshape(-1, 2)
    assert ratio[:, 0] * kept[:, 1] == pytest.approx(ratio[:, 1] * kept[:, 0], abs=1e-9), (
        "the others keep their odds"
    )


def test_applied_predictions_keep_everything_but_the_opinions():
    evidence = evidence_of({"a": weighted(np.random.default_rng(0), 60)})
    given_ = replace(evidence.predictions(), guessed={3: 0.5}, notes=("said",))
    block = given_.blocks[0]
    given_ = replace(given_, blocks=(Block(block.category, block.rows, block.probs, (block.probs,)),))
    found = calibrate(evidence).apply(given_)
    assert (found.guessed, found.notes, found.ids) == ({3: 0.5}, ("said",), given_.ids)
    assert found.blocks[0].opinions == ()
    assert found.blocks[0].probs.dtype == np.float32
