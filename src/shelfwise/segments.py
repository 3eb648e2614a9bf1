"""Segments: the values of several attributes side by side, and what is worked out of each attribute's own at once.

They do not know what the numbers are. Every row is worked out by itself, so it is the same whatever is beside it.
Legend: n rows, V values of all attributes, packed, A attributes, P attributes that have values.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from shelfwise.taxonomy import Taxonomy

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Segments:
    """Where the values of each attribute that has any lie; they follow each other without gaps.

    Attributes:
        present: the positions of those attributes among all A.
        starts: int64 [P], where each begins.
        widths: int64 [P], how many values each has.
    """

    present: tuple[int, ...]
    starts: Ints
    widths: Ints

    @classmethod
    def of(cls, widths: Iterable[int]) -> "Segments":
        """Lay attributes of these widths side by side; some may be 0."""
        width_A = np.fromiter(widths, np.int64)
        present = np.flatnonzero(width_A)
        return cls(tuple(present.tolist()), (np.cumsum(width_A) - width_A)[present], width_A[present])

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """The columns of each."""
        ends = (self.starts + self.widths).tolist()
        return tuple(slice(*pair) for pair in zip(self.starts.tolist(), ends, strict=True))

    @cached_property
    def _owner_V(self) -> Ints:
        return np.repeat(np.arange(len(self.starts)), self.widths)

    def spread(self, each_nP: Array) -> Array:
        """Return [..., V], one number of each attribute for each of its values."""
        return each_nP.take(self._owner_V, axis=-1)

    def sums(self, packed_nV: Array) -> Array:
        """Return [n, P]."""
        found: Array = np.add.reduceat(packed_nV, self.starts, axis=1)
        return found

    def largest(self, packed_nV: Array) -> Array:
        """Return [n, P]."""
        found: Array = np.maximum.reduceat(packed_nV, self.starts, axis=1)
        return found

    def places(self, packed_nV: Array) -> Ints:
        """Return int64 [n, P], the column of the largest of each; of equal ones the first."""
        found_nP = np.empty((len(packed_nV), len(self.starts)), np.int64)
        for at, part in enumerate(self.slices):
            packed_nV[:, part].argmax(axis=1, out=found_nP[:, at])
        return np.add(found_nP, self.starts, out=found_nP)

    def softmax(self, logits_nV: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Turn logits into probabilities that sum to 1 over each attribute's values, in place."""
        if len(self.starts):
            logits_nV -= self.spread(self.largest(logits_nV))
            np.exp(logits_nV, out=logits_nV)
            logits_nV /= self.spread(self.sums(logits_nV))
        return logits_nV


#: What was worked out, as long as a taxonomy is there.
_READY: "WeakKeyDictionary[Taxonomy, dict[str, Segments]]" = WeakKeyDictionary()


def segments(taxonomy: Taxonomy, category: str) -> Segments:
    """Return where the values of a category's Choice attributes lie."""
    ready = _READY.setdefault(taxonomy, {})
    if category not in ready:
        ready[category] = Segments.of(part.stop - part.start for part in taxonomy.slices(category))
    return ready[category]
