"""Decide: the answer that is best for the metric that counts; at a promised precision, or not at all.

It does not know how probabilities were made, nor how answers are written.
Legend: n rows of one category, m rows of a pair, v values of an attribute, V packed, A attributes, K grid points.

For a metric of counts (macro-F1, the harmonic mean of micro- and macro-F1 ...) the best answer is not the most
probable value: every value gets an offset on its log-probability. The offsets maximise the metric that is
*expected* under the calibrated probabilities, by coordinate ascent with an exact count of what every step
changes (the plug-in rule of Narasimhan et al., "Consistent Multiclass Algorithms for Complex Performance Measures",
ICML 2015). The labels themselves come in through the calibration only: fitted on the labels directly, offsets of rare
values overfit (grouped out of fold on the fashion catalogue, two resplits: 0.663 on labels, 0.668 on expectations, and
0.654 for the most probable value). A quadratic penalty draws them to a mild tilt towards rare values.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from shelfwise import metrics
from shelfwise.amounts import SMAPE, Aim, middle
from shelfwise.answers import STATES, AnswerBlock, Answers, answer_block, best_values, join_blocks
from shelfwise.errors import BundleError
from shelfwise.predictions import Block, Familiarity, Predictions
from shelfwise.segments import segments
from shelfwise.taxonomy import Taxonomy
from shelfwise.trust.amount_rule import AmountRule, amounts_out_of_fold, decide_amounts
from shelfwise.trust.calibrate import Calibration, PairCalibration, calibrate
from shelfwise.trust.evidence import Evidence
from shelfwise.trust.promise import Promise

Float = npt.NDArray[np.float64]
#: Where the search starts: offset -TILT log(count), the mean taken away.
TILT = 0.3
#: Penalty on the squared distance of an offset from its start.
PENALTY = 0.005
#: Offsets tried around the start.
STEPS = np.linspace(-3.0, 3.0, 61)
ROUNDS = 4
#: Attributes with fewer labelled rows keep the start.
ENOUGH = 50
#: Metrics that are best served by the most probable value.
PLAIN = ("accuracy", "micro_f1", "log_loss")
#: The share of good products that familiarity may flag: one product in a hundred for each of the two flags.
ALARM = 0.01


@dataclass(frozen=True, eq=False)
class Rule:
    """How probabilities become answers.

    Attributes:
        metric: what the offsets are best for.
        calibration: from a predictor's probabilities to calibrated ones.
        offsets: by (category, attribute), one number a value.
        costs: by (category, attribute), the cost of answering a value (column) where another is true (row).
        untrained: attributes that were never learnt.
        untrained_values: (category, attribute, value) that were never learnt; neither is answered by itself.
        amounts: by name, how the distributions of Numbers become answers.
    """

    metric: str
    calibration: Calibration
    offsets: Mapping[tuple[str, str], tuple[float, ...]] = field(default_factory=dict)
    costs: Mapping[tuple[str, str], tuple[tuple[float, ...], ...]] = field(default_factory=dict)
    untrained: frozenset[tuple[str, str]] = frozenset()
    untrained_values: frozenset[tuple[str, str, str]] = frozenset()
    amounts: Mapping[str, AmountRule] = field(default_factory=dict)

    def calibrated(self, predictions: Predictions) -> Predictions:
        """Return calibrated probabilities and distributions."""
        category_N = predictions.categories()
        amounts = tuple(
            self.amounts[item.name].calibration.apply(item, category_N) if item.name in self.amounts else item
            for item in predictions.amounts
        )
        return replace(self.calibration.apply(predictions), amounts=amounts)

    def answers(
        self,
        predictions: Predictions,
        promise: Promise | None = None,
        *,
        every_cell: bool = False,
        alarm: float = ALARM,
    ) -> Answers:
        """Answer every cell, or say why not.

        Without a promise a cell gets the value that is best for the metric. Under a promise it gets the most
        probable value if that is sure enough, and is ``unsure`` otherwise. A product that is unlike its category's
        training products, or whose category looks wrong, is flagged instead.

        Args:
            predictions: as the predictor gave them.
            promise: thresholds to keep.
            every_cell: answer every cell for the metric, whatever promise and familiarity say.
            alarm: the share of good products that each flag may fall on.
        """
        taxonomy, blocks = predictions.taxonomy, []
        likelier = predictions.familiarity.likelier if predictions.familiarity is not None else None
        for raw in predictions.blocks:
            blended_nV, probs_nV = self.calibration.of_block(taxonomy, raw)
            block = Block(raw.category, raw.rows, probs_nV.astype(np.float32))
            parts = taxonomy.slices(block.category)
            promised = promise is not None and not every_cell
            if promised:
                candidate_nA = best_values(block.probs, parts)
            else:
                candidate_nA = self._best(taxonomy, raw.category, blended_nV)
            state_nA = np.full(candidate_nA.shape, STATES.index("answered"), np.int8)
            state_nA[candidate_nA < 0] = STATES.index("unsure")
            if promised:
                assert promise is not None
                _hold(state_nA, candidate_nA, block, taxonomy, promise)
            if not every_cell:
                self._leave_untrained(state_nA, candidate_nA, taxonomy, block.category)
                predictions.mark_unsure(state_nA, raw)
            _mark_not_applicable(state_nA, candidate_nA, taxonomy, block.category)
            if not every_cell and predictions.familiarity is not None:
                _flag(state_nA, block.rows, predictions.familiarity, alarm)
            blocks.append(
                answer_block(block.category, block.rows, block.probs, parts, candidate_nA, state_nA)
            )
        category_N, rules = predictions.categories(), self.amounts
        amounts = tuple(
            replace(rules[item.name], widest=None if every_cell else rules[item.name].widest).answers(
                item, category_N
            )
            if item.name in rules
            else middle(item)
            for item in predictions.amounts
        )
        return Answers(
            taxonomy,
            predictions.ids,
            tuple(blocks),
            predictions.errors,
            predictions.guessed,
            predictions.notes,
            likelier=likelier,
            amounts=amounts,
        )

    def _leave_untrained(
        self,
        state_nA: npt.NDArray[np.int8],
        candidate_nA: npt.NDArray[np.int32],
        taxonomy: Taxonomy,
        category: str,
    ) -> None:
        """Mark what was never learnt as unsure, in place."""
        for a, choice in enumerate(taxonomy.choices(category)):
            if (category, choice.name) in self.untrained:
                state_nA[:, a] = STATES.index("unsure")
            new = [
                c for c, v in enumerate(choice.values) if (category, choice.name, v) in self.untrained_values
            ]
            if new:
                state_nA[np.isin(candidate_nA[:, a], new), a] = STATES.index("unsure")

    def _best(self, taxonomy: Taxonomy, category: str, blended_nV: Float) -> npt.NDArray[np.int32]:
        """Return int32 [n, A], the values that are best for the metric, given blended distributions."""
        choices, at = taxonomy.choices(category), segments(taxonomy, category)
        logs_nV = _logs(blended_nV)
        best_nA = np.full((len(blended_nV), len(choices)), -1, np.int32)
        for a, part in zip(at.present, at.slices, strict=True):
            name, scores_nv = (category, choices[a].name), blended_nV[:, part]
            if name in self.costs:
                scores_nv = -(scores_nv @ np.asarray(self.costs[name]))
            elif name in self.offsets:
                scores_nv = logs_nV[:, part] + np.asarray(self.offsets[name])
            best_nA[:, a] = scores_nv.argmax(axis=1)
        return best_nA

    def table(self) -> dict[str, Any]:
        """Return the rule as plain data, for JSON."""
        calibration = self.calibration
        new = {(category, attribute) for category, attribute, _ in self.untrained_values}
        names = sorted({*calibration.counts, *self.offsets, *self.costs, *self.untrained, *new})
        pairs = []
        for name in names:
            part = calibration.pairs.get(name)
            pairs.append(
                {
                    "category": name[0],
                    "attribute": name[1],
                    "calibration": None if part is None else _calibration_table(part),
                    "counts": list(calibration.counts.get(name, ())),
                    "offsets": list(self.offsets[name]) if name in self.offsets else None,
                    "costs": [list(row) for row in self.costs[name]] if name in self.costs else None,
                    "untrained": name in self.untrained,
                    "untrained_values": sorted(v for *n, v in self.untrained_values if tuple(n) == name),
                }
            )
        return {
            "metric": self.metric,
            "pooled": _calibration_table(calibration.pooled),
            "pairs": pairs,
            "numbers": [rule.table() for rule in self.amounts.values()],
        }

    @classmethod
    def from_table(cls, table: Mapping[str, Any], source: str) -> "Rule":
        """Read what ``table`` returned.

        Raises:
            BundleError: something else.
        """
        try:
            named = {(str(p["category"]), str(p["attribute"])): p for p in table["pairs"]}
            calibration = Calibration(
                {name: _read(p["calibration"]) for name, p in named.items() if p["calibration"] is not None},
                _read(table["pooled"]),
                {name: tuple(map(int, p["counts"])) for name, p in named.items() if p["counts"]},
            )
            return cls(
                str(table["metric"]),
                calibration,
                {n: tuple(map(float, p["offsets"])) for n, p in named.items() if p["offsets"] is not None},
                {
                    n: tuple(tuple(map(float, row)) for row in p["costs"])
                    for n, p in named.items()
                    if p["costs"] is not None
                },
                frozenset(name for name, p in named.items() if p["untrained"]),
                frozenset((*name, str(v)) for name, p in named.items() for v in p["untrained_values"]),
                {str(part["name"]): AmountRule.from_table(part, source) for part in table["numbers"]},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{source}: not a decision that this version wrote: {error}") from error


def decide(
    evidence: Evidence,
    metric: str = "harmonic_f1",
    *,
    costs: Mapping[tuple[str, str], tuple[tuple[float, ...], ...]] | None = None,
    aim: Aim = SMAPE,
) -> Rule:
    """Fit a rule on evidence: calibration, and offsets for a metric or costs.

    Args:
        evidence: out-of-fold probabilities beside the truth.
        metric: a registered metric of counts.
        costs: by (category, attribute), a square table in the values' order; the others keep the metric.
        aim: what the answers of Numbers are best for, and how wide their range may be.
    """
    calibration = calibrate(evidence)
    offsets = {}
    for pair in evidence.pairs():
        if metric not in PLAIN and pair.name not in (costs or {}) and pair.probs.shape[1] > 1:
            probs_mv = calibration.blended(pair.name, pair.opinions)
            offsets[pair.name] = tuple(best_offsets(probs_mv, pair.counts, metric).tolist())
    amounts = {
        item.name: decide_amounts(item, evidence.taxonomy.number(item.name), **asdict(aim))
        for item in evidence.amounts
    }
    return Rule(metric, calibration, offsets, costs or {}, amounts=amounts)


def decided_out_of_fold(
    evidence: Evidence,
    metric: str = "harmonic_f1",
    *,
    costs: Mapping[tuple[str, str], tuple[tuple[float, ...], ...]] | None = None,
    aim: Aim = SMAPE,
) -> Answers:
    """Answer every row of the evidence by a rule fitted without its fold: what deciding is worth.

    Args: as in ``decide``.
    """
    parts: dict[str, list[AnswerBlock]] = {}
    choices = replace(evidence, amounts=())
    for fold in np.unique(evidence.fold).tolist():
        inside_N = evidence.fold == fold
        rule = decide(choices.select(~inside_N), metric, costs=costs)
        for block in rule.answers(choices.select(inside_N).predictions()).blocks:
            parts.setdefault(block.category, []).append(block)
    plain = evidence.predictions()
    blocks = tuple(join_blocks(parts[block.category]) for block in plain.blocks)
    amounts = tuple(
        amounts_out_of_fold(item, evidence.taxonomy.number(item.name), **asdict(aim))[1]
        for item in evidence.amounts
    )
    return Answers(plain.taxonomy, plain.ids, blocks, plain.errors, amounts=amounts)


def best_offsets(probs_mv: Float, counts_v: npt.NDArray[Any], metric: str) -> Float:
    """Return [v], the offsets that maximise a metric as expected under calibrated probabilities.

    Args:
        probs_mv: calibrated probabilities of representative rows.
        counts_v: labels of each value, for the tilt that the search starts from.
        metric: a registered metric of counts.
    """
    log_count_v = np.log(np.asarray(counts_v, np.float64) + 0.5)
    start_v = -TILT * (log_count_v - log_count_v.mean())
    if len(probs_mv) < ENOUGH:
        return np.asarray(start_v)
    logits_mv, truth_v = _logs(probs_mv), probs_mv.sum(axis=0)
    offset_v, row = start_v.copy(), np.arange(len(probs_mv))
    for _ in range(ROUNDS):
        before_v = offset_v.copy()
        for value in range(len(offset_v)):
            scores_mv = logits_mv + offset_v
            scores_mv[:, value] = -np.inf
            other_m = scores_mv.argmax(axis=1)
            # The offset from which each row is answered with this value.
            turn_m = scores_mv[row, other_m] - logits_mv[:, value]
            grid_K = start_v[value] + STEPS
            counts = _expected_counts(turn_m, other_m, probs_mv, value, grid_K, truth_v)
            gain_K = metrics.apply(metric, counts) - PENALTY * STEPS**2
            offset_v[value] = grid_K[int(gain_K.argmax())]
        if np.array_equal(before_v, offset_v):
            break
    return np.asarray(offset_v)


def _expected_counts(
    turn_m: Float,
    other_m: npt.NDArray[np.int64],
    probs_mv: Float,
    value: int,
    grid_K: Float,
    truth_v: Float,
) -> metrics.Tally:
    """Count, for every offset of one value on the grid, what would be answered and how much of it is right."""
    points, values = len(grid_K), probs_mv.shape[1]
    at_m = np.searchsorted(grid_K, turn_m, side="right")  # the first grid point beyond the turn
    row = np.arange(len(turn_m))
    answered_Kv, correct_Kv = np.zeros((2, points, values))
    answered_Kv[:, value] = np.bincount(at_m, minlength=points + 1)[:points].cumsum()
    correct_Kv[:, value] = np.bincount(at_m, probs_mv[:, value], points + 1)[:points].cumsum()
    place_m = other_m * (points + 1) + at_m
    for counts_Kv, weight_m in ((answered_Kv, np.ones(len(row))), (correct_Kv, probs_mv[row, other_m])):
        turned_vK = np.bincount(place_m, weight_m, values * (points + 1)).reshape(values, points + 1)
        counts_Kv += (turned_vK.sum(axis=1, keepdims=True) - turned_vK.cumsum(axis=1))[:, :points].T
    truth_Kv = np.broadcast_to(truth_v, answered_Kv.shape)
    nothing_K = np.zeros(points)
    return metrics.Tally(correct_Kv, answered_Kv, truth_Kv, nothing_K, nothing_K)


def _hold(
    state_nA: npt.NDArray[np.int8],
    candidate_nA: npt.NDArray[np.int32],
    block: Block,
    taxonomy: Taxonomy,
    promise: Promise,
) -> None:
    """Mark the cells whose most probable value is below its threshold, or was never checked, as unsure, in place."""
    for a, (choice, part) in enumerate(
        zip(taxonomy.choices(block.category), taxonomy.slices(block.category), strict=True)
    ):
        name = (block.category, choice.name)
        if part.stop > part.start:
            sure_n = block.probs[:, part].max(axis=1)
            state_nA[sure_n < promise.threshold(name), a] = STATES.index("unsure")
            unseen = [choice.codes[value] for value in promise.unseen(name)]
            state_nA[np.isin(candidate_nA[:, a], unseen), a] = STATES.index("unsure")


def _mark_not_applicable(
    state_nA: npt.NDArray[np.int8], candidate_nA: npt.NDArray[np.int32], taxonomy: Taxonomy, category: str
) -> None:
    answered = STATES.index("answered")
    for a, choice in enumerate(taxonomy.choices(category)):
        if choice.not_applicable:
            code = choice.codes[choice.not_applicable]
            here_n = (candidate_nA[:, a] == code) & (state_nA[:, a] == answered)
            state_nA[here_n, a] = STATES.index("not applicable")


def _flag(
    state_nA: npt.NDArray[np.int8], rows: npt.NDArray[np.int64], familiarity: Familiarity, alarm: float
) -> None:
    """Mark products that do not look like their category; unlike anything goes before another category."""
    state_nA[familiarity.p_category[rows] <= alarm] = STATES.index("category?")
    state_nA[familiarity.p_familiar[rows] <= alarm] = STATES.index("unfamiliar")


def _logs(probs: npt.NDArray[Any]) -> Float:
    out: Float = np.log(np.maximum(probs.astype(np.float64), 1e-12))
    return out


def _calibration_table(part: PairCalibration) -> dict[str, Any]:
    return {
        "opinions": list(part.opinions),
        "prior": part.prior,
        "shift": part.shift,
        "slope": part.slope,
        "tail": part.tail,
    }


def _read(table: Mapping[str, Any]) -> PairCalibration:
    numbers = (float(table[key]) for key in ("prior", "shift", "slope", "tail"))
    return PairCalibration(tuple(map(float, table["opinions"])), *numbers)
