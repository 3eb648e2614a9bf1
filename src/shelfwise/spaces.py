"""Spaces: which options of a run file a search varies, and the run file that a choice of them makes.

It knows neither how a trial is scored nor which one comes next. A dotted option such as ``recipe.optimiser.clip`` or
``recipe.phases.1.epochs`` leads through tables and, by position from 0, lists.
"""

import copy
import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from shelfwise.config import Range, RunOptions, SearchOptions, make_recipe
from shelfwise.errors import ConfigError
from shelfwise.tomltext import position

#: What a search may vary; anything else would change what trials are scored on.
VARIED = ("recipe", "seed")
#: Trials where a search says nothing, and the grid is not asked for.
TRIALS = 20
#: Values of a stepped range, so that a slip in its step is an error and not a search without an end.
MOST_VALUES = 10_000


def space_problems(run: RunOptions) -> list[str]:
    """Return everything that is wrong with a run's search, one line each; nothing is computed for it."""
    if run.search is None:
        return []
    problems: list[str] = []
    for key, values in run.search.space.items():
        where = f'  search.space."{key}"'
        if key.split(".")[0] not in VARIED or key == "recipe":
            problems.append(
                f"{where}: only seed and options of the recipe, recipe.*, can be searched: with others, trials could "
                "not be compared"
            )
            continue
        if run.search.method == "grid" and isinstance(values, Range) and values.step is None:
            problems.append(f"{where}: a grid needs a list of values, or a range with a step")
        if not isinstance(values, Range) and any(same(a, b) for a, b in itertools.combinations(values, 2)):
            problems.append(f"{where}: a value is there twice")
        if isinstance(values, Range) and values.step is not None and _steps(values) > MOST_VALUES:
            problems.append(f"{where}: {_steps(values):,} steps are too many, {MOST_VALUES:,} at most")
            continue
        for value in ends(values):
            problems += [f"{where}: {line}" for line in _refused(run, key, value)]
    return list(dict.fromkeys(problems))


def _refused(run: RunOptions, key: str, value: Any) -> list[str]:
    """What is wrong with one value of one option, the others as the run file has them."""
    try:
        chosen(run, {key: value})
    except ConfigError as error:
        return [line.strip() for line in str(error).split("\n")]
    return []


def chosen(run: RunOptions, options: Mapping[str, Any]) -> RunOptions:
    """Return the run with these options set, and without its search.

    Raises:
        ConfigError: an option that is not there, or a value that the recipe refuses; one problem a line.
    """
    table: dict[str, Any] = {"seed": run.seed, "recipe": copy.deepcopy(run.recipe)}
    defaults = {"recipe": make_recipe(run.recipe).table()} if "recipe.name" not in options else {}
    for key, value in sorted(options.items(), key=lambda item: item[0] != "recipe.name"):
        put(table, key, value, defaults)
    seed = table["seed"]
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ConfigError(f"seed: is a whole number, 0 or more (got {seed!r})")
    make_recipe(table["recipe"])
    return run.model_copy(update={"seed": seed, "recipe": table["recipe"], "search": None})


def put(table: dict[str, Any], key: str, value: Any, defaults: Mapping[str, Any]) -> None:
    """Set one dotted option of nested tables and lists, in place.

    Args:
        table: the run's table.
        key: such as ``recipe.phases.0.lr``.
        value: what to set.
        defaults: where tables and lists come from that the run leaves out, or writes as a name only.

    Raises:
        ConfigError: the key leads through something that is neither a table nor a list.
    """
    *parents, last = key.split(".")
    at: Any = table
    there: Any = defaults
    for part in parents:
        there = _inside(there, part)
        inner = _inside(at, part)
        if not isinstance(inner, dict | list):
            # A name alone, or nothing: the table with its defaults takes its place.
            inner = copy.deepcopy(_listed(there)) if inner is None or isinstance(there, Mapping) else inner
            inner = {} if inner is None else inner
            _set(at, part, inner, key)
        if not isinstance(inner, dict | list):
            raise ConfigError(f"{key}: {part} is {inner!r}, neither a table nor a list")
        at = inner
    _set(at, last, copy.deepcopy(value), key)


def _listed(value: Any) -> Any:
    """Tables and lists that can be changed."""
    if isinstance(value, Mapping):
        return {key: _listed(inner) for key, inner in value.items()}
    return [_listed(inner) for inner in value] if isinstance(value, list | tuple) else value


def _inside(at: Any, part: str) -> Any:
    if isinstance(at, Mapping):
        return at.get(part)
    if isinstance(at, list | tuple) and part.isdecimal() and int(part) < len(at):
        return at[int(part)]
    return None


def _set(at: Any, part: str, value: Any, key: str) -> None:
    if isinstance(at, list):
        at[position(at, part, key)] = value
    else:
        at[part] = value


def ends(values: Range | Sequence[Any]) -> tuple[Any, ...]:
    """Return what a recipe has to accept for all of the values to be accepted: all of a list, a range's ends."""
    return (values.low, values.high) if isinstance(values, Range) else tuple(values)


def _steps(values: Range) -> int:
    """How many values a stepped range has."""
    assert values.step is not None
    return math.floor((values.high - values.low) / values.step + 1e-9) + 1


def listed(values: Range | Sequence[Any]) -> tuple[Any, ...]:
    """Return every value of a list or of a range with a step."""
    if not isinstance(values, Range):
        return tuple(values)
    step = values.step
    assert step is not None
    whole = all(isinstance(part, int) for part in (values.low, values.high, step))
    numbers = (values.low + k * step for k in range(_steps(values)))
    return tuple(number if whole else float(f"{number:.12g}") for number in numbers)


def grid(search: SearchOptions, seed: int) -> Iterator[dict[str, Any]]:
    """Yield combinations of the grid, each once, in an order drawn by the seed so that any part of it spreads."""
    names = sorted(search.space)
    values = [listed(search.space[name]) for name in names]
    total = math.prod(map(len, values))
    for place in random.Random(seed).sample(range(total), min(total, search.trials or total)):
        choice = {}
        for name, each in zip(names, values, strict=True):
            place, at = divmod(place, len(each))
            choice[name] = each[at]
        yield choice


def how_many(search: SearchOptions) -> int:
    """Return how many trials a search makes."""
    if search.method != "grid":
        return search.trials or TRIALS
    total = math.prod(len(listed(values)) for values in search.space.values())
    return min(total, search.trials or total)


def inside(search: SearchOptions, options: Mapping[str, Any]) -> bool:
    """Whether a trial's options are of this space: the same names, every value one that may be drawn."""
    if set(options) != set(search.space):
        return False
    for name, value in options.items():
        values = search.space[name]
        if not isinstance(values, Range):
            if not any(same(value, each) for each in values):
                return False
        elif isinstance(value, bool) or not isinstance(value, int | float):
            return False
        elif values.step is not None:
            if not any(math.isclose(value, each, rel_tol=1e-9) for each in listed(values)):
                return False
        elif not values.low <= value <= values.high:
            return False
    return True


def same(first: Any, second: Any) -> bool:
    """Equal as TOML has it: 1, 1.0 and true are three values."""
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(itertools.starmap(same, zip(first, second, strict=True)))
    return type(first) is type(second) and first == second
