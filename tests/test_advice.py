"""Advice: each sentence where its number says so, and nowhere else."""

import numpy as np
import pytest

from shelfwise.advice import MOST, advice
from shelfwise.report import Line, Report
from shelfwise.trust.evidence import Evidence
from simulated import CATEGORY, Told, evidence_of


def report(
    scores: dict[str, tuple[float, float, float]], support: int = 400, *, curve: bool = True
) -> Report:
    """Per attribute the score with half of the labels, with all, and of the most frequent value."""
    lines = []
    for name, (half, whole, majority) in scores.items():
        lines.append(Line("attribute", CATEGORY, name, None, "harmonic_f1", whole, support=support))
        lines.append(Line("attribute", CATEGORY, name, None, "majority", majority, support=support))
        if curve:
            lines.append(Line("attribute", CATEGORY, name, None, "harmonic_f1@0.5", half, support=support))
    return Report("harmonic_f1", tuple(lines), support)


def evidence(confused: float = 0.0, n: int = 400) -> Evidence:
    """Three values in turn; a share of the second one's products is answered with the third, and the reverse."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 3
    swapped = (labels > 0) & (rng.random(n) < confused)
    answers = np.where(swapped, 3 - labels, labels)
    probs = np.full((n, 3), 0.05)
    probs[np.arange(n), answers] = 0.9
    return evidence_of({"a": Told(probs, labels), "b": Told(probs, labels)})


def said(scores: dict[str, tuple[float, float, float]], **options: object) -> tuple[str, ...]:
    return advice(report(scores, **options), evidence())  # type: ignore[arg-type]


def test_a_rising_curve_asks_for_labels():
    (one,) = said({"a": (0.60, 0.65, 0.2)})
    assert (
        one == f"More labels for {CATEGORY} / a would help: the second half of its 400 labels brought +0.050."
    )
    assert said({"a": (0.649, 0.65, 0.2)}) == (), (
        "flat and well above the most frequent value: nothing to say"
    )
    assert said({"a": (0.60, 0.65, 0.2)}, curve=False) == (), "no curve, nothing known"


def test_no_better_than_the_most_frequent_value_is_not_visible():
    (one,) = said({"a": (0.505, 0.51, 0.5)})
    assert one.startswith(f"{CATEGORY} / a is hardly visible in photos: 0.51 against 0.50")
    (learning,) = said({"a": (0.48, 0.51, 0.5)})
    assert learning.startswith("More labels"), "too early to say that it cannot be seen"
    (blind,) = said({"a": (0.505, 0.51, 0.5)}, curve=False)
    assert "hardly visible" in blind
    assert said({"a": (0.5, 0.54, 0.5)})[0].startswith("More labels")


def test_two_values_that_look_alike_are_named():
    scores = {"a": (0.65, 0.65, 0.2)}
    assert advice(report(scores), evidence(0.2)) == ()
    (one,) = advice(report(scores), evidence(0.45))
    assert one.startswith(f"{CATEGORY} / a: 'v1' and 'v2' are told apart in 5")
    assert "merge them" in one
    assert advice(report(scores), evidence(0.45, n=45)) == (), "fifteen labels of each are too few to say so"


def test_few_labels_get_no_advice():
    assert said({"a": (0.60, 0.65, 0.2)}, support=99) == ()
    assert len(said({"a": (0.60, 0.65, 0.2)}, support=100)) == 1


def test_the_most_useful_first_and_not_too_many():
    found = said({"a": (0.60, 0.63, 0.2), "b": (0.50, 0.58, 0.2)})
    assert [one.split(" would")[0] for one in found] == [
        f"More labels for {CATEGORY} / b",
        f"More labels for {CATEGORY} / a",
    ]
    assert len(said({f"c{k}": (0.5, 0.6, 0.2) for k in range(40)})) == MOST


def test_scores_that_are_not_there():
    nan = float("nan")
    assert said({"a": (nan, nan, nan)}) == ()
    assert said({"a": (0.5, 0.6, nan)})[0].startswith("More labels")
    assert advice(Report("accuracy", (), 0), evidence()) == ()


@pytest.mark.parametrize("name", ["unheard of", "b"])
def test_attributes_without_evidence_of_their_own(name: str):
    assert said({name: (0.6, 0.6, 0.2)}) == ()
