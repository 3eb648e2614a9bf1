"""Frontier: what accuracy a cascade reaches at what cost, and the thresholds that get there.

It knows arrays, not models: how doubtful each product is after each member, how many of its labelled cells are right by
then, and what asking a member costs.
Legend: J members, n products, T sets of thresholds tried.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shelfwise.plaintext import text_table

Float = npt.NDArray[np.float64]
#: Thresholds tried after each member, by how many members there are.
GRID = {2: 101, 3: 26, 4: 11, 5: 7}
#: A threshold that every product's doubt is above: all go on.
ALL = -1.0
#: Points shown of a frontier.
SHOWN = 9


@dataclass(frozen=True)
class Point:
    """A way to run a cascade, and what came of it out of fold.

    Attributes:
        thresholds: of each member but the last: a product whose doubt is above goes on.
        shares: of the products, that each member is asked of.
        accuracy: share of the labelled cells that are right.
    """

    thresholds: tuple[float, ...]
    shares: tuple[float, ...]
    accuracy: float

    def cost(self, costs: Sequence[float]) -> float:
        """Return the mean cost of a product, given what each member costs."""
        return float(np.dot(self.shares, costs))


def frontier(doubt_Jn: Float, right_Jn: Float, cells: int, costs: Sequence[float]) -> list[Point]:
    """Return the ways that no other beats in accuracy and cost, the cheapest first.

    Args:
        doubt_Jn: after each member, from 0 to 1; the last one's does not matter.
        right_Jn: the number of a product's labelled cells that are right after each member.
        cells: labelled cells of all products.
        costs: of a product, by member.
    """
    members = len(doubt_Jn)
    grids = []
    for doubt_n in doubt_Jn[:-1]:
        between = np.quantile(doubt_n, np.linspace(0, 1, GRID[members])[1:-1])
        grids.append(np.unique(np.concatenate([[ALL], between, [1.0]])).tolist())
    found = []
    for thresholds in itertools.product(*grids):
        on_n = np.ones(doubt_Jn.shape[1], bool)
        right_n, shares = right_Jn[0], [1.0]
        for doubt_n, later_n, threshold in zip(doubt_Jn[:-1], right_Jn[1:], thresholds, strict=True):
            on_n = on_n & (doubt_n > threshold)
            right_n = np.where(on_n, later_n, right_n)
            shares.append(float(on_n.mean()))
        found.append(Point(tuple(map(float, thresholds)), tuple(shares), float(right_n.sum() / cells)))
    # Of equal cost the most accurate first; then a point has to be better than all that cost less.
    found.sort(key=lambda point: (point.cost(costs), -point.accuracy, point.thresholds))
    best, kept = -1.0, []
    for point in found:
        if point.accuracy > best:
            kept.append(point)
            best = point.accuracy
    return kept


def choose(
    points: Sequence[Point], costs: Sequence[float], whole: float, accuracy: float | None, cost: float | None
) -> tuple[Point, str]:
    """Return the point that is wanted, and a sentence about it.

    Args:
        points: from ``frontier``.
        costs: of a product, by member.
        whole: the accuracy where every product goes to all members.
        accuracy: what is wanted at least.
        cost: the most that a product may cost on average.
    """
    if cost is not None:
        within = [point for point in points if point.cost(costs) <= cost]
        if not within:
            return points[0], f"no way costs {cost:g} ms or less; the cheapest was taken"
        return within[-1], f"the most accurate that costs {cost:g} ms a product or less"
    wanted = whole if accuracy is None else accuracy
    enough = [point for point in points if point.accuracy >= wanted]
    if not enough:
        return points[-1], f"no way reaches an accuracy of {wanted:.4f}; the most accurate was taken"
    if accuracy is None:
        return enough[0], "the cheapest that is as accurate as asking all members of every product"
    return enough[0], f"the cheapest with an accuracy of {accuracy:g} or more"


def frontier_table(
    points: Sequence[Point], names: Sequence[str], costs: Sequence[float], chosen: Point
) -> str:
    """Return a frontier as text: at most ``SHOWN`` points spread over it, its ends and the chosen one among them."""
    at = {*np.linspace(0, len(points) - 1, min(SHOWN, len(points))).round().astype(int).tolist()}
    at.add(next(place for place, point in enumerate(points) if point == chosen))
    rows = [
        [
            "*" if points[place] == chosen else "",
            *(f"{share:.0%}" for share in points[place].shares),
            f"{points[place].accuracy:.4f}",
            f"{points[place].cost(costs):.2f}",
        ]
        for place in sorted(at)
    ]
    heads = [f"{name} ({cost:.2f} ms)" for name, cost in zip(names, costs, strict=True)]
    return text_table(["", *heads, "accuracy", "ms a product"], rows)
