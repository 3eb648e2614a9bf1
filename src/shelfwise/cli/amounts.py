"""Answers about numbers in words, for the verbs that answer.

They know nothing of options or files.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shelfwise.amounts import AmountAnswers


def range_text(name: str, unit: str, cells: "dict[str, dict[str, Any]]") -> str:
    """One number and its range in words."""
    cell = cells.get(name)
    if cell is None:
        return f"{name}: nothing is known of it here"
    value = cell["value"]
    said = f"{value:,.2f}{unit and ' '}{unit}" if value is not None else cell["state"]
    if cell["low"] is None:
        return f"{name}: {said}"
    each = f"; {cell['unit_price']:,.2f} for {cell['unit']}" if cell.get("unit_price") else ""
    return f"{name}: {said}, {cell['coverage']:.0%} range {cell['low']:,.2f} to {cell['high']:,.2f}{each}"


def amount_text(item: "AmountAnswers") -> str:
    """What became of a Number, in words."""
    import numpy as np

    from shelfwise.answers import STATES

    counts = [(name, int((item.state == at).sum())) for at, name in enumerate(STATES)]
    told = ", ".join(f"{count:,} {name}" for name, count in counts if count)
    known = item.low > 0
    if not known.any():
        return f"{item.name}: {told}"
    times = float(np.median(item.high[known] / item.low[known]))
    return (
        f"{item.name}: {told}; {item.coverage:.0%} ranges, their high end typically {times:.2f} times the low"
    )
