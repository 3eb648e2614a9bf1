"""Every comparison of one part of a table with the products learnt from, and what explains what drifted.

It does not know how the part was cut, nor which comparisons are reported.
Legend: n products of one category, V values packed, v of one attribute, G groups.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from shelfwise.amounts import HIGH, LOW, MEDIAN
from shelfwise.drift.fingerprint import Fingerprint, Floats
from shelfwise.drift.report import DriftLine
from shelfwise.taxonomy import Choice
from shelfwise.trust.permuted import Values
from shelfwise.trust.shift import Shift, Stratum, either, enough, means, offset, sampled, shares, shares_after

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
#: The least effect that matters, by kind; see the record on drift.
LEAST_EFFECT: Mapping[str, float] = {
    "categories": 0.1,
    "values": 0.1,
    "confidence": 0.2,
    "answered": 0.2,
    "look": 0.1,
    "familiar": 0.2,
}
#: Share of the squared distance that other shares of values must explain before both causes are named.
EXPLAINED = 0.5


@dataclass(frozen=True, eq=False)
class Cut:
    """The part of the products that is compared.

    Attributes:
        column, slice: ``None`` for all of them.
        before, before_seen: bool masks of the products learnt from: those answered, those with a picture.
        after, after_seen: likewise of the table.
        against: as in ``DriftLine``.
    """

    column: str | None
    slice: str | None
    before: Bools
    before_seen: Bools
    after: Bools
    after_seen: Bools
    against: str = "all"


@dataclass(frozen=True, eq=False)
class Comparison:
    """Every comparison of one cut."""

    before: Fingerprint
    after: Fingerprint
    cut: Cut
    thresholds: Mapping[tuple[str, str], float]

    def lines(self) -> Iterator[DriftLine]:
        """Compare everything that both samples have enough products of."""
        taxonomy = self.before.taxonomy
        if len(taxonomy.categories) > 1:
            yield from self._categories()
        for kind, numbers in (("look", "direction"), ("familiar", "strange")):
            strata = {name: self._seen(name, numbers) for name in taxonomy.categories}
            kept = [pair for pair in strata.values() if pair is not None]
            if len(kept) > 1:
                yield self._line(kind, kept, None)
            for name, pair in strata.items():
                if pair is not None:
                    yield self._strange(pair, name) if kind == "familiar" else self._line(kind, [pair], name)
        for name in taxonomy.categories:
            yield from self._choices(name)
            yield from self._numbers(name)

    @property
    def tested(self) -> bool:
        """Whether what is found is reported: a slice that has no past of its own is shown only."""
        return self.cut.column is None or self.cut.against != "all"

    @cached_property
    def values(self) -> Mapping[str, Values]:
        """By category the probabilities of all values, where both samples have enough products."""
        found = {}
        for name in self.before.taxonomy.categories:
            parts = tuple(part for _, part in self._compared(name))
            if parts and name in self.before.blocks and name in self.after.blocks:
                pair = _paired(*zip(*self._said(name), strict=True))
                if pair is not None:
                    found[name] = Values(pair, parts)
        return found

    def _compared(self, category: str) -> list[tuple[Choice, slice]]:
        """The attributes that have several values, and their columns."""
        taxonomy = self.before.taxonomy
        both = zip(taxonomy.choices(category), taxonomy.slices(category), strict=True)
        return [(choice, part) for choice, part in both if len(choice.values) > 1]

    def _said(self, category: str) -> tuple[list[Floats], list[Ints]]:
        """The probabilities and the groups of the earlier and the later products of a category."""
        probs, groups = [], []
        for side, mask in ((self.before, self.cut.before), (self.after, self.cut.after)):
            rows, probs_nV = side.blocks[category]
            probs.append(probs_nV[mask[rows]])
            groups.append(side.group[rows[mask[rows]]])
        return probs, groups

    def caused(self, lines: Sequence[DriftLine], rate: float) -> list[DriftLine]:
        """Say of shares and looks that drifted whether other products or other pictures explain them."""
        found = {
            name: self._causes(name, [line for line in lines if line.category == name], rate)
            for name in {line.category for line in lines if line.drift and line.category is not None}
        }
        return [
            replace(line, cause=found.get(line.category, {}).get((line.kind, line.attribute), ""))
            if line.drift and line.category is not None
            else replace(line, cause="prior" if line.drift and line.kind == "categories" else "")
            for line in lines
        ]

    def _causes(
        self, category: str, lines: Sequence[DriftLine], rate: float
    ) -> dict[tuple[str, str | None], str]:
        """The causes of one category's lines, by kind and attribute.

        Where the shares of an attribute's values changed and nothing else did, products learnt from that are weighted
        by how many times more frequent their values are now have the later pictures' mean (``shares_after``). Where
        the category's pictures did not change, those of the value that moved are looked at.
        """
        look = next((line for line in lines if line.kind == "look"), None)
        names = [choice.name for choice in self.before.taxonomy.choices(category)]
        shifted = [line for line in lines if line.drift and line.kind == "values" and line.attribute in names]
        moved = [line.attribute for line in shifted]
        if look is None:
            return {("values", name): "unknown" for name in moved}
        if not look.drift:
            return {("values", line.attribute): self._within(line, rate) for line in shifted}
        left = {name: self._left(category, names.index(str(name)), look, rate) for name in moved}
        if "prior" in left.values():
            return {("look", None): "prior", **{("values", name): "prior" for name in moved}}
        whole = "both" if "both" in left.values() else "covariate"
        return {("look", None): whole, **{("values", name): cause for name, cause in left.items()}}

    def _within(self, line: DriftLine, rate: float) -> str:
        """Whether the pictures of a value that is answered more or less often look as those of it did.

        A value that nobody learnt is answered as one that was, whose pictures then differ; the category's need not.
        """
        category, sides = str(line.category), []
        choices, slices = self.before.taxonomy.choices(category), self.before.taxonomy.slices(category)
        at = [choice.name for choice in choices].index(str(line.attribute))
        value = choices[at].values.index(str(line.value))
        for side, mask, seen in (
            (self.before, self.cut.before, self.cut.before_seen),
            (self.after, self.cut.after, self.cut.after_seen),
        ):
            rows, probs_nV = side.blocks[category]
            said = mask[rows] & (probs_nV[:, slices[at]].argmax(axis=1) == value)
            ids = {side.ids[row] for row in rows[said].tolist()}
            kept = np.flatnonzero(seen & np.array([id_ in ids for id_ in side.pictured], bool))
            sides.append((side.direction[kept], side.seen_group[kept]))
        stratum = _paired(*sides)
        if stratum is None:
            return "prior"
        found = offset([stratum])
        return "both" if found.p <= rate and found.effect >= LEAST_EFFECT["look"] else "prior"

    def _left(self, category: str, attribute: int, look: DriftLine, rate: float) -> str:
        """What the other shares of an attribute's values leave of the distance between the pictures."""
        part = self.before.taxonomy.slices(category)[attribute]
        probs, weights, ids = [], [], []
        for side, mask in ((self.before, self.cut.before), (self.after, self.cut.after)):
            rows, probs_nV = side.blocks[category]
            kept = rows[mask[rows]]
            _, at_n, size_G = np.unique(side.group[kept], return_inverse=True, return_counts=True)
            weights.append(1 / size_G[at_n] / len(size_G))
            probs.append(probs_nV[mask[rows], part].astype(np.float64))
            ids.append([side.ids[row] for row in kept.tolist()])
        times_v = shares_after(*probs, *weights)
        weight_of = dict(zip(ids[0], (probs[0] @ times_v).tolist(), strict=True))
        code, sides = self.before.taxonomy.category_codes[category], []
        for side, mask in ((self.before, self.cut.before_seen), (self.after, self.cut.after_seen)):
            rows = np.flatnonzero(mask & (side.seen_category == code))
            sides.append((side.direction[rows], side.seen_group[rows]))
        rows = np.flatnonzero(self.cut.before_seen & (self.before.seen_category == code))
        weight_n = np.array([weight_of.get(self.before.pictured[row], 1.0) for row in rows.tolist()])
        weight_G = sampled(weight_n, sides[0][1]).by_group[:, 0]
        weighed = Stratum(sampled(*sides[0]), sampled(*sides[1]), weight_G)
        found = offset([weighed])
        if found.p > rate or found.effect < look.least:
            return "prior"
        return "both" if 1 - (found.effect / look.effect) ** 2 >= EXPLAINED else "covariate"

    def _line(
        self, kind: str, strata: Sequence[Stratum], category: str | None, attribute: str | None = None
    ) -> DriftLine:
        found = (offset if kind == "look" else means)(strata)
        return self._told(kind, strata, found, category, attribute)

    def _shares(
        self, kind: str, stratum: Stratum, names: Sequence[str], category: str | None, attribute: str | None
    ) -> DriftLine:
        """Shares of several values; the one that chance explains least is named."""
        found = shares(stratum)
        return self._of_value(kind, stratum, found, names, category, attribute)

    def _of_value(
        self,
        kind: str,
        stratum: Stratum,
        found: Shift,
        names: Sequence[str],
        category: str | None,
        attribute: str | None,
    ) -> DriftLine:
        one = replace(found, before=found.before[[found.most]], after=found.after[[found.most]])
        return replace(self._told(kind, [stratum], one, category, attribute), value=names[found.most])

    def _told(
        self,
        kind: str,
        strata: Sequence[Stratum],
        found: Shift,
        category: str | None,
        attribute: str | None,
    ) -> DriftLine:
        single = len(found.before) == 1
        return DriftLine(
            kind,
            self.cut.column,
            self.cut.slice,
            category,
            attribute,
            sum(round(each.after.products) for each in strata),
            sum(len(each.after.size) for each in strata),
            sum(round(each.before.products) for each in strata),
            float(found.before[0]) if single else float("nan"),
            float(found.after[0]) if single else float("nan"),
            found.effect,
            LEAST_EFFECT[kind],
            found.p,
            against=self.cut.against,
        )

    def _categories(self) -> Iterator[DriftLine]:
        count, sides = len(self.before.taxonomy.categories), []
        for side, mask in ((self.before, self.cut.before), (self.after, self.cut.after)):
            rows = np.flatnonzero(mask & (side.category >= 0))
            sides.append((np.eye(count)[side.category[rows]], side.group[rows]))
        pair = _paired(*sides)
        if pair is not None:
            yield self._shares("categories", pair, self.before.taxonomy.categories, None, None)

    def _seen(self, category: str, numbers: str) -> Stratum | None:
        code, sides = self.before.taxonomy.category_codes[category], []
        for side, mask in ((self.before, self.cut.before_seen), (self.after, self.cut.after_seen)):
            given = getattr(side, numbers)
            known = np.isfinite(given) if given.ndim == 1 else True
            rows = np.flatnonzero(mask & (side.seen_category == code) & known)
            sides.append((given[rows], side.seen_group[rows]))
        return _paired(*sides)

    def _strange(self, pair: Stratum, category: str) -> DriftLine:
        """The share of one category's pictures that are unlike it: rare, so tested as a value's is."""
        stratum = Stratum(either(pair.before), either(pair.after))
        found = shares(stratum)
        one = replace(found, before=found.before[:1], after=found.after[:1])
        return self._told("familiar", [stratum], one, category, None)

    def _choices(self, category: str) -> Iterator[DriftLine]:
        if category not in self.values:
            return
        probs, groups = self._said(category)
        p_A, most_A = self.values[category].likely()
        for a, (choice, part) in enumerate(self._compared(category)):
            count = len(choice.values)
            best = [probs_nV[:, part].argmax(axis=1) for probs_nV in probs]
            given = _paired(*((np.eye(count)[b], g) for b, g in zip(best, groups, strict=True)))
            assert given is not None
            found = replace(shares(given), p=float(p_A[a]), most=int(most_A[a]))
            yield self._of_value("values", given, found, choice.values, category, choice.name)
            sure = [probs_nV[:, part].max(axis=1, initial=0) for probs_nV in probs]
            pair = _paired(*zip(sure, groups, strict=True))
            assert pair is not None
            yield _worse(self._line("confidence", [pair], category, choice.name), -1)
            threshold = self.thresholds.get((category, choice.name), np.inf)
            if np.isfinite(threshold):
                answered = [(s >= threshold).astype(np.float64) for s in sure]
                pair = _paired(*zip(answered, groups, strict=True))
                assert pair is not None
                yield _worse(self._line("answered", [pair], category, choice.name), -1)

    def _numbers(self, category: str) -> Iterator[DriftLine]:
        code = self.before.taxonomy.category_codes[category]
        for number in self.before.taxonomy.numbers(category):
            if number.name not in self.before.amounts or number.name not in self.after.amounts:
                continue
            levels, widths = [], []
            for side, mask in ((self.before, self.cut.before), (self.after, self.cut.after)):
                rows, quantiles_nQ = side.amounts[number.name]
                at = np.flatnonzero(mask[rows] & (side.category[rows] == code))
                turned_n3 = number.forward(quantiles_nQ[at][:, [LOW, MEDIAN, HIGH]].astype(np.float64))
                levels.append((turned_n3[:, 1], side.group[rows[at]]))
                widths.append((turned_n3[:, 2] - turned_n3[:, 0], side.group[rows[at]]))
            level, width = _paired(*levels), _paired(*widths)
            if level is None or width is None:
                continue
            line = self._line("values", [level], category, number.name)
            before, after = number.inverse(np.array([line.before, line.after])).tolist()
            yield replace(line, before=before, after=after)
            yield _worse(self._line("confidence", [width], category, number.name), 1)


def _worse(line: DriftLine, sign: int) -> DriftLine:
    """Test a change for the worse only: what was fitted on everything is surer than what was fitted out of fold."""
    return replace(line, p=line.p / 2 if sign * (line.after - line.before) > 0 else 1.0)


def _paired(
    before: tuple[npt.NDArray[np.generic], Ints], after: tuple[npt.NDArray[np.generic], Ints]
) -> Stratum | None:
    """Two samples by group, ``None`` where one is too small."""
    if not len(before[1]) or not len(after[1]):
        return None
    stratum = Stratum(sampled(*before), sampled(*after))
    return stratum if enough(stratum) else None
