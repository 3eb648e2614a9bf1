"""Rowwise: products of matrices in single precision, each row of which is the same whatever rows are beside it.

It does not know what is multiplied. A library of linear algebra chooses the order of its additions by the shape of
what it is given and by the number of threads. So rows pass in blocks that are filled up to a multiple of ``LEAST``,
and until the block is no small one for which a library has other kernels; sums are cut into runs of at most ``RUN``
columns, and the runs are added in order. Where ``ROWS`` rows do not make a block large, it passes through double
precision: there the order is gone once the result is rounded.
Legend: N rows, n of a block, K columns that are summed over, M columns of the result, L columns that a row is made of.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
#: Rows of a block are a multiple of ``LEAST`` and at most ``ROWS``: they stay in a processor's cache and keep it busy.
ROWS, LEAST = 256, 8
#: Columns summed over at once.
RUN = 256
#: Multiplications up to which a library may take other kernels than for more (OpenBLAS: a million).
SMALL = 1_050_000


class Rowwise:
    """A matrix that rows are multiplied by.

    Attributes:
        shape: K and M.
    """

    def __init__(self, matrix_KM: Floats) -> None:
        columns, width = self.shape = matrix_KM.shape
        parts = max(1, -(-columns // RUN))
        edges = [columns * part // parts for part in range(parts + 1)]
        rows = -(-SMALL // max(columns // parts * width, 1))
        double = rows > ROWS
        self._rows = LEAST if double else -(-rows // LEAST) * LEAST
        self._runs = [slice(0, columns)] if double else [slice(*pair) for pair in pairwise(edges)]
        self._matrix = matrix_KM.astype(np.float64) if double else matrix_KM

    def product(self, rows_NL: Floats, prepare: Callable[[Floats], Floats] | None = None) -> Floats:
        """Return float32 [N, M].

        Args:
            rows_NL: the rows; few enough for the result to be held.
            prepare: makes [n, K] of a block [n, L], row by row; the last rows of one may be zeros.
        """
        found_NM = np.empty((len(rows_NL), self.shape[1]), np.float32)
        for start in range(0, len(rows_NL), ROWS):
            block_nL = rows_NL[start : start + ROWS]
            count = len(block_nL)
            filled = max(-(-count // LEAST) * LEAST, self._rows)
            if filled > count:
                fill = np.zeros((filled - count, block_nL.shape[1]), np.float32)
                block_nL = np.concatenate([block_nL, fill])
            block_nK = block_nL if prepare is None else prepare(block_nL)
            found_NM[start : start + count] = self._of(block_nK)[:count]
        return found_NM

    def _of(self, block_nK: Floats) -> npt.NDArray[np.floating]:
        block_nK = block_nK.astype(self._matrix.dtype, copy=False)
        first, *others = self._runs
        found_nM: npt.NDArray[np.floating] = block_nK[:, first] @ self._matrix[first]
        more_nM = np.empty_like(found_nM) if others else found_nM
        for run in others:
            found_nM += np.matmul(block_nK[:, run], self._matrix[run], out=more_nM)
        return found_nM
