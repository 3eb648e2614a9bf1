"""The log of answers: every cell that was answered by itself, one JSON object a line.

It knows answers and promises, no files. Only cells that hold an answer are in it; a copied stated value is none.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from shelfwise.answers import STATES, Answers
from shelfwise.trust.promise import Promise

HOLDING = [STATES.index("answered"), STATES.index("not applicable")]


def log_lines(answers: Answers, promise: Promise | None, rows: npt.NDArray[np.int64], bundle: str) -> str:
    """Return the lines of answers: ``row, id, category, attribute, value, probability, threshold, bundle, time``.

    A Number has ``low``, ``high`` and ``coverage`` in place of ``probability`` and ``threshold``.

    Args:
        answers: of some rows of a table.
        promise: the thresholds; ``None`` where there is no promise.
        rows: positions of the rows in the whole table.
        bundle: SHA-256 of the bundle.
    """
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    end = f', "bundle": "{bundle}", "time": "{now}"}}'
    begin = [
        f'{{"row": {row + 1}, "id": {json.dumps(id_, ensure_ascii=False)}, '
        for row, id_ in zip(rows.tolist(), answers.ids, strict=True)
    ]
    lines = [
        (row, begin[row] + text + end) for row, text in (*_choices(answers, promise), *_numbers(answers))
    ]
    lines.sort(key=lambda line: line[0])
    return "".join(f"{line}\n" for _, line in lines)


def _choices(answers: Answers, promise: Promise | None) -> Iterator[tuple[int, str]]:
    for block in answers.blocks:
        category = json.dumps(block.category, ensure_ascii=False)
        for column, choice in enumerate(answers.taxonomy.choices(block.category)):
            threshold = None if promise is None else promise.threshold((block.category, choice.name))
            if threshold is not None and not np.isfinite(threshold):
                threshold = None
            name = json.dumps(choice.name, ensure_ascii=False)
            values = [json.dumps(value, ensure_ascii=False) for value in choice.values]
            said = f', "threshold": {json.dumps(threshold)}'
            at = np.flatnonzero(np.isin(block.state[:, column], HOLDING) & (block.codes[:, column] >= 0))
            for row, code, probability in zip(
                block.rows[at].tolist(),
                block.codes[at, column].tolist(),
                block.probability[at, column].tolist(),
                strict=True,
            ):
                yield (
                    row,
                    f'"category": {category}, "attribute": {name}, "value": {values[code]}, '
                    f'"probability": {probability:.6f}{said}',
                )


def _numbers(answers: Answers) -> Iterator[tuple[int, str]]:
    category = {row: block.category for block in answers.blocks for row in block.rows.tolist()}
    for item in answers.amounts:
        for at in np.flatnonzero(np.isin(item.state, HOLDING) & np.isfinite(item.value)).tolist():
            row = int(item.rows[at])
            stated = {
                "category": category.get(row),
                "attribute": item.name,
                "value": float(item.value[at]),
                "low": _or_none(item.low[at]),
                "high": _or_none(item.high[at]),
                "coverage": item.coverage,
            }
            yield row, json.dumps(stated, ensure_ascii=False)[1:-1]


def _or_none(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None
