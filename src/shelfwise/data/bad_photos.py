"""Bad photos: copies of photos, each spoilt in its light or by its camera, in the cache.

It knows pictures and where their rows keep them, not labels or networks. What happens to a copy is drawn from its
product's id: darkness, a colour cast, blur, compression or noise, one of them, weakly or strongly. A copy is named by
the content of the photo and the id, so it is made once. A photo that cannot be read stays as it is: what is wrong with
it is said where it is read.
"""

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from shelfwise.catalog import Catalog
from shelfwise.data.images import content_digest, open_image, read_bytes
from shelfwise.errors import ImageError
from shelfwise.files import Progress, replacing

Photo = Image.Image
#: What is done to a photo, how much, and what draws the rest.
Change = Callable[[Photo, float, np.random.Generator], Photo]
#: The folder of the cache; the number changes whenever copies come to look different.
FOLDER = "bad-photos-1"


def darkened(photo: Photo, left: float, draw: np.random.Generator) -> Photo:
    """Leave a share of the light."""
    return ImageEnhance.Brightness(photo).enhance(left)


def tinted(photo: Photo, strength: float, draw: np.random.Generator) -> Photo:
    """Make one of the three channels stronger and another one weaker."""
    gains = np.ones(3)
    up, down = draw.permutation(3)[:2]
    gains[up], gains[down] = 1 + strength, 1 / (1 + strength)
    return Image.fromarray(np.clip(np.asarray(photo, np.float64) * gains, 0, 255).astype(np.uint8))


def blurred(photo: Photo, share: float, draw: np.random.Generator) -> Photo:
    """Blur by a share of the shorter side."""
    return photo.filter(ImageFilter.GaussianBlur(share * min(photo.size)))


def compressed(photo: Photo, quality: float, draw: np.random.Generator) -> Photo:
    """Write and read it as a JPEG of a quality."""
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=int(quality))
    return Image.open(file).convert("RGB")


def noisy(photo: Photo, sigma: float, draw: np.random.Generator) -> Photo:
    """Add noise of so many grey levels."""
    found = np.asarray(photo, np.float64) + sigma * draw.standard_normal((photo.height, photo.width, 3))
    return Image.fromarray(np.clip(found, 0, 255).astype(np.uint8))


#: What may happen to a copy, between which strengths.
CHANGES: tuple[tuple[Change, float, float], ...] = (
    (darkened, 0.25, 0.8),
    (tinted, 0.0, 0.4),
    (blurred, 0.002, 0.025),
    (compressed, 8, 60),
    (noisy, 2, 15),
)


def drawn(*parts: str) -> np.random.Generator:
    """Return what draws for a product and an end."""
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def spoilt(photo: Photo, id_: str) -> Photo:
    """Return a photo with one thing wrong, drawn from an id."""
    draw = drawn(id_, "learnt")
    change, low, high = CHANGES[int(draw.integers(len(CHANGES)))]
    return change(photo, draw.uniform(low, high), draw)


def bad_photos(catalog: Catalog, *, cache: Path, progress: Progress | None = None) -> Catalog:
    """Return the same rows with a spoilt copy of each picture.

    Args:
        catalog: the products.
        cache: where copies are kept.
        progress: told how far it is.
    """
    images = list(catalog.images)
    for row, (id_, path) in enumerate(zip(catalog.ids, catalog.images, strict=True)):
        if progress is not None and row % 64 == 0:
            progress("spoiling copies of photos", row, len(images))
        if path is None:
            continue
        try:
            data = read_bytes(path)
            name = hashlib.sha256(content_digest(data) + id_.encode()).hexdigest()[:32]
            copy = cache / FOLDER / name[:2] / f"{name}.jpg"
            if not copy.exists():
                picture = spoilt(open_image(data).image, id_)
                with replacing(copy) as temporary, temporary.open("wb") as file:
                    picture.save(file, "JPEG", quality=95, subsampling=0)
        except ImageError:
            continue
        images[row] = copy
    return replace(catalog, images=tuple(images))
