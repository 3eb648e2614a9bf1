"""Siblings: products learnt from that share name, brand, category and quantity, and so what the features miss.

They know predictions out of fold, not how they came about. It is a random effect for each name (Henderson 1975): the
mean residual of siblings, drawn to zero by how little siblings were found to agree. Pack variants state another
quantity and are no siblings. Products of unseen names are left as they are.
Legend: N products.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shelfwise.recipes.views import Seen, brand_key

Float = npt.NDArray[np.float64]
#: Pairs of siblings from which their agreement is believed.
LEAST_PAIRS = 20
#: A standardised residual counts as at most this many spreads; a median absolute deviation times this is one.
MOST_OFF, NORMAL = 4.0, 1.4826
#: The most that siblings may agree: prices that are the same are still not certain.
MOST = 0.95


def sibling_keys(seen: Seen) -> list[str]:
    """Return the key that siblings share; empty for a product without a name."""
    keys = []
    for listing, brand, category in zip(seen.listings, seen.brands, seen.category.tolist(), strict=True):
        value = f"{listing.value:.6g} {listing.unit}" if math.isfinite(listing.value) else ""
        parts = (listing.name.casefold(), brand_key(brand), str(category), value, str(listing.pack))
        keys.append("\x1f".join(parts) if listing.name else "")
    return keys


@dataclass(frozen=True, eq=False)
class Siblings:
    """What was found of the products of each name.

    Attributes:
        sums: key to the sums of locations out of fold, of residuals and of scales, and their count.
        agreement: correlation of two siblings' residuals, 0 for none.
    """

    sums: Mapping[str, tuple[float, float, float, int]]
    agreement: float

    @classmethod
    def learn(cls, keys: Sequence[str], location_N: Float, scale_N: Float, number_N: Float) -> "Siblings":
        """Learn from predictions out of fold: locations and scales of products, and the numbers they state."""
        standard_N = (number_N - location_N) / scale_N
        typical = max(float(np.median(np.abs(standard_N))), 1e-12) * NORMAL
        standard_N = np.clip(standard_N, -MOST_OFF * typical, MOST_OFF * typical)
        groups: dict[str, list[int]] = defaultdict(list)
        for row, key in enumerate(keys):
            if key:
                groups[key].append(row)
        several = [standard_N[rows] for rows in groups.values() if len(rows) > 1]
        agreement, degrees = 0.0, sum(len(group) - 1 for group in several)
        if degrees >= LEAST_PAIRS:
            products = [(group.sum() ** 2 - (group**2).sum()) / len(group) for group in several]
            power = max(float(np.mean(np.concatenate(several) ** 2)), 1e-12)
            agreement = sum(products) / degrees / power
        if agreement <= 0:
            return cls({}, 0.0)
        moved_N = standard_N * scale_N
        sums = {
            key: (math.fsum(location_N[rows]), math.fsum(moved_N[rows]), math.fsum(scale_N[rows]), len(rows))
            for key, rows in sorted(groups.items())
        }
        return cls(sums, float(min(agreement, MOST)))

    def follow(self, keys: Sequence[str], location_N: Float, scale_N: Float) -> tuple[Float, Float]:
        """Return locations and scales float64 [N], of products with siblings as these tell.

        Where the trees have seen a sibling, what they say now is no prediction, and too sure: the siblings' own
        predictions out of fold take its place.
        """
        location_N, scale_N = location_N.copy(), scale_N.copy()
        for at, key in enumerate(keys):
            location, residual, scale, count = self.sums.get(key, (0.0, 0.0, 0.0, 0))
            if count:
                share = count * self.agreement / (1 + (count - 1) * self.agreement)
                location_N[at] = (location + share * residual) / count
                scale_N[at] = scale / count * math.sqrt(1 - share * self.agreement)
        return location_N, scale_N
