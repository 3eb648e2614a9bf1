"""Parity: how near an engine comes to torch in float32 on fixed pictures.

It knows no engine: vectors in, figures out.

Legend: N pictures, H height, W width, D features.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Vectors = NDArray[np.float32]

#: Least cosine and greatest relative distance to torch float32, by precision, that pass the parity check.
TOLERANCE: Mapping[str, tuple[float, float]] = {
    "f32": (0.99999, 0.001),
    "bf16": (0.999, 0.05),
    "f16": (0.999, 0.05),
}


@dataclass(frozen=True)
class Parity:
    """How near an engine came to torch float32 on the probe pictures.

    Attributes:
        cosine: the least cosine between the two vectors of a picture.
        relative: the greatest length of their difference, over the length of the reference.
        pictures: how many were compared.
    """

    cosine: float
    relative: float
    pictures: int


def probe_pictures(size: tuple[int, int]) -> Images:
    """Return the pictures of the parity check, uint8 [6, H, W, 3]: gradients, shapes, texture, noise."""
    height, width = size
    y_HW, x_HW = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    ring_HW = np.hypot(y_HW - 0.5, x_HW - 0.45) < 0.3
    stripes_HW = np.sin(40 * x_HW) > 0
    noise_HWC = np.random.default_rng(20260501).random((height, width, 3))
    one_HW = np.ones_like(x_HW)
    pictures = [
        np.stack([x_HW, y_HW, 1 - x_HW], -1),
        np.stack([one_HW, one_HW - 0.8 * ring_HW, one_HW - 0.5 * ring_HW], -1),
        np.stack([0.2 + 0.7 * stripes_HW, 0.4 * one_HW, 0.9 * y_HW], -1),
        noise_HWC,
        0.5 + 0.4 * np.sin(9 * np.stack([x_HW + y_HW, x_HW * y_HW, y_HW], -1)) + 0.1 * noise_HWC,
        np.stack([(x_HW * 8 % 1 > 0.5) ^ (y_HW * 8 % 1 > 0.5)] * 3, -1) * 0.9,
    ]
    images: Images = np.round(255 * np.clip(np.stack(pictures), 0, 1)).astype(np.uint8)
    return images


def compare(found_ND: Vectors, reference_ND: Vectors) -> Parity:
    """Return how near vectors come to their reference, the worst picture counting."""
    a_ND, b_ND = found_ND.astype(np.float64), reference_ND.astype(np.float64)
    lengths_N = np.maximum(np.linalg.norm(b_ND, axis=1), 1e-12)
    product_N = np.maximum(np.linalg.norm(a_ND, axis=1), 1e-12) * lengths_N
    cosine_N = (a_ND * b_ND).sum(1) / product_N
    relative_N = np.linalg.norm(a_ND - b_ND, axis=1) / lengths_N
    return Parity(float(np.min(cosine_N)), float(np.max(relative_N)), len(found_ND))


def passes(parity: Parity, precision: str) -> bool:
    """Return whether a parity is within ``TOLERANCE``; anything not a number fails."""
    cosine, relative = TOLERANCE[precision]
    return parity.cosine >= cosine and parity.relative <= relative
