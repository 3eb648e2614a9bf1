"""Rows are answered alike whatever is beside them: products in single precision, and rows that show one file."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from conftest import Toy
from shelfwise.bundle import load
from shelfwise.predictions import Machine
from shelfwise.recipes.rowwise import Rowwise

SHAPES = [(700, 300), (515, 64), (64, 7), (3, 2), (300, 1)]


@pytest.mark.parametrize(("columns", "width"), SHAPES)
def test_a_row_is_the_same_in_any_company_and_order(columns: int, width: int) -> None:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((columns, width)).astype(np.float32)
    rows = rng.standard_normal((600, columns)).astype(np.float32)
    product = Rowwise(matrix)
    whole = product.product(rows)
    assert whole == pytest.approx(rows.astype(float) @ matrix.astype(float), rel=1e-4, abs=1e-3)
    for some in ([7], [599, 3], list(range(31)), list(range(257)), rng.permutation(600).tolist()):
        assert np.array_equal(product.product(rows[some]), whole[some])
    assert np.array_equal(Rowwise(np.ascontiguousarray(matrix.T).T).product(rows), whole)
    assert np.array_equal(Rowwise(matrix).product(rows / 2, lambda block: block * 2), whole)
    assert product.product(rows[:0]).shape == (0, width)


def test_a_row_is_the_same_with_any_number_of_threads() -> None:
    program = (
        "import hashlib, numpy as np\n"
        "from shelfwise.recipes.rowwise import Rowwise\n"
        "draw = np.random.default_rng(0)\n"
        "matrix = draw.standard_normal((2000, 300)).astype(np.float32)\n"
        "rows = draw.standard_normal((300, 2000)).astype(np.float32)\n"
        "print(hashlib.sha256(Rowwise(matrix).product(rows).tobytes()).hexdigest())\n"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"OPENBLAS_NUM_THREADS": threads, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(found) == 1


def test_rows_that_show_one_file_are_answered_as_each_alone(toy: Toy, saved: Path, machine: Machine) -> None:
    bundle = load(saved)
    frame = pl.read_csv(toy.table, infer_schema=False).head(12)
    names = pl.Series("category", ["" if at % 5 == 4 else name for at, name in enumerate(frame["category"])])
    once = frame.with_columns(names)
    shown = once.with_columns(pl.col("image").gather([0, 1, 0, 3, 0, 1, 6, 6, 8, 0, 1, 3]))
    both = bundle.answer(bundle.read(shown, images=toy.directory), machine=machine)
    for row in range(shown.height):
        alone = bundle.answer(bundle.read(shown[[row]], images=toy.directory), machine=machine)
        assert alone.of(0) == both.of(row)
        assert (0 in alone.errors) == (row in both.errors)
