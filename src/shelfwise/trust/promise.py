"""Promise: the confidence from which an answer is right as often as was promised.

It does not know what the answers are, only how sure they were and whether they were right, out of fold.
Legend: m labelled rows of one attribute, G near-duplicate groups, T prefixes, P pairs.

Rows are put in order of confidence; a threshold answers a prefix of them. Near-duplicates are one piece of
evidence, not several: every count is over groups, a group's error being the share of its answered rows
that are wrong. (A mean of numbers in [0, 1] is dominated by Bernoulli draws of the same mean: Hoeffding 1963, so the
binomial tail stands for it.) Prefixes grow by a fixed ratio, and are tried one after the other until the first
that fails, so that trying many costs no confidence (fixed-sequence testing; "Learn then Test", Angelopoulos et al.
2021, section 3). The order starts where the probabilities alone, not the labels, say that passing is most likely.

Three ways to keep it:

- ``attribute``: each attribute keeps the promise, judged by its own evidence and by how far, over all attributes,
  precision has strayed from what the calibrated probabilities said: precision is Beta(nu mean, nu (1 - mean)) before
  the attribute's own counts come in, nu found by maximum likelihood over the attributes (the beta-binomial
  model; Efron and Morris 1973; Gelman et al., *Bayesian Data Analysis*, section 5.3). The threshold is the lowest at
  which the promise holds with the confidence asked for.
- ``attribute-alone``: each attribute by its own counts only, by the exact binomial tail. Assumes nothing and answers
  less: without a single error it takes 149 groups to promise 0.98 with confidence 0.95.
- ``catalogue``: the cells answered keep the promise taken together, by the binomial tail over near-duplicate groups,
  each counting once with the share of its answered cells that is wrong; an attribute answers up to where its mean
  calibrated probability reaches a level that is the same for all.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shelfwise.errors import UsageError, listing
from shelfwise.trust.evidence import Evidence, Pair

Float = npt.NDArray[np.float64]
#: What may keep a promise.
OVER = ("attribute", "attribute-alone", "catalogue")
#: Prefixes: groups of the first one, and how much longer each is than the one before.
FIRST, RATIO = 20, 1.03
#: Groups that must be answered in the evidence before anything is promised.
LEAST = 30
#: Bounds of nu, in groups that the other attributes' evidence may be worth.
LEAST_NU, MOST_NU = 5.0, 2000.0
#: Levels of the mean calibrated probability tried for the catalogue, as shares of the way from the promise to 1.
MARGINS = np.linspace(0.9, -0.5, 71)


@dataclass(frozen=True)
class Promised:
    """What a promise means for one attribute.

    Attributes:
        threshold: the least confidence that is answered; ``inf`` for none.
        coverage: share of its rows that would be answered, on the evidence.
        precision: share of the groups answered that was right, on the evidence; NaN for none.
        labels: labelled rows of the evidence.
        reason: why nothing is answered; empty where something is.
        unseen: values that no product of the evidence states, so that nothing is known of answers with them; a
            cell whose most probable value is one of these is not answered.
    """

    threshold: float
    coverage: float
    precision: float
    labels: int
    reason: str = ""
    unseen: tuple[str, ...] = ()


@dataclass(frozen=True)
class Promise:
    """Thresholds that keep a precision.

    Attributes:
        precision: the share of answers that is to be right.
        confidence: how sure that is.
        over: what keeps it: ``attribute``, ``attribute-alone`` or ``catalogue``.
        pairs: by (category, attribute).
        nu: groups that the other attributes' evidence is worth; 0 where it is not used.
    """

    precision: float
    confidence: float
    over: str
    pairs: Mapping[tuple[str, str], Promised]
    nu: float = 0.0

    def threshold(self, name: tuple[str, str]) -> float:
        """Return the least confidence that is answered, ``inf`` where nothing is."""
        found = self.pairs.get(name)
        return np.inf if found is None else found.threshold

    def unseen(self, name: tuple[str, str]) -> tuple[str, ...]:
        """Return the values of an attribute that are never answered."""
        found = self.pairs.get(name)
        return () if found is None else found.unseen

    @property
    def coverage(self) -> float:
        """Share of the labelled cells of the evidence that would be answered."""
        labels = sum(part.labels for part in self.pairs.values())
        answered = sum(part.labels * part.coverage for part in self.pairs.values())
        return answered / labels if labels else 0.0

    def __str__(self) -> str:
        if not self.pairs:
            return (
                f"Promise: precision {self.precision:g} is about attributes, and there are none; numbers carry ranges "
                "(decide.coverage), and where a range is wider than decide.widest nothing is answered."
            )
        never = sum(np.isinf(part.threshold) for part in self.pairs.values())
        return (
            (
                f"Promise: precision {self.precision:g} with confidence {self.confidence:g} over each {self.over}: "
                f"{self.coverage:.1%} of the cells would be answered, {never} of {len(self.pairs)} attributes never."
            )
            .replace("each catalogue", "the whole catalogue")
            .replace("each attribute-alone", "each attribute by itself")
        )

    def table_text(self) -> str:
        """Return the promise with what it means for every attribute, as aligned text."""
        lines = [str(self)]
        width = max((len(" / ".join(name)) for name in self.pairs), default=0)
        for name, part in self.pairs.items():
            said = (
                f"{part.coverage:6.1%} answered, from {part.threshold:.3f}, {part.precision:.3f} right out of fold"
                + (f"; never {listing(part.unseen)}: not seen out of fold" if part.unseen else "")
                if np.isfinite(part.threshold)
                else f"  never answered: {part.reason}"
            )
            lines.append(f"  {' / '.join(name):{width}} {part.labels:>7,} labels {said}")
        return "\n".join(lines)


def promise(
    calibrated: Evidence,
    precision: float,
    confidence: float = 0.9,
    over: str = "attribute",
    untrained: frozenset[tuple[str, str]] = frozenset(),
) -> Promise:
    """Find the thresholds that keep a promised precision.

    Args:
        calibrated: evidence with calibrated probabilities, out of fold (``calibrate.out_of_fold``).
        precision: the share of answers that is to be right, in (0, 1).
        confidence: with what probability, in (0, 1).
        over: what keeps the promise, see the module.
        untrained: attributes that are never answered.

    Raises:
        UsageError: a precision or confidence outside (0, 1), or another word for ``over``.
    """
    if over not in OVER:
        raise UsageError(f"a promise is kept over {', '.join(OVER)}, not {over!r}")
    for name, number in (("precision", precision), ("confidence", confidence)):
        if not 0 < number < 1:
            raise UsageError(f"a promised {name} lies between 0 and 1, not at {number:g}")
    pairs = list(calibrated.pairs())
    inside_N = np.zeros(len(calibrated), bool)
    for block in calibrated.blocks:
        inside_N[block.rows] = True
    folds = len(np.unique(calibrated.fold[inside_N]))
    never = {pair.name: _never(pair, folds, pair.name in untrained) for pair in pairs}
    prefixes = {pair.name: prefixes_of(pair) for pair in pairs if not never[pair.name]}
    nu = 0.0
    if over == "catalogue":
        level = _level(list(prefixes.values()), precision, confidence)
        found = {name: _up_to(part, level) for name, part in prefixes.items()}
    elif over == "attribute-alone":
        found = {name: _alone(part, precision, confidence) for name, part in prefixes.items()}
    else:
        nu = _strength(list(prefixes.values()), precision)
        found = {name: _together(part, precision, confidence, nu) for name, part in prefixes.items()}
    unsure = f"not right often enough, however sure, to promise {precision:g} with confidence {confidence:g}"
    promised = {
        name: _promised(pair, prefixes.get(name), found.get(name, -1), never[name] or unsure)
        for name, pair in ((pair.name, pair) for pair in pairs)
    }
    return Promise(precision, confidence, over, promised, nu)


def _never(pair: Pair, folds: int, untrained: bool) -> str:
    """Why an attribute is not promised anything whatever its confidence; empty where it may be."""
    groups, inside = len(np.unique(pair.group)), len(np.unique(pair.fold))
    if untrained:
        return "it was never learnt"
    if pair.probs.shape[1] < 2:
        return "it has one value only: nothing was learnt that could be wrong"
    if not len(pair.labels):
        return "no labelled product with a readable picture"
    if groups < LEAST:
        return f"too few labelled products that differ: {groups}, and {LEAST} are needed to promise anything"
    if inside < folds:
        return f"no labelled product in {folds - inside} of the {folds} folds"
    if (pair.counts > 0).sum() < 2:
        only = pair.choice.values[int(pair.counts.argmax())]
        return f"{only!r} is its only value seen out of fold: nothing was learnt that could be wrong"
    return ""


@dataclass(frozen=True, eq=False)
class Prefixes:
    """The prefixes of one attribute's rows by confidence.

    Attributes:
        threshold_T: the confidence of the last row.
        rows_T: rows answered.
        groups_T: groups answered.
        errors_T: the sum over groups of the share of their answered rows that is wrong.
        mean_T: the mean over groups of the calibrated probability.
        group_m: the group of every row, the surest row first.
        wrong_m: whether it was wrong.
        sure_m: its confidence.
    """

    threshold_T: Float
    rows_T: npt.NDArray[np.int64]
    groups_T: Float
    errors_T: Float
    mean_T: Float
    group_m: npt.NDArray[np.int64]
    wrong_m: Float
    sure_m: Float

    def __len__(self) -> int:
        return len(self.threshold_T)


def prefixes_of(pair: Pair) -> Prefixes:
    """Return the prefixes of an attribute's labelled rows, ties in confidence together."""
    sure_m = pair.probs.max(axis=1).astype(np.float64)
    wrong_m = (pair.probs.argmax(axis=1) != pair.labels).astype(np.float64)
    order_m = np.lexsort((pair.rows, -sure_m))
    sure_m, wrong_m = sure_m[order_m], wrong_m[order_m]
    group_m = np.unique(pair.group[order_m], return_inverse=True)[1]
    groups = int(group_m.max()) + 1 if len(group_m) else 0
    first_G = np.unique(group_m, return_index=True)[1]
    # Rows until one more group than wanted begins: rows repeated inside their groups change no prefix.
    begun_m = np.bincount(first_G, minlength=len(group_m)).cumsum()
    rows = np.searchsorted(begun_m, list(_ends(groups)), side="right")
    ends = sorted({_with_ties(sure_m, end) for end in rows.tolist()})
    columns: list[tuple[float, ...]] = []
    count_G, wrong_G, sure_G = np.zeros((3, groups))
    start = 0
    for end in ends:
        part = group_m[start:end]
        count_G += np.bincount(part, minlength=groups)
        wrong_G += np.bincount(part, wrong_m[start:end], groups)
        sure_G += np.bincount(part, sure_m[start:end], groups)
        start, there = end, count_G > 0
        mean = (sure_G[there] / count_G[there]).mean()
        errors = (wrong_G[there] / count_G[there]).sum()
        columns.append((sure_m[end - 1], end, there.sum(), errors, mean))
    table = np.array(columns, np.float64).reshape(-1, 5).T
    ordered = pair.group[order_m], wrong_m, sure_m
    return Prefixes(table[0], table[1].astype(np.int64), table[2], table[3], table[4], *ordered)


def _ends(groups: int) -> Iterator[int]:
    end = float(FIRST)
    while end < groups:
        yield int(end)
        end = max(end * RATIO, end + 1)
    yield groups


def _with_ties(sure_m: Float, end: int) -> int:
    """The end of the run of rows as sure as the last one."""
    return int(np.searchsorted(-sure_m, -sure_m[end - 1], side="right"))


def tail(groups: float, errors: float, precision: float) -> float:
    """Return the chance of so few errors if the precision were just below the promise: the binomial tail.

    Fractional errors interpolate through the incomplete beta function.
    """
    from scipy.special import betainc

    return float(betainc(max(groups - errors, 1e-9), errors + 1, precision))


def _alone(part: Prefixes, precision: float, confidence: float) -> int:
    """The last prefix that passes by its own counts; -1 for none."""
    power_T = _power(part.groups_T, part.mean_T, precision, confidence)
    best = -1
    if len(part) and power_T.max() > 0:
        for at in range(int(power_T.argmax()), len(part)):
            if tail(part.groups_T[at], part.errors_T[at], precision) > 1 - confidence:
                break
            best = at if part.groups_T[at] >= LEAST else best
    return best


def _together(part: Prefixes, precision: float, confidence: float, nu: float) -> int:
    """The last prefix whose precision, given its counts and what all attributes teach, holds; -1 for none."""
    from scipy.special import betainc

    mean_T = np.clip(part.mean_T, 1e-4, 1 - 1e-4)
    right_T, wrong_T = part.groups_T - part.errors_T, part.errors_T
    below_T = betainc(nu * mean_T + right_T, nu * (1 - mean_T) + wrong_T, precision)
    passes_T = (1 - below_T >= confidence) & (part.groups_T >= LEAST)
    if not passes_T.any():
        return -1
    first = int(passes_T.argmax())
    failed = np.flatnonzero(~passes_T[first:])
    end = first + int(failed[0]) if len(failed) else len(part)
    # What its own evidence speaks against is not promised, however much the other attributes speak for it.
    kept = np.flatnonzero(wrong_T[first:end] <= (1 - precision) * part.groups_T[first:end])
    return first + int(kept[-1]) if len(kept) else -1


def _strength(parts: Sequence[Prefixes], precision: float) -> float:
    """nu: how many groups of its own evidence the calibrated probability is worth, at the promised level."""
    from scipy.optimize import minimize_scalar
    from scipy.special import betaln

    at = [(part, _up_to(part, precision)) for part in parts]
    counts = [(p.groups_T[t], p.errors_T[t], p.mean_T[t]) for p, t in at if t >= 0]
    if not counts:
        return LEAST_NU
    groups_P, wrong_P, mean_P = np.array(counts).T
    mean_P = np.clip(mean_P, 1e-4, 1 - 1e-4)

    def loss(log_nu: float) -> float:
        a_P, b_P = np.exp(log_nu) * mean_P, np.exp(log_nu) * (1 - mean_P)
        return -float((betaln(a_P + groups_P - wrong_P, b_P + wrong_P) - betaln(a_P, b_P)).sum())

    bounds = (np.log(LEAST_NU), np.log(MOST_NU))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def _up_to(part: Prefixes, level: float) -> int:
    """The longest prefix whose mean calibrated probability reaches a level; -1 for none."""
    reached = np.flatnonzero((part.mean_T >= level) & (part.groups_T >= LEAST))
    return int(reached[-1]) if len(reached) else -1


def _level(parts: Sequence[Prefixes], precision: float, confidence: float) -> float:
    """The lowest level of mean probability at which the cells of all attributes together keep the promise.

    Levels are tried downwards until the first that fails, from where passing is most likely by the probabilities.
    """
    levels_K = precision + MARGINS * (1 - precision)
    counts_K3 = np.array([_together_at(parts, level) for level in levels_K.tolist()])
    groups_K, errors_K, mean_K = counts_K3.T
    power_K = _power(groups_K, mean_K, precision, confidence)
    best = np.inf
    for at in range(int(power_K.argmax()) if power_K.max() > 0 else len(levels_K), len(levels_K)):
        if tail(groups_K[at], errors_K[at], precision) > 1 - confidence:
            break
        best = float(levels_K[at])
    return best


def _together_at(parts: Sequence[Prefixes], level: float) -> tuple[float, float, float]:
    """Groups answered at a level, the sum of their shares of wrong cells, the mean of their mean probabilities."""
    ends = [(part, int(part.rows_T[at])) for part in parts if (at := _up_to(part, level)) >= 0]
    if not ends:
        return 0.0, 0.0, 0.0
    group, wrong, sure = (
        np.concatenate([getattr(part, field)[:end] for part, end in ends])
        for field in ("group_m", "wrong_m", "sure_m")
    )
    count_G = np.bincount(group)
    there = count_G > 0
    errors, mean = (np.bincount(group, each)[there] / count_G[there] for each in (wrong, sure))
    return float(there.sum()), float(errors.sum()), float(mean.mean())


def _power(groups: Float, mean: Float, precision: float, confidence: float) -> Float:
    """The chance to pass if the probabilities are right: of no more errors than the binomial tail allows."""
    from scipy.stats import binom

    allowed = binom.ppf(1 - confidence, groups, 1 - precision) - 1
    return np.where(allowed >= 0, binom.cdf(allowed, groups, 1 - mean), 0.0)


def _promised(pair: Pair, part: Prefixes | None, at: int, reason: str) -> Promised:
    labels = len(pair.labels)
    if part is not None and at >= 0:
        groups, errors = part.groups_T[at], part.errors_T[at]
        coverage = float(part.rows_T[at] / labels)
        unseen = tuple(v for v, n in zip(pair.choice.values, pair.counts.tolist(), strict=True) if not n)
        return Promised(
            float(part.threshold_T[at]), coverage, float(1 - errors / groups), labels, unseen=unseen
        )
    return Promised(np.inf, 0.0, float("nan"), labels, reason)
