"""Draws: numbers drawn for pictures by their seeds, and the types of options that say what may be drawn.

They do not know what is done with a number. Legend: B pictures.
"""

from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field

Array = np.ndarray[Any, Any]


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"goes from the smaller to the larger number, not from {pair[0]} to {pair[1]}")
    return pair


Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Range = Annotated[tuple[Positive, Positive], AfterValidator(_ascending)]
Shares = Annotated[tuple[Share, Share], AfterValidator(_ascending)]
Strength = Annotated[float, Field(ge=0, lt=1)]
Quality = Annotated[int, Field(ge=1, le=95)]
Qualities = Annotated[tuple[Quality, Quality], AfterValidator(_ascending)]


class Draws:
    """Numbers drawn for pictures, each from the picture's seed and the name of what is drawn.

    Args:
        seeds_B: int64.
    """

    def __init__(self, seeds_B: Array) -> None:
        self.seeds_B = scramble(seeds_B.astype(np.int64).view(np.uint64))

    def bits(self, name: str) -> Array:
        """Return uint64 [B], such as seeds of further draws."""
        salt = np.uint64(int.from_bytes(name.encode()[:64], "little") % (2**61 - 1))
        return scramble(self.seeds_B ^ scramble(np.full(1, salt, np.uint64)))

    def between(self, name: str, low: float, high: float) -> Array:
        """Return float64 [B], even between two numbers."""
        result: Array = low + (self.bits(name) >> np.uint64(11)) * 2.0**-53 * (high - low)
        return result

    def happens(self, name: str, probability: float) -> Array:
        """Return bool [B], true with a probability."""
        result: Array = self.between(f"{name}?", 0, 1) < probability
        return result


def scramble(bits: Array) -> Array:
    """The output function of SplitMix64 (Steele, Lea and Flood 2014), on uint64 arrays, which wrap."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: Array = bits ^ (bits >> np.uint64(31))
    return result
