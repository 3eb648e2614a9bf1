"""Halves: vectors as float16, which is how they are kept, and back.

They do not know what computed a vector. Legend: n rows, D features.
"""

import numpy as np
from numpy.typing import NDArray

from shelfwise.errors import EngineError

Half = NDArray[np.float16]
#: Vectors widened together: few enough to stay in a processor's cache.
WIDENED = 64
#: Where a shifted float16 has its sign, and its exponent and fraction.
SIGN_AND_NUMBER = np.int32(0x0FFFE000 - (1 << 31))
#: What the exponents of the two differ by; and a number so small that some programs have processors take it for 0.
APART, SUBNORMAL = np.float32(2.0**112), np.array([2.0**-140], np.float32)


def to_half(vectors: NDArray[np.float32]) -> Half:
    """Round to float16, as vectors are kept.

    Raises:
        EngineError: a number has no place there.
    """
    with np.errstate(over="ignore"):
        half = vectors.astype("<f2")
    if not np.isfinite(half).all():
        raise EngineError("the encoder gives numbers that are not finite or too large for float16")
    return half


def from_half(halves_nD: Half, vectors_nD: NDArray[np.float32]) -> None:
    """Put float16 numbers into float32 ones: the bits that a cast gives, in a quarter of its time.

    A number's sign, exponent and fraction move to where float32 has them; its exponent counts from another zero.
    """
    for start in range(0, len(halves_nD), WIDENED):
        half_nD, found_nD = halves_nD[start : start + WIDENED], vectors_nD[start : start + WIDENED]
        bits_nD = found_nD.view(np.int32)
        bits_nD[:] = half_nD.view("<i2")
        bits_nD <<= 13
        bits_nD &= SIGN_AND_NUMBER
        exact = (SUBNORMAL * APART)[0] > 0
        found_nD *= APART
        # Infinity and NaN have the largest exponent there is: here it is one of many.
        odd_n = (np.abs(found_nD).max(axis=1, initial=0) >= 2.0**16) | (not exact)
        if odd_n.any():
            found_nD[odd_n] = half_nD[odd_n]
