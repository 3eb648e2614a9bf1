"""Decoding: our open_image and pixels against plain Pillow, side by side; prints one line of JSON.

Shop-photo-like JPEGs (a textured product on a softly lit ground, little sensor noise; quality 85) of 1 and 4
megapixels (squares, as marketplaces ask for), to 224 x 224. Entropy decoding cannot be skipped, so the
ratio falls with the bits a pixel has: these are stated beside it.
"""

import io
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shelfwise.data.images import open_image, pixels

SIDE = 224
ROUNDS = 9


def photo_like(width: int, height: int, seed: int) -> bytes:
    """Return a JPEG of a textured product, about half of the picture, on a softly lit ground."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    picture = np.repeat((236 - 14 * y + 6 * x)[..., None], 3, axis=2)
    inside = (np.abs(x / 0.75) ** 3 + np.abs(y / 0.85) ** 3 < 1)[..., None]
    product = np.ones((height, width, 3)) * rng.integers(60, 180, 3).astype(np.float64)
    for cells, strength in ((4, 40), (16, 25), (64, 12), (256, 8)):
        coarse = (rng.normal(0, strength, (cells, cells, 1)) + rng.normal(0, 3, (cells, cells, 3))) + 128
        small = Image.fromarray(coarse.clip(0, 255).astype(np.uint8))
        layer = small.resize((width, height), Image.Resampling.BICUBIC)
        product = product + np.asarray(layer, dtype=np.float64) - 128
    picture = np.where(inside, product, picture) + rng.normal(0, 1, picture.shape)
    buffer = io.BytesIO()
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def ours(data: bytes) -> NDArray[np.uint8]:
    """Decode with this library."""
    return pixels(open_image(data, target=SIDE), (SIDE, SIDE))


def plain(data: bytes) -> NDArray[np.uint8]:
    """Decode with Pillow alone."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def seconds(function: Callable[[bytes], NDArray[np.uint8]], files: list[bytes]) -> float:
    """Return the seconds per picture of one pass."""
    start = time.perf_counter()
    for data in files:
        function(data)
    return (time.perf_counter() - start) / len(files)


def main() -> dict[str, float | str]:
    """Run both ways in turn and return medians and ratios."""
    result: dict[str, float | str] = {"benchmark": "decode"}
    for name, (width, height), count in (("1mpx", (1000, 1000), 6), ("4mpx", (2000, 2000), 3)):
        files = [photo_like(width, height, seed) for seed in range(count)]
        gaps = [np.abs(ours(data).astype(int) - plain(data)).mean() for data in files]
        pairs = [(seconds(ours, files), seconds(plain, files)) for _ in range(ROUNDS)]
        result[f"ratio_{name}"] = round(statistics.median(slow / fast for fast, slow in pairs), 2)
        result[f"ours_ms_{name}"] = round(1000 * statistics.median(fast for fast, _ in pairs), 2)
        result[f"pillow_ms_{name}"] = round(1000 * statistics.median(slow for _, slow in pairs), 2)
        result[f"difference_{name}"] = round(float(np.mean(gaps)), 3)
        result[f"kilobytes_{name}"] = round(sum(map(len, files)) / len(files) / 1000, 1)
        result[f"bits_a_pixel_{name}"] = round(8 * sum(map(len, files)) / len(files) / width / height, 2)
    return result


if __name__ == "__main__":
    print(json.dumps(main()))
