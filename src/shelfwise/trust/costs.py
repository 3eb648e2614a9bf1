"""Costs: what each wrong answer costs, read from a table.

It does not know how decisions are made.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shelfwise.errors import ConfigError, suggest
from shelfwise.tables import read_table
from shelfwise.taxonomy import Taxonomy

NEEDED = ("attribute", "truth", "answer", "cost")


def read_costs(
    path: str | Path, taxonomy: Taxonomy
) -> Mapping[tuple[str, str], tuple[tuple[float, ...], ...]]:
    """Read a table of costs: ``attribute, truth, answer, cost`` and, optionally, ``category``.

    What is not listed costs 1 where it is wrong and 0 where it is right. A row without a category holds for
    every category that has the attribute.

    Returns:
        By (category, attribute), the cost of answering a value (column) where another is true (row), in the
        values' order; only attributes that the table names.

    Raises:
        ConfigError: a missing column, an unknown name or a cost that is not a number, with the row.
    """
    frame = read_table(path).frame
    lost = [name for name in NEEDED if name not in frame.columns]
    if lost:
        raise ConfigError(f"{path}: costs need the columns {', '.join(NEEDED)}; {', '.join(lost)} not found")
    tables: dict[tuple[str, str], npt.NDArray[np.float64]] = {}
    for number, row in enumerate(frame.iter_rows(named=True), start=1):
        category, attribute = str(row.get("category") or ""), str(row["attribute"])
        pairs = [
            (name, choice)
            for name, choice in taxonomy.pairs()
            if choice.name == attribute and category in ("", name)
        ]
        if not pairs:
            known = [choice.name for _, choice in taxonomy.pairs()]
            hint = suggest(attribute, known)
            where = f" in {category!r}" if category else ""
            raise ConfigError(f"{path}, row {number}: no attribute {attribute!r}{where}. {hint}".rstrip())
        try:
            cost = float(row["cost"])
        except (TypeError, ValueError):
            cost = float("nan")
        if not np.isfinite(cost) or cost < 0:
            raise ConfigError(f"{path}, row {number}: a cost is a number of 0 or more, not {row['cost']!r}")
        there = False
        for name, choice in pairs:
            if str(row["truth"]) in choice.codes and str(row["answer"]) in choice.codes:
                size, there = len(choice.values), True
                table = tables.setdefault((name, attribute), 1.0 - np.eye(size))
                table[choice.codes[str(row["truth"])], choice.codes[str(row["answer"])]] = cost
        if not there:
            raise ConfigError(
                f"{path}, row {number}: {attribute!r} has not both values {row['truth']!r} and {row['answer']!r}"
            )
    return {name: tuple(map(tuple, table.tolist())) for name, table in tables.items()}
