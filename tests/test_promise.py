"""Promises: kept as often as said, over groups and the search for a threshold, or not made, with the reason."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from shelfwise.errors import UsageError
from shelfwise.trust.evidence import Evidence
from shelfwise.trust.promise import LEAST, prefixes_of, promise, tail
from simulated import CATEGORY, Told, evidence_of

NAME = (CATEGORY, "a0")
#: Of a share of 0.05 over 300 draws, no more than this is chance (3 standard errors).
SLACK_300 = 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5


def binary(confidence: np.ndarray, right: np.ndarray) -> Told:
    """Two values; the first is always the likelier one."""
    return Told(np.stack([confidence, 1 - confidence], axis=1), np.where(right, 0, 1))


def honest(rng: np.random.Generator, n: int, attributes: int = 1) -> Evidence:
    """Answers as often right as they are sure."""
    told = {}
    for k in range(attributes):
        confidence = 0.5 + 0.5 * rng.beta(6, 1, size=n)
        told[f"a{k}"] = binary(confidence, rng.random(n) < confidence)
    return evidence_of(told)


def broken(over: str, draw: Callable[[np.random.Generator], Evidence], draws: int = 300) -> float:
    """The share of draws in which a precision of 0.9 is promised of answers that are right less often."""
    found = 0
    for seed in range(draws):
        kept = promise(draw(np.random.default_rng(seed)), 0.9, 0.95, over)
        found += any(np.isfinite(part.threshold) for part in kept.pairs.values())
    return found / draws


def test_just_below_the_promise_nothing_is_answered_but_in_one_draw_of_twenty():
    """Every answer is right with probability 0.899, however sure: whatever is answered breaks the promise."""

    def draw(rng: np.random.Generator) -> Evidence:
        return evidence_of({"a0": binary(rng.uniform(0.7, 1, 400), rng.random(400) < 0.899)})

    assert 0 < broken("attribute-alone", draw) <= SLACK_300


def test_near_duplicates_are_one_piece_of_evidence():
    """Groups of six products are right or wrong together: as rows they would look like six times the proof."""

    def draw(rng: np.random.Generator) -> Evidence:
        group = np.repeat(np.arange(150), 6)
        confidence = np.clip(rng.uniform(0.7, 1, 150)[group] + rng.normal(0, 0.01, 900), 0.6, 0.999)
        told = {"a0": binary(confidence, (rng.random(150) < 0.895)[group])}
        return evidence_of(told, group=group)

    assert broken("attribute-alone", draw) <= SLACK_300
    assert broken("attribute-alone", lambda rng: replace(draw(rng), group=np.arange(900)), 100) > 0.1


def test_the_threshold_that_is_found_keeps_the_promise():
    """Confidence that flatters, the more the lower it is: precision above the threshold is known exactly."""
    below = answered = 0
    grid = np.linspace(0.6, 1, 4001)
    true = np.clip(1.4 * grid - 0.42, 0, 0.99)  # 0.42 at 0.6, 0.91 at 0.95
    for seed in range(300):
        rng = np.random.default_rng(seed)
        confidence = rng.choice(grid[:-1], size=500)
        right = rng.random(500) < np.interp(confidence, grid, true)
        threshold = promise(
            evidence_of({"a0": binary(confidence, right)}), 0.8, 0.95, "attribute-alone"
        ).threshold(NAME)
        if np.isfinite(threshold):
            answered += 1
            below += true[grid >= threshold].mean() < 0.8
    assert answered > 150, "most draws can promise something"
    assert below / 300 <= SLACK_300


def test_the_catalogue_keeps_the_promise_over_all_its_cells():
    """Trying many levels must not cost confidence: passing over those that fail would break it twice as often."""

    def draw(rng: np.random.Generator) -> Evidence:
        return evidence_of({"a0": binary(rng.uniform(0.7, 1, 400), rng.random(400) < 0.895)})

    assert 0 < broken("catalogue", draw) <= SLACK_300


def test_the_catalogue_pools_what_each_attribute_is_too_small_to_prove():
    """Twenty attributes of sixty labels each, honest ones, each labelled on other products."""
    rng = np.random.default_rng(0)
    told, n = {}, 1200
    for k in range(20):
        confidence = rng.uniform(0.8, 1, n)
        one = binary(confidence, rng.random(n) < confidence)
        told[f"a{k}"] = Told(one.probs, np.where(np.arange(n) % 20 == k, one.labels, -1))
    evidence = evidence_of(told, fold=np.arange(n) // 20 % 5)
    whole, alone = (promise(evidence, 0.9, 0.95, over) for over in ("catalogue", "attribute-alone"))
    assert whole.coverage > alone.coverage + 0.1
    answered = [part for part in whole.pairs.values() if np.isfinite(part.threshold)]
    right = sum(part.precision * part.coverage * part.labels for part in answered)
    assert right / sum(part.coverage * part.labels for part in answered) > 0.9


def test_honest_probabilities_cover_more_together_than_alone():
    evidence = honest(np.random.default_rng(1), 400, 6)
    together, alone = (promise(evidence, 0.93, 0.95, over) for over in ("attribute", "attribute-alone"))
    assert together.nu > 50
    assert alone.nu == 0
    assert together.coverage > alone.coverage > 0.3


def test_an_attribute_that_strays_from_its_probabilities_is_held_by_its_own_counts():
    """Nine are honest, one is right in 0.8 of cases and says 0.97: the others' word does not carry it."""
    rng = np.random.default_rng(2)
    n = 500
    told = {}
    for k in range(9):
        confidence = 0.5 + 0.5 * rng.beta(6, 1, size=n)
        told[f"a{k}"] = binary(confidence, rng.random(n) < confidence)
    told["liar"] = binary(rng.uniform(0.95, 0.99, n), rng.random(n) < 0.8)
    found = promise(evidence_of(told), 0.9)
    assert found.threshold((CATEGORY, "liar")) == np.inf
    assert sum(np.isfinite(part.threshold) for part in found.pairs.values()) == 9


def test_the_others_cannot_outvote_an_attribute_s_own_evidence():
    """Twenty are honest; one has too few labels to prove them wrong, yet is right less often than is promised."""
    answered = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        n = 400
        told = {}
        for k in range(20):
            confidence = 0.5 + 0.5 * rng.beta(6, 1, size=n)
            told[f"a{k}"] = binary(confidence, rng.random(n) < confidence)
        small = binary(rng.uniform(0.93, 0.97, n), np.arange(n) % 8 != 0)
        told["small"] = Told(small.probs, np.where(np.arange(n) < 80, small.labels, -1))
        found = promise(evidence_of(told), 0.9)
        assert found.nu > 100
        answered += sum(np.isfinite(part.threshold) for part in found.pairs.values())
        assert all(part.precision >= 0.9 for part in found.pairs.values() if np.isfinite(part.threshold))
    assert answered > 150


@pytest.mark.parametrize("over", ["attribute", "attribute-alone", "catalogue"])
def test_rows_repeated_in_their_groups_change_nothing(over: str):
    rng = np.random.default_rng(3)
    evidence = honest(rng, 700, 3)
    block = evidence.blocks[0]
    again = np.repeat(np.arange(700), 5)
    repeated = replace(
        evidence,
        ids=tuple(f"{evidence.ids[row]}-{k}" for k, row in enumerate(again)),
        group=evidence.group[again],
        fold=evidence.fold[again],
        blocks=(replace(block, rows=np.arange(3500), probs=block.probs[again], labels=block.labels[again]),),
    )
    once, often = (promise(each, 0.93, 0.95, over) for each in (evidence, repeated))
    for name, part in once.pairs.items():
        assert often.pairs[name].threshold == part.threshold
        assert often.pairs[name].coverage == pytest.approx(part.coverage)
        assert often.pairs[name].precision == pytest.approx(part.precision)
    assert any(np.isfinite(part.threshold) for part in once.pairs.values())


@pytest.mark.parametrize("over", ["attribute", "attribute-alone", "catalogue"])
def test_rows_in_another_order_and_other_group_numbers_change_nothing(over: str):
    rng = np.random.default_rng(4)
    evidence = honest(rng, 500, 2)
    order, block = rng.permutation(500), evidence.blocks[0]
    shuffled = replace(
        evidence,
        group=rng.permutation(5000)[:500][evidence.group[order]],
        fold=evidence.fold[order],
        blocks=(replace(block, probs=block.probs[order], labels=block.labels[order]),),
    )
    one, two = (promise(each, 0.92, 0.95, over) for each in (evidence, shuffled))
    assert one.pairs == two.pairs


def test_rows_that_are_as_sure_are_answered_together():
    """Two confidences only: the threshold is one of them, and all rows that have it count."""
    rng = np.random.default_rng(5)
    confidence = np.where(np.arange(600) < 300, 0.99, 0.75)
    right = np.where(np.arange(600) < 300, np.arange(600) % 100 != 0, rng.random(600) < 0.7)
    evidence = evidence_of({"a0": binary(confidence, right)})
    for over in ("attribute", "attribute-alone", "catalogue"):
        found = promise(evidence, 0.95, 0.95, over).pairs[NAME]
        assert found.threshold == pytest.approx(0.99)
        assert found.coverage == 0.5
        assert found.precision == pytest.approx(0.99)
    part = prefixes_of(next(iter(evidence.pairs())))
    assert part.rows_T.tolist() == [300, 600]
    assert part.errors_T.tolist() == [3, 3 + (~right[300:]).sum()]
    assert part.mean_T == pytest.approx([0.99, 0.87])


def test_prefixes_by_hand():
    """Five rows in three groups, one group half wrong; every count is over groups."""
    confidence = np.array([0.9, 0.8, 0.7, 0.6, 0.55])
    right = np.array([True, True, False, True, False])
    evidence = evidence_of({"a0": binary(confidence, right)}, group=np.array([7, 7, 7, 3, 9]))
    part = prefixes_of(next(iter(evidence.pairs())))
    assert (part.rows_T.tolist(), part.groups_T.tolist()) == ([5], [3])
    assert part.errors_T == pytest.approx([1 / 3 + 0 + 1])
    assert part.mean_T == pytest.approx([(0.8 + 0.6 + 0.55) / 3])
    assert part.threshold_T == pytest.approx([0.55])


def test_the_tail_is_the_binomial_one():
    from scipy.stats import binom

    for groups, errors in ((50, 0), (149, 0), (200, 7), (60, 59)):
        assert tail(groups, errors, 0.98) == pytest.approx(binom.cdf(errors, groups, 0.02), rel=1e-9)
    assert tail(148, 0, 0.98) > 0.05 > tail(149, 0, 0.98), "149 groups without an error promise 0.98"
    assert tail(100, 1, 0.9) < tail(100, 1.5, 0.9) < tail(100, 2, 0.9)


@pytest.mark.parametrize("over", ["attribute", "attribute-alone", "catalogue"])
def test_few_labels_never_answer(over: str):
    """However right they are, and however many other attributes are right."""
    rng = np.random.default_rng(6)
    n = 800
    told = {f"a{k}": binary(rng.uniform(0.98, 1, n), rng.random(n) < 0.99) for k in range(4)}
    few = np.where(np.arange(n) < LEAST - 1, np.arange(n) % 2, -1)
    probs = np.full((n, 2), 0.01)
    probs[np.arange(n), np.arange(n) % 2] = 0.99
    told["few"] = Told(probs, few)
    told["five"] = Told(probs, np.where(np.arange(n) < 5, few, -1))
    found = promise(evidence_of(told), 0.9, 0.95, over)
    assert found.threshold(NAME) < 1
    for label, count in (("few", LEAST - 1), ("five", 5)):
        part = found.pairs[CATEGORY, label]
        assert (part.threshold, part.coverage, part.labels) == (np.inf, 0, count)
        assert f"too few labelled products that differ: {count}, and {LEAST} are needed" in part.reason
        assert np.isnan(part.precision)


@pytest.mark.parametrize("over", ["attribute", "attribute-alone", "catalogue"])
def test_whatever_cannot_keep_a_promise_says_why(over: str):
    rng = np.random.default_rng(7)
    n = 400
    labels = np.arange(n) % 2
    sure = np.full((n, 2), 0.01)
    sure[np.arange(n), labels] = 0.99
    three = np.hstack([sure - 0.004, np.full((n, 1), 0.008)])
    told = {
        "good": Told(sure, labels),
        "one value": Told(np.ones((n, 1)), np.zeros(n, int)),
        "one value seen": Told(sure, np.where(labels == 0, 0, -1)),
        "no label": Told(sure, np.full(n, -1)),
        "not in a fold": Told(sure, np.where(np.arange(n) % 5 == 3, -1, labels)),
        "never learnt": Told(sure, labels),
        "bad": binary(np.full(n, 0.6), rng.random(n) < 0.6),
        "unseen value": Told(three, labels),
    }
    found = promise(evidence_of(told), 0.9, 0.95, over, frozenset({(CATEGORY, "never learnt")}))
    reasons = {
        "one value": "one value only",
        "one value seen": "'v0' is its only value seen out of fold",
        "no label": "no labelled product",
        "not in a fold": "no labelled product in 1 of the 5 folds",
        "never learnt": "never learnt",
        "bad": "not right often enough, however sure, to promise 0.9 with confidence 0.95",
    }
    for label, part in ((name[1], part) for name, part in found.pairs.items()):
        assert reasons.get(label, "") in part.reason, label
        assert bool(part.reason) == (label in reasons), label
        assert np.isfinite(part.threshold) == (label not in reasons), label
    assert found.unseen((CATEGORY, "unseen value")) == ("v2",)
    assert found.unseen((CATEGORY, "good")) == ()
    text = found.table_text()
    assert f"{CATEGORY} / one value" in text
    assert "never answered: it has one value only" in text
    assert "never 'v2': not seen out of fold" in text
    assert "6 of 8 attributes never" in str(found)
    assert found.threshold(("Things", "unheard of")) == np.inf


def test_one_valued_attributes_teach_nothing_of_the_others():
    """They are always right; what all attributes say together must not be better for them."""
    evidence = honest(np.random.default_rng(8), 400, 2)
    block = evidence.blocks[0]
    told = {f"a{k}": Told(block.probs[:, 2 * k : 2 * k + 2], block.labels[:, k]) for k in range(2)}
    more = evidence_of(told | {f"one{k}": Told(np.ones((400, 1)), np.zeros(400, int)) for k in range(9)})
    first, second = promise(evidence, 0.92), promise(more, 0.92)
    assert first.nu == second.nu
    assert all(second.pairs[name] == part for name, part in first.pairs.items())


@pytest.mark.parametrize("over", ["attribute", "attribute-alone", "catalogue"])
def test_more_precision_means_higher_thresholds(over: str):
    """In all but stray draws: the start of the search moves with the promise."""
    strays = 0
    for seed in range(20):
        evidence = honest(np.random.default_rng(seed), 500, 2)
        found = [promise(evidence, precision, 0.95, over) for precision in (0.85, 0.9, 0.95)]
        coverage = [each.coverage for each in found]
        for name in found[0].pairs:
            thresholds = [each.threshold(name) for each in found]
            strays += thresholds != sorted(thresholds)
        assert coverage[0] >= coverage[2]
    assert strays <= 2
    easy, hard = (promise(evidence, 0.9, confidence, over) for confidence in (0.5, 0.99))
    assert easy.coverage >= hard.coverage


def test_what_it_says():
    found = promise(honest(np.random.default_rng(9), 600), 0.92, 0.95)
    assert str(found).startswith("Promise: precision 0.92 with confidence 0.95 over each attribute: ")
    part = found.pairs[NAME]
    assert part.reason == ""
    assert found.coverage == part.coverage
    assert f"{part.coverage:.1%} of the cells would be answered, 0 of 1 attributes never" in str(found)
    assert f"600 labels {part.coverage:6.1%} answered, from {part.threshold:.3f}" in found.table_text()
    assert "over the whole catalogue" in str(replace(found, over="catalogue"))
    assert "over each attribute by itself" in str(replace(found, over="attribute-alone"))


def test_no_evidence_promises_nothing():
    evidence = honest(np.random.default_rng(10), 60).select(np.zeros(60, bool))
    for over in ("attribute", "attribute-alone", "catalogue"):
        found = promise(evidence, 0.9, 0.95, over)
        assert (found.coverage, found.threshold(NAME)) == (0, np.inf)
        assert found.pairs[NAME].reason


@pytest.mark.parametrize("number", [0, 1, -0.5, 98, float("nan"), float("inf")])
def test_numbers_that_are_no_share(number: float):
    evidence = honest(np.random.default_rng(0), 60)
    with pytest.raises(UsageError, match="a promised precision lies between 0 and 1"):
        promise(evidence, number)
    with pytest.raises(UsageError, match="a promised confidence lies between 0 and 1"):
        promise(evidence, 0.9, number)


def test_other_words():
    with pytest.raises(UsageError, match="attribute, attribute-alone, catalogue, not 'value'"):
        promise(honest(np.random.default_rng(0), 60), 0.9, over="value")
