"""Expect: the score on products nobody has seen, found out of fold, and what would raise it.

It does not know how a recipe learns. Nothing is scored on the rows it was fitted on: predictions are out of fold, and
the rule that turns them into answers is cross-fitted over the same folds.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from shelfwise.advice import advice
from shelfwise.amounts import SMAPE, Aim
from shelfwise.answers import Answers
from shelfwise.catalog import Catalog
from shelfwise.errors import CatalogError
from shelfwise.evaluate import compare, evaluate
from shelfwise.evaluate_amounts import with_amounts
from shelfwise.gathering import Gathered, Split
from shelfwise.metrics import NUMBER_METRICS
from shelfwise.photo_gain import with_photos
from shelfwise.predictions import Machine, Predictions, Predictor, Recipe
from shelfwise.recipes.parts import Parts
from shelfwise.recipes.several import ALIKE, Voting
from shelfwise.report import Line, Report
from shelfwise.splits import Folds, places
from shelfwise.trust.amount_rule import amounts_out_of_fold
from shelfwise.trust.calibrate import out_of_fold
from shelfwise.trust.decide import Rule, decide, decided_out_of_fold
from shelfwise.trust.evidence import Evidence

Ints = npt.NDArray[np.int64]
Costs = Mapping[tuple[str, str], tuple[tuple[float, ...], ...]]
#: Categories and attributes that say something about quality: enough rows, more than one value.
MIN_ROWS, MIN_VALUES = 100, 2
#: Shares of the labels that a learning curve is drawn from.
SHARES = (0.25, 0.5)
#: Seconds that one fit may take for a learning curve to be drawn and a random split to be scored.
MOST_SECONDS = 120.0


@dataclass(frozen=True, eq=False)
class Expectation:
    """What is known before launch.

    Attributes:
        report: the scores to expect, with what a random split would have claimed, learning curves and advice.
        evidence: out-of-fold probabilities beside the truth.
        rule: fitted on all of it.
        predictor: that the evidence is of, where it is one: with a holdout.
        voting: how the photos of products that have several are weighed.
    """

    report: Report
    evidence: Evidence
    rule: Rule
    predictor: Predictor | None = None
    voting: Voting = ALIKE


@dataclass(frozen=True, eq=False)
class _Setting:
    """What every cross-fit of one expectation shares."""

    recipe: Recipe
    catalog: Catalog
    evidence: int | float
    seed: int
    machine: Machine
    learn_photos: str = "first"

    def gather(self, groups: Ints | None, keep: npt.NDArray[np.bool_] | None = None) -> Gathered:
        """Predict out of fold, by folds over groups or, without groups, over rows."""
        split = Split.of(self.catalog, self.evidence, groups, self.seed)
        return split.gather(self.recipe, self.machine, self.seed, keep=keep, learn_photos=self.learn_photos)


def expect(
    recipe: Recipe,
    catalog: Catalog,
    groups: Ints,
    *,
    evidence: int | float = 5,
    metric: str = "harmonic_f1",
    costs: Costs | None = None,
    seed: int = 0,
    machine: Machine | None = None,
    random_split: bool = True,
    curve: bool = True,
    learn_from: str = "everything",
    aim: Aim = SMAPE,
    learn_photos: str = "first",
) -> Expectation:
    """Score a recipe and the rule fitted on its predictions out of fold.

    Args:
        recipe: how to learn.
        catalog: the products.
        groups: int64 [N], near-duplicate groups.
        evidence: grouped folds (2 or more), or the share of a grouped holdout (below 1).
        metric: what answers are decided for, and scored by.
        costs: see ``trust.decide.decide``.
        seed: of folds and recipe.
        machine: where to compute.
        random_split: also score folds that ignore near-duplicates.
        curve: also score with less labels.
        learn_from: ``everything``, or ``split`` where the predictor of a holdout is the one that answers.
        aim: what the answers of Numbers are best for.
        learn_photos: ``first``, or ``all`` photos of a product that has several.

    Random split and learning curve are of Choice attributes; neither is made for a recipe that uses the whole machine,
    or whose fits take longer than ``MOST_SECONDS``.
    """
    setting = _Setting(recipe, catalog, evidence, seed, machine or Machine(), learn_photos)
    begun = time.monotonic()
    gathered = setting.gather(groups)
    parts = int(evidence) if evidence >= 2 else 1
    seconds = (time.monotonic() - begun) / parts
    if not (gathered.truth.labelled.any() or gathered.evidence.amounts):
        raise CatalogError(
            f"{catalog.source}: no product states a value of any attribute, and the recipe {recipe.name!r} learns no "
            "numbers, so there is nothing to learn"
        )
    how = _how(gathered, groups, evidence, len(catalog))
    report = _empty(len(gathered.truth), seed, how, aim)
    if gathered.truth.labelled.any() and getattr(recipe, "learns_choices", True):
        report = _scored(gathered, metric, costs, seed, how)
        cheap = recipe.concurrent and seconds < MOST_SECONDS
        if random_split and not cheap:
            report = report.with_notes(
                "Neither a random split nor a learning curve was fitted: with this recipe each costs as much as the "
                "evidence."
            )
        alone = replace(setting, recipe=_of_choices(recipe), catalog=catalog.only("choices"))
        if random_split and cheap:
            report = _with_random_split(report, alone, metric, costs)
        if curve and cheap:
            report = _with_curve(report, alone, groups, metric, costs, counted_cells(gathered.truth))
        report = _with_expected(report, evidence, learn_from)
        report = replace(report, advice=advice(report, gathered.evidence))
    report = _with_numbers(report, gathered.evidence, gathered.truth, aim)
    rule = decide(gathered.evidence, metric, costs=costs, aim=aim)
    if gathered.photos is None:
        return Expectation(report, gathered.evidence, rule, gathered.predictor)
    truth, group = gathered.truth, gathered.evidence.group
    counted = counted_cells(truth)
    report = with_photos(report, gathered.photos, truth, groups=group, metric=metric, counted=counted)
    return Expectation(report, gathered.evidence, rule, gathered.predictor, gathered.photos.voting)


def _of_choices(recipe: Recipe) -> Recipe:
    """The part of a recipe that learns Choice attributes."""
    return recipe.choices if isinstance(recipe, Parts) else recipe


def _with_random_split(report: Report, setting: _Setting, metric: str, costs: Costs | None) -> Report:
    """Put in what folds that ignore near-duplicates would have claimed."""
    plain = setting.gather(None)
    random = evaluate(
        _decided(plain, metric, costs),
        plain.truth,
        metric=metric,
        bootstrap=0,
        **counted_cells(plain.truth),
    ).score
    line = Line("overall", None, None, None, "random_split", random, support=report.rows)
    return replace(report, lines=(*report.lines, line)).with_notes(
        f"A random split that ignores near-duplicates would have said {random:.3f}, "
        f"{random - report.score:+.3f} against the grouped one."
    )


def _with_numbers(report: Report, evidence: Evidence, truth: Catalog, aim: Aim) -> Report:
    """Put in the scores of Numbers, every row answered by a rule fitted without its fold."""
    number, every = evidence.taxonomy.number, asdict(replace(aim, widest=None))
    answers = [amounts_out_of_fold(item, number(item.name), **every)[1] for item in evidence.amounts]
    return with_amounts(report, answers, truth, evidence.group)


def _empty(rows: int, seed: int, how: str, aim: Aim) -> Report:
    """A report of Numbers alone, before their scores are put in."""
    metric = aim.metric if aim.metric in NUMBER_METRICS else "smape"
    return Report(metric, (), rows, bootstrap=1000, seed=seed, notes=(how,))


def expect_of(
    found: Predictions,
    catalog: Catalog,
    groups: Ints,
    folds: Folds,
    *,
    metric: str = "harmonic_f1",
    seed: int = 0,
    aim: Aim = SMAPE,
) -> Expectation:
    """Score predictions that are out of fold already, and the rule fitted on them.

    Args:
        found: each row's by what has not seen its group.
        catalog: the same products.
        groups: int64 [N], near-duplicate groups.
        folds: that calibration and decision are cross-fitted over.
        metric: what answers are decided for, and scored by.
        seed: of the bootstrap.
        aim: what the answers of Numbers are best for.
    """
    gathered = Gathered(Evidence.of(found, catalog, groups, folds.fold), catalog, found, folds)
    how = _how(gathered, groups, folds.k, len(catalog))
    report = _empty(len(catalog), seed, how, aim)
    if catalog.labelled.any():
        report = _with_expected(_scored(gathered, metric, None, seed, how), folds.k, "everything")
        report = replace(report, advice=advice(report, gathered.evidence))
    report = _with_numbers(report, gathered.evidence, catalog, aim)
    return Expectation(report, gathered.evidence, decide(gathered.evidence, metric, aim=aim))


def _scored(gathered: Gathered, metric: str, costs: Costs | None, seed: int, how: str) -> Report:
    """Score answers by a rule fitted without their fold, with calibration and what deciding gains."""
    counted, group = counted_cells(gathered.truth), gathered.evidence.group
    decided = _decided(gathered, metric, costs)
    report = evaluate(decided, gathered.truth, groups=group, metric=metric, seed=seed, **counted)
    report = report.with_notes(how)
    report = _with_calibration(report, gathered, group, metric, counted)
    return _with_gain(report, gathered, decided, group, metric, counted)


def _decided(gathered: Gathered, metric: str, costs: Costs | None) -> Answers:
    """Answers of every row's Choice attributes by a rule fitted without its fold."""
    answers = decided_out_of_fold(gathered.choices, metric, costs=costs)
    return replace(answers, errors={**answers.errors, **gathered.found.errors})


def _how(gathered: Gathered, groups: Ints, evidence: int | float, products: int) -> str:
    sizes = np.bincount(groups)
    how = f"{gathered.folds.k} folds" if evidence >= 2 else f"a holdout of {len(gathered.truth)} products"
    return (
        f"Expected on unseen products: {how}, near-duplicate groups kept whole "
        f"({len(sizes):,} groups over {products:,} products, the largest of {sizes.max():,}), seed "
        f"{gathered.folds.seed}, split {gathered.folds.fingerprint[:12]}; calibration and decision "
        "cross-fitted over the same groups."
    )


def _with_calibration(
    report: Report, gathered: Gathered, group: Ints, metric: str, counted: Mapping[str, Any]
) -> Report:
    """Put calibration errors in: those of calibrated probabilities, and ``ece_before`` of the predictor's own."""
    calibrated = out_of_fold(gathered.choices).predictions()
    shared = {"groups": group, "metric": metric, "bootstrap": 0, **counted}
    after = evaluate(calibrated, gathered.truth, **shared)
    before = evaluate(gathered.choices.predictions(), gathered.truth, **shared)
    lines = [line for line in report.lines if line.metric not in ("ece", "log_loss")]
    for source, name in ((after, ""), (before, "_before")):
        lines += [
            line._replace(metric=f"{line.metric}{name}")
            for line in source.lines
            if line.metric in ("ece", "log_loss")
        ]
    return replace(report, lines=tuple(lines))


def _with_gain(
    report: Report,
    gathered: Gathered,
    decided: Answers,
    group: Ints,
    metric: str,
    counted: Mapping[str, Any],
) -> Report:
    """Put in what deciding gains over the most probable value, with intervals."""
    plain = gathered.choices.predictions()
    entries: list[tuple[str, Predictions | Answers]]
    entries = [("most probable", plain), ("decided", replace(decided, errors=plain.errors))]
    found = compare(entries, gathered.truth, groups=group, metric=metric, bootstrap=500, **counted)
    lines = [
        Line(d.level, d.category, d.attribute, None, "gain", d.difference, d.low, d.high, d.support)
        for d in found.differences
    ]
    overall = found.differences[0]
    return replace(report, lines=(*report.lines, *lines)).with_notes(
        f"Deciding for {metric} gains {overall.difference:+.3f} [{overall.low:+.3f}, {overall.high:+.3f}] over the "
        "most probable value, out of fold."
    )


def _with_curve(
    report: Report,
    setting: _Setting,
    groups: Ints,
    metric: str,
    costs: Costs | None,
    counted: Mapping[str, Any],
) -> Report:
    """Put in the scores with a part of the labels, as metrics ``<metric>@<share>``."""
    place_N = places(groups, setting.catalog.ids)
    curves = [(1.0, report)]
    for share in SHARES:
        try:
            gathered = setting.gather(groups, place_N < share)
        except CatalogError:  # this share of a tiny catalogue leaves a fold nothing to learn from
            continue
        decided = _decided(gathered, metric, costs)
        curves.append((share, evaluate(decided, gathered.truth, metric=metric, bootstrap=0, **counted)))
    lines = [
        line._replace(metric=f"{metric}@{share:g}")
        for share, source in curves
        for line in source.lines
        if line.metric == metric and line.level in ("overall", "category", "attribute")
    ]
    return replace(report, lines=(*report.lines, *lines))


def expected(score: Line, half: float, evidence: int | float) -> Line:
    """Return the score to expect of a predictor fitted on everything, with its interval.

    Out of fold a predictor has seen all products but one fold. What the rest brings is read off the learning curve: the
    gain from the last doubling of the labels, times the doublings that are left. Half of that much is added to the
    interval on either side.

    Args:
        score: out of fold, with its interval.
        half: the score with half of the labels; NaN where it is not known.
        evidence: folds, or the share held out.
    """
    left = -math.log2(1 - (1 / evidence if evidence >= 2 else evidence))
    step = 0.0 if math.isnan(half) else max(0.0, score.score - half) * left
    return score._replace(
        metric="expected",
        score=score.score + step,
        low=score.low + 0.5 * step,
        high=score.high + 1.5 * step,
    )


def _with_expected(report: Report, evidence: int | float, learn_from: str) -> Report:
    if learn_from == "split":
        return replace(report, lines=(*report.lines, report.line()._replace(metric="expected"))).with_notes(
            "The predictor that this was measured on answers; it was not taught the products held out "
            '(data.learn_from = "split").'
        )
    half = report.line(f"{report.metric}@0.5").score
    line = expected(report.line(), half, evidence)
    report = replace(report, lines=(*report.lines, line))
    if math.isnan(half):
        return report.with_notes(
            "No learning curve was drawn, so what the last fold's labels bring is not counted in: expect a little more."
        )
    return report.with_notes(
        f"Fitted on everything, {report.metric} {line.score:.3f} [{line.low:.3f}, {line.high:.3f}] is to be expected: "
        f"{report.score:.3f} out of fold, and {line.score - report.score:+.3f} for the labels of the fold left "
        "out, read off the learning curve."
    )


def counted_cells(truth: Catalog) -> dict[str, Any]:
    """Leave tiny categories and one-valued attributes out of the score, unless nothing else is there."""
    varied = [
        name
        for name in truth.present
        if any(len(np.unique(label_n[label_n >= 0])) >= MIN_VALUES for label_n in truth.labels(name).T)
    ]
    big = any(len(truth.rows(name)) >= MIN_ROWS for name in varied)
    return {"min_rows": MIN_ROWS if big else 1, "min_values": MIN_VALUES if varied else 1}
