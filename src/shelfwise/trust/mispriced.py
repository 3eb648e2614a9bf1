"""Mispriced: stated numbers far outside their range, those that a misplaced decimal explains before all others.

It does not know what the numbers were predicted from. Distributions are to be calibrated, and out of fold for products
that were learnt from.
Legend: n rows with a distribution, Q quantile levels, S ways to slip, E places of the last digit.

A stated number is ranked by the odds that somebody slipped: how probable it is where the truth was multiplied or
divided by a power of ten, or where anything was typed, against how probable it is if it is right. The distribution of
a right one falls off as Student's t, scaled on either side by the quantiles at 0.1 and 0.9: further out the evidence
itself holds wrong numbers. Its degrees of freedom and the share of wrong numbers are those that make all numbers of the
table most likely. Columns are written in one way, too: where nearly all numbers
are whole and few end in 0, 65.9 and 6,590 are unusual and 659 is not, so the place of a number's last digit other than
0 counts for either reading as often as it occurs in the column.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit, gammaln, logsumexp, ndtri, stdtrit

from shelfwise.amounts import LEVELS, MEDIAN, Amounts
from shelfwise.findings import Finding, Findings
from shelfwise.taxonomy import Number
from shelfwise.trust.amount_rule import range_of
from shelfwise.trust.ranges import standard

Float = npt.NDArray[np.float64]
#: Powers of ten that a slip multiplies the truth by, and how often each happens among the errors.
SLIPS: dict[int, float] = {1: 0.4, -1: 0.4, 2: 0.05, -2: 0.05}
#: The share of errors that are any number at all, and how many times the Number's own spread those are spread.
ANYTHING, SPREAD = 0.1, 3.0
#: Degrees of freedom tried, those of a number that is anything, and the level that a distribution is scaled by.
FREEDOMS, LOOSEST, SCALED = (2.0, 3.0, 5.0, 10.0, 30.0), 3.0, 0.1
#: A scale is at least this share of the Number's own spread.
NARROWEST = 1e-3
#: Numbers that each place of a last digit is counted before any is seen, and the places told apart.
UNSEEN, PLACES = 0.7, 3
#: The share of wrong numbers that is assumed at first, and the bounds of what is then estimated.
FIRST_SHARE, LEAST_SHARE, MOST_SHARE = 0.01, 1e-4, 0.2
ROUNDS = 50
#: The largest log odds that a table says.
MOST_ODDS = 50.0
#: How a slip is said: what part of the stated number would be right.
WORDS = {1: "a tenth of it", -1: "ten times it", 2: "a hundredth of it", -2: "a hundred times it"}


def outside(quantiles_nQ: npt.NDArray[np.floating], stated_n: npt.ArrayLike, number: Number) -> Float:
    """Return float64 [n], how far out a stated number lies: below 0 for too low, above for too high; NaN for none.

    The normal score of the probability below it (1.96 at 0.975); beyond the outermost quantiles it goes on in
    proportion to the distance from the median.
    """
    quantiles_nQ = standard(np.asarray(quantiles_nQ), number)
    value_n = number.forward(stated_n)
    last = float(ndtri(LEVELS[-1]))
    under_nQ = quantiles_nQ <= value_n[:, None]
    at_n = np.clip(under_nQ.sum(axis=1), 1, len(LEVELS) - 1)
    rows = np.arange(len(value_n))
    low_n, high_n = quantiles_nQ[rows, at_n - 1], quantiles_nQ[rows, at_n]
    share_n = np.clip((value_n - low_n) / np.maximum(high_n - low_n, 1e-12), 0.0, 1.0)
    score_n = ndtri(LEVELS[at_n - 1]) * (1 - share_n) + ndtri(LEVELS[at_n]) * share_n
    middle_n = quantiles_nQ[:, MEDIAN]
    for end, sign in ((0, -1.0), (-1, 1.0)):
        unit_n = np.maximum(sign * (quantiles_nQ[:, end] - middle_n), NARROWEST) / last
        beyond_n = sign * (value_n - quantiles_nQ[:, end])
        score_n = np.where(beyond_n > 0, sign * (last + beyond_n / unit_n), score_n)
    return np.asarray(score_n)


def mispriced(quantiles_nQ: npt.NDArray[np.floating], stated_n: npt.ArrayLike, number: Number) -> Float:
    """Return float64 [n], log odds that a stated number is wrong, as if every other one were; NaN where none is stated.

    Args:
        quantiles_nQ: [n, Q], calibrated and out of fold.
        stated_n: numbers in the attribute's unit; all of one column, as they also show how it is written.
        number: the attribute.
    """
    stated_n = np.asarray(stated_n, np.float64)
    score_n = np.full(len(stated_n), np.nan)
    known = ~np.isnan(number.forward(stated_n))
    score_n[known] = _judged(np.asarray(quantiles_nQ)[known], stated_n[known], number).odds
    return score_n


def with_learnt(amounts: Amounts, learnt: Amounts, row_N: npt.NDArray[np.int64]) -> Amounts:
    """Return distributions in which products that were learnt from have their out-of-fold ones.

    Args:
        amounts: calibrated, of a table, by the model that was fitted on everything.
        learnt: calibrated out of fold, of the evidence (``amount_rule.amounts_out_of_fold``).
        row_N: the row of the evidence that each row of the table was learnt as; -1 for none.
    """
    if not len(learnt.rows):
        return amounts
    row_n = row_N[amounts.rows]
    at_n = np.minimum(np.searchsorted(learnt.rows, row_n), len(learnt.rows) - 1)
    found_n = (row_n >= 0) & (learnt.rows[at_n] == row_n)
    quantiles_nQ = np.where(found_n[:, None], learnt.quantiles[at_n], amounts.quantiles)
    return Amounts(amounts.name, amounts.rows, quantiles_nQ)


@dataclass(frozen=True, eq=False)
class NumberAudit:
    """Stated numbers of one attribute beside what was expected, most suspicious first.

    Attributes:
        number: the attribute.
        ids: of every row of the table.
        row: int64 [m], position in the table.
        stated, low, high: float64 [m], the number and the ends of the range expected.
        odds: float64 [m], log odds that it is wrong, before how often numbers are wrong is counted.
        probability: float64 [m], that it is wrong; how many are is estimated from the table itself.
        slip: int64 [m], the power of ten that was typed too many, if any leads into the range; 0 for none.
        coverage: of the range.
    """

    number: Number
    ids: Sequence[str]
    row: npt.NDArray[np.int64]
    stated: Float
    low: Float
    high: Float
    odds: Float
    probability: Float
    slip: npt.NDArray[np.int64]
    coverage: float

    def __len__(self) -> int:
        return len(self.row)

    @property
    def suspect(self) -> npt.NDArray[np.bool_]:
        """Bool [m], numbers outside their range that are more likely wrong than right."""
        out_m = (self.stated < self.low) | (self.stated > self.high)
        return np.asarray((self.probability > 0.5) & out_m)

    def fits(self, at: int) -> str:
        """Say which part of a stated number would fit, given its place here: ``a tenth of it, 12.90, would fit``."""
        slip = int(self.slip[at])
        return f"{WORDS[slip]}, {_shown(float(self.stated[at]) / 10.0**slip)}, would fit" if slip else ""

    def columns(self, category_N: Sequence[str | None]) -> dict[str, list[Any]]:
        """Return what an audit's table says of them, by column (``suspects.COLUMNS``); given every row's category."""
        rows, name = self.row.tolist(), self.number.name
        between = zip(self.low.tolist(), self.high.tolist(), strict=True)
        return {
            "id": [self.ids[row] for row in rows],
            "category": [category_N[row] for row in rows],
            "attribute": [name] * len(rows),
            "column": [name] * len(rows),
            "stated": [_shown(value) for value in self.stated.tolist()],
            "seen": [f"{_shown(low)} to {_shown(high)}" for low, high in between],
            "p_stated": (1 - self.probability).tolist(),
            "p_seen": [self.coverage] * len(rows),
            "odds": np.exp(np.minimum(self.odds, MOST_ODDS)).tolist(),
            "evidence": [""] * len(rows),
        }

    def findings(self) -> Findings:
        """Return the suspects as findings of the kind ``price_out_of_range``."""
        found = []
        unit = f" {self.number.unit}" if self.number.unit else ""
        for at in np.flatnonzero(self.suspect).tolist():
            stated, low, high = (float(each[at]) for each in (self.stated, self.low, self.high))
            message = (
                f"{_shown(stated)}{unit} is stated, and {self.coverage:.0%} of such products lie between "
                f"{_shown(low)} and {_shown(high)}{unit}"
            )
            probability = float(self.probability[at])
            evidence = {"stated": stated, "low": low, "high": high, "coverage": self.coverage}
            evidence["probability"] = probability
            slip = int(self.slip[at])
            if slip:
                message += f"; {self.fits(at)}"
                evidence["would_fit"] = stated / 10.0**slip
            row = int(self.row[at])
            found.append(
                Finding(
                    "price_out_of_range", message, row + 1, self.ids[row], self.number.name, evidence=evidence
                )
            )
        return Findings(tuple(found))


def audit_numbers(
    amounts: Amounts,
    number: Number,
    stated_N: npt.ArrayLike,
    ids: Sequence[str],
    *,
    coverage: float = 0.9,
) -> NumberAudit:
    """Judge the stated numbers of one attribute.

    Args:
        amounts: calibrated, and out of fold for products that were learnt from (``with_learnt``).
        number: the attribute.
        stated_N: of every row of the table, NaN for none.
        ids: of every row of the table.
        coverage: of the range that is named.
    """
    stated_n = np.asarray(stated_N, np.float64)[amounts.rows]
    known = np.flatnonzero(~np.isnan(number.forward(stated_n)))
    part, stated_n = amounts.take(known, amounts.rows[known]), stated_n[known]
    judged = _judged(part.quantiles, stated_n, number)
    low_n, high_n = range_of(part, number, coverage)
    order = np.lexsort((np.arange(len(stated_n)), -judged.odds))
    ranges = zip(judged.wrong[order], stated_n[order], low_n[order], high_n[order], strict=True)
    slips = [_slip(wrong_S, float(stated), float(low), float(high)) for wrong_S, stated, low, high in ranges]
    return NumberAudit(
        number,
        ids,
        part.rows[order],
        stated_n[order],
        low_n[order],
        high_n[order],
        judged.odds[order],
        judged.probability[order],
        np.array(slips, np.int64),
        coverage,
    )


@dataclass(frozen=True, eq=False)
class _Judged:
    """Log odds and probability that a number is wrong, [n] each, and the log densities of the ways, [n, S + 1]."""

    odds: Float
    probability: Float
    wrong: Float


def _judged(quantiles_nQ: npt.NDArray[np.floating], stated_n: Float, number: Number) -> _Judged:
    """Judge numbers under the degrees of freedom that make them most likely."""
    best, found = -np.inf, None
    place_n = _last_places(stated_n)
    for freedom in FREEDOMS:
        wrong_nS, right_n = _log_chances(quantiles_nQ, stated_n, place_n, number, freedom)
        wrong_n = logsumexp(wrong_nS, axis=1)
        share, probability_n = _probability(wrong_n - right_n)
        likely = float(np.logaddexp(right_n + np.log(1 - share), wrong_n + np.log(share)).sum())
        if likely > best or found is None:
            best, found = likely, _Judged(wrong_n - right_n, probability_n, wrong_nS)
    assert found is not None
    return found


def _log_chances(
    quantiles_nQ: npt.NDArray[np.floating],
    stated_n: Float,
    place_n: npt.NDArray[np.int64],
    number: Number,
    freedom: float,
) -> tuple[Float, Float]:
    """Return log densities of stated numbers: [n, S + 1] by slips and by anything, with their shares; [n] if right."""
    spread_nQ = standard(quantiles_nQ, number)
    at = int(np.searchsorted(LEVELS, SCALED))
    middle_n = spread_nQ[:, MEDIAN]
    below_n, above_n = (
        np.maximum(np.abs(spread_nQ[:, end] - middle_n), NARROWEST) / stdtrit(freedom, 1 - SCALED)
        for end in (at, -1 - at)
    )
    counts_E = np.bincount(place_n, minlength=2 * PLACES + 1) + UNSEEN
    log_share_E = np.log(counts_E / counts_E.sum())

    def likely(power: int) -> Float:
        """The log density of the stated number if it is the truth times this power of ten."""
        meant_n = stated_n / 10.0**power
        value_n = number.forward(meant_n)
        scale_n = np.where(value_n < middle_n, below_n, above_n)
        density_n = _log_t((value_n - middle_n) / scale_n, freedom) - np.log((below_n + above_n) / 2)
        written_n = log_share_E[np.clip(place_n - power, 0, 2 * PLACES)]
        return np.asarray(density_n + _log_stretch(meant_n, number) - power * np.log(10.0) + written_n)

    away_n = number.forward(stated_n) / SPREAD
    anything_n = (
        _log_t(away_n, LOOSEST) - np.log(SPREAD) + _log_stretch(stated_n, number) - np.log(2 * PLACES + 1)
    )
    wrong = [np.log(share) + likely(power) for power, share in SLIPS.items()]
    return np.stack([*wrong, np.log(ANYTHING) + anything_n], axis=1), likely(0)


def _log_t(times_n: Float, freedom: float) -> Float:
    """Return the log density of Student's t."""
    top = gammaln((freedom + 1) / 2) - gammaln(freedom / 2) - 0.5 * np.log(freedom * np.pi)
    return np.asarray(top - 0.5 * (freedom + 1) * np.log1p(times_n**2 / freedom))


def _log_stretch(value_n: Float, number: Number) -> Float:
    """Return by how much the transform stretches numbers there, as a logarithm."""
    if number.transform == "linear":
        return np.zeros(len(value_n))
    return -np.log(value_n + (1.0 if number.transform == "log1p" else 0.0))


def _last_places(stated_n: Float) -> npt.NDArray[np.int64]:
    """Return, for each number, the power of ten of its last digit that is not 0, plus ``PLACES``, within bounds."""
    exponents = [int(Decimal(f"{value:.9g}").normalize().as_tuple().exponent) for value in stated_n.tolist()]
    return np.clip(np.array(exponents, np.int64), -PLACES, PLACES) + PLACES


def _probability(odds_n: Float) -> tuple[float, Float]:
    """Return the share of numbers that are wrong, by expectation-maximisation, and the probability of each, [n]."""
    share = FIRST_SHARE
    for _ in range(ROUNDS if len(odds_n) else 0):
        probability_n = expit(odds_n + np.log(share / (1 - share)))
        share = float(np.clip(probability_n.mean(), LEAST_SHARE, MOST_SHARE))
    return share, np.asarray(expit(odds_n + np.log(share / (1 - share))))


def _slip(wrong_S: Float, stated: float, low: float, high: float) -> int:
    """Return the likeliest power of ten that was typed too many and would lead into the range; 0 for none."""
    for _, power in sorted(zip((-wrong_S[:-1]).tolist(), SLIPS, strict=True)):
        if low <= stated / 10.0**power <= high:
            return power
    return 0


def _shown(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"
