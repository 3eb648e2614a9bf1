"""Pace: how long a batch takes, from those that were watched.

It does not know what is done. The seconds of a batch are taken as a fixed part and a part per product, fitted by least
squares with weights that fade, so that it follows a machine that becomes busy.
"""

import math
from collections.abc import Sequence

#: What the weight of everything known is multiplied by when a batch is added.
FADE = 0.9
#: Of nearly equal sizes nothing can be told of the fixed part: the share of the mean that a spread must have.
SPREAD = 0.05


class Mean:
    """A mean of seconds that follows what is watched."""

    def __init__(self, seconds: float) -> None:
        """Begin with what is known."""
        self.seconds = seconds

    def add(self, seconds: float) -> None:
        """Take a time into account."""
        self.seconds = FADE * self.seconds + (1 - FADE) * seconds


class Pace:
    """Seconds of a batch by its size."""

    def __init__(self, known: Sequence[tuple[int, float]]) -> None:
        """Begin with batches that were watched: their sizes and seconds; at least one."""
        self.fixed = self.each = 0.0
        self._sums = [0.0] * 5
        for count, seconds in known:
            self.add(count, seconds)

    def add(self, count: int, seconds: float) -> None:
        """Take a batch of this size into account."""
        new = (1.0, count, count * count, seconds, count * seconds)
        self._sums = [FADE * old + more for old, more in zip(self._sums, new, strict=True)]
        weight, n, nn, t, nt = self._sums
        mean_n, mean_t = n / weight, t / weight
        spread = nn / weight - mean_n**2
        if spread > (SPREAD * mean_n) ** 2:
            self.each = (nt / weight - mean_n * mean_t) / spread
        # Noise can make either part nonsense; each lies between nothing and all of the time.
        most = mean_t / mean_n
        self.each = min(max(self.each, 0.1 * most), most)
        self.fixed = max(mean_t - self.each * mean_n, 0.0)

    def of(self, count: int) -> float:
        """Return the seconds that a batch of this size is expected to take."""
        return self.fixed + self.each * count

    def within(self, seconds: float) -> int:
        """Return how many products to take at once in this time; more, where most of it would be the fixed part."""
        worth = self.fixed / max(self.each, 1e-9)
        return max(1, math.floor(max((seconds - self.fixed) / max(self.each, 1e-9), worth)))
