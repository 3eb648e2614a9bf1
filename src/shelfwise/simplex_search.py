"""The simplex, searched coarse to fine for the weights of several members that are worth most.

It does not know what the members are, nor what makes weights good. Nothing is drawn at random.
Legend: J members.
"""

import itertools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]
#: Steps of the search: the first is the grid's, the others are moves from one member to another.
GRID, MOVES = 4, (0.125, 0.0625, 0.03125)
#: Most points of the first grid; with more members than that allows, it starts from the corners.
MOST_POINTS = 500


def best_on_simplex(members: int, worth: Callable[[tuple[float, ...]], float]) -> Float:
    """Return [J], the weights worth most that a grid and ever smaller moves find; equal ones before others as good.

    Args:
        members: how many weights, with a sum of 1.
        worth: what weights are worth; asked once for each.
    """
    known: dict[tuple[float, ...], float] = {}

    def worth_once(weight_J: tuple[float, ...]) -> float:
        if weight_J not in known:
            known[weight_J] = worth(weight_J)
        return known[weight_J]

    best = max(_grid(members), key=worth_once)
    for step in MOVES:
        better = True
        while better:
            near = [_moved(best, i, j, step) for i, j in itertools.permutations(range(members), 2)]
            found = max([best, *(w for w in near if w is not None)], key=worth_once)
            better = worth_once(found) > worth_once(best)
            best = found
    return np.asarray(best)


def _grid(members: int) -> list[tuple[float, ...]]:
    """Points all over the simplex, equal weights first: of equal worth the first is taken."""
    points = [(1 / members,) * members]
    corners = [tuple(float(i == j) for i in range(members)) for j in range(members)]
    found = [
        tuple(np.bincount(parts, minlength=members) / GRID)
        for parts in itertools.islice(
            itertools.combinations_with_replacement(range(members), GRID), MOST_POINTS + 1
        )
    ]
    return points + [tuple(map(float, p)) for p in (found if len(found) <= MOST_POINTS else corners)]


def _moved(weight_J: tuple[float, ...], source: int, target: int, step: float) -> tuple[float, ...] | None:
    """Weights with a step of one member's given to another; ``None`` where it has not that much."""
    if weight_J[source] < step - 1e-12:
        return None
    moved = list(weight_J)
    moved[source], moved[target] = round(max(moved[source] - step, 0.0), 12), round(moved[target] + step, 12)
    return tuple(moved)
