"""Amount rule: from predicted distributions of a Number to numbers, each with a range, or none where it is too wide.

It does not know tables. What fits the rule is out of fold.
Legend: n rows that have the Number, N rows of the table, Q quantile levels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shelfwise.amounts import LEVELS, AmountAnswers, AmountEvidence, Amounts
from shelfwise.answers import STATES
from shelfwise.errors import BundleError, UsageError
from shelfwise.taxonomy import Number
from shelfwise.trust.points import best_point, check_point_metric
from shelfwise.trust.ranges import AmountCalibration, calibrate_amounts, standard

Float = npt.NDArray[np.float64]
#: The largest share that a range may be asked to cover: what the outermost quantiles hold.
MOST_COVERAGE = float(LEVELS[-1] - LEVELS[0])


@dataclass(frozen=True, eq=False)
class AmountRule:
    """How distributions of a Number become answers.

    Attributes:
        name: of the Number.
        metric: what the number answered is best for (``points.best_point``).
        coverage: the share of truths that ranges hold.
        widest: a wider range makes a cell ``unsure``: how many times its low end the high end may be, or on a linear
            scale how far apart they may be. ``None`` answers everything.
        calibration: of the distributions.
    """

    name: str
    metric: str
    coverage: float
    widest: float | None
    calibration: AmountCalibration

    def __post_init__(self) -> None:
        check_point_metric(self.metric)
        if not 0 < self.coverage <= MOST_COVERAGE:
            raise UsageError(
                f"{self.name!r}: a range covers a share above 0 and up to {MOST_COVERAGE:g}, not {self.coverage:g}"
            )
        least = 0.0 if self.calibration.number.transform == "linear" else 1.0
        if self.widest is not None and not self.widest > least:
            raise UsageError(
                f"{self.name!r}: the widest range is a number above {least:g}, not {self.widest:g}: "
                + ("its high end less its low end" if least == 0 else "its high end over its low end")
            )

    def answers(self, amounts: Amounts, category_N: npt.NDArray[Any]) -> AmountAnswers:
        """Answer every row, or none where its range is too wide.

        Args:
            amounts: as the predictor gave them.
            category_N: int32 [N], the category code of every row of the table; -1 for none.
        """
        return self.decided(self.calibration.apply(amounts, category_N))

    def decided(self, calibrated: Amounts) -> AmountAnswers:
        """Return answers of distributions that are calibrated already."""
        low_n, high_n = range_of(calibrated, self.calibration.number, self.coverage)
        candidate_n = best_point(calibrated.quantiles, self.metric)
        state_n = np.full(len(low_n), STATES.index("answered"), np.int8)
        if self.widest is not None:
            linear = self.calibration.number.transform == "linear"
            wide_n = high_n - low_n > self.widest if linear else high_n > self.widest * low_n
            state_n[wide_n] = STATES.index("unsure")
        value_n = np.where(state_n == STATES.index("answered"), candidate_n, np.nan)
        return AmountAnswers(
            self.name, calibrated.rows, value_n, candidate_n, low_n, high_n, state_n, self.coverage
        )

    def table(self) -> dict[str, Any]:
        """Return the rule as plain data, for JSON."""
        return {
            "name": self.name,
            "metric": self.metric,
            "coverage": self.coverage,
            "widest": self.widest,
            "calibration": self.calibration.table(),
        }

    @classmethod
    def from_table(cls, table: Mapping[str, Any], source: str) -> "AmountRule":
        """Read what ``table`` returned.

        Raises:
            BundleError: something else.
        """
        try:
            widest = table["widest"]
            return cls(
                str(table["name"]),
                str(table["metric"]),
                float(table["coverage"]),
                None if widest is None else float(widest),
                AmountCalibration.from_table(table["calibration"], source),
            )
        except (KeyError, TypeError, ValueError, UsageError) as error:
            raise BundleError(f"{source}: not a rule for numbers that this version wrote: {error}") from error


def range_of(amounts: Amounts, number: Number, coverage: float) -> tuple[Float, Float]:
    """Return the low and the high end, float64 [n] each, of the ranges that hold a share of the probability.

    Equal shares lie below and above; between two levels quantiles are interpolated on the Number's scale.
    """
    ends = []
    for level in ((1 - coverage) / 2, (1 + coverage) / 2):
        at = int(np.clip(np.searchsorted(LEVELS, level - 1e-9), 1, len(LEVELS) - 1))
        share = float(np.clip((level - LEVELS[at - 1]) / (LEVELS[at] - LEVELS[at - 1]), 0.0, 1.0))
        under_n2 = standard(amounts.quantiles[:, at - 1 : at + 1], number)
        inside_n = number.inverse(under_n2[:, 0] * (1 - share) + under_n2[:, 1] * share)
        outer = amounts.quantiles.astype(np.float64)
        ends.append(np.clip(inside_n, outer[:, at - 1], outer[:, at]))
    return ends[0], ends[1]


def decide_amounts(
    evidence: AmountEvidence,
    number: Number,
    *,
    metric: str = "smape",
    coverage: float = 0.9,
    widest: float | None = None,
) -> AmountRule:
    """Fit a rule on evidence.

    Args:
        evidence: out-of-fold distributions beside the truth.
        number: the Number that it is of.
        metric, coverage, widest: as in ``AmountRule``.

    Raises:
        UsageError: an unknown metric, or a coverage or width that cannot be.
    """
    return AmountRule(evidence.name, metric, coverage, widest, calibrate_amounts(evidence, number))


def amounts_out_of_fold(
    evidence: AmountEvidence,
    number: Number,
    *,
    metric: str = "smape",
    coverage: float = 0.9,
    widest: float | None = None,
) -> tuple[Amounts, AmountAnswers]:
    """Calibrate and answer every row of the evidence by a rule fitted without its fold.

    Args: as in ``decide_amounts``.
    """
    quantiles_nQ = np.zeros((len(evidence.rows), len(LEVELS)), np.float32)
    nothing = calibrate_amounts(evidence.select(np.zeros(len(evidence.rows), bool)), number)
    rule = AmountRule(evidence.name, metric, coverage, widest, nothing)
    for fold in np.unique(evidence.fold).tolist():
        inside_n = evidence.fold == fold
        found = calibrate_amounts(evidence.select(~inside_n), number)
        part = evidence.select(inside_n)
        plain = Amounts(part.name, np.arange(len(part.rows)), part.quantiles, part.opinions)
        quantiles_nQ[inside_n] = found.apply(plain, part.category).quantiles
    calibrated = Amounts(evidence.name, evidence.rows, quantiles_nQ)
    return calibrated, rule.decided(calibrated)
