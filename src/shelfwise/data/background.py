"""Background: products cut out of their photos, as copies in the cache.

It knows pictures and where their rows keep them, not labels or networks. The cutting is rembg's (extra ``background``),
or any function from a picture to its cut-out. A copy is named by the content of the photo, the network and the ground,
so it is made once, whatever the photo is called. A photo that cannot be read stays as it is: what is wrong with it is
said where it is read.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from PIL import Image

from shelfwise.catalog import Catalog
from shelfwise.data.images import content_digest, open_image, read_bytes
from shelfwise.errors import ImageError, UsageError, listing, require, suggest
from shelfwise.files import Progress, replacing

#: From a picture on its background to the product: RGBA, or a mask (L) that is white where the product is.
Cut: TypeAlias = Callable[[Image.Image], Image.Image]
#: The networks of rembg whose weights allow commercial use, and their licences. BRIA's ``bria-rmbg`` does not
#: (CC BY-NC 4.0), so it is not here.
MODELS = {
    "u2net": "Apache-2.0",
    "u2netp": "Apache-2.0",
    "u2net_human_seg": "Apache-2.0",
    "isnet-general-use": "Apache-2.0",
    "birefnet-general": "MIT",
    "birefnet-general-lite": "MIT",
}
#: The folder of the cache; the number changes whenever copies come to look different.
FOLDER = "background-1"
WHITE = (255, 255, 255)


def without_background(
    catalog: Catalog,
    *,
    model: str = "u2net",
    ground: tuple[int, int, int] = WHITE,
    cache: Path,
    cut: Cut | None = None,
    progress: Progress | None = None,
) -> Catalog:
    """Return the same rows with pictures whose background is one colour.

    Every picture is treated by itself, so it does not matter which others are there.

    Args:
        catalog: the products.
        model: the network, one of ``MODELS``; rembg fetches its weights when they are first needed, or takes them
            from the folder ``U2NET_HOME``.
        ground: red, green and blue of the new background.
        cache: where copies are kept.
        cut: what cuts a product out, under the name ``model``; by default that network.
        progress: told how far it is.

    Raises:
        MissingExtra: rembg is not installed.
        UsageError: a network that is not allowed, or a cut-out of another size or kind.
    """
    folder = cache / FOLDER / f"{model}-{bytes(ground).hex()}"
    kept: dict[Path, Path] = {}
    files = list(dict.fromkeys(path for path in catalog.images if path is not None))
    for done, path in enumerate(files):
        if progress is not None:
            progress("cutting products out", done, len(files))
        try:
            data = read_bytes(path)
            copy = folder / f"{content_digest(data).hex()}.png"
            if not copy.exists():
                picture = open_image(data).image
                cut = cut or cutter(model)
                _write(copy, _on_ground(picture, cut(picture), ground, path))
        except ImageError:
            continue
        kept[path] = copy
    images = tuple(kept.get(path, path) if path is not None else None for path in catalog.images)
    return replace(catalog, images=images)


def cutter(model: str) -> Cut:
    """Return the function that cuts products out with a network of rembg.

    Raises:
        MissingExtra: rembg is not installed.
        UsageError: a network that is not in ``MODELS``.
    """
    if model not in MODELS:
        hint = suggest(model, MODELS) or f"Known: {listing(MODELS)}."
        reason = " Its weights are for non-commercial use only." if model.startswith("bria") else ""
        raise UsageError(f"background: {model!r} is not among the networks allowed.{reason} {hint}")
    rembg = require("rembg", extra="background")
    session = rembg.new_session(model)

    def cut(picture: Image.Image) -> Image.Image:
        found: Image.Image = rembg.remove(picture, session=session)
        return found

    return cut


def _on_ground(
    picture: Image.Image, cut: Image.Image, ground: tuple[int, int, int], path: Path
) -> Image.Image:
    """The product alone on a plain ground; the photo's own pixels, the mask of the cut-out."""
    if cut.size != picture.size or cut.mode not in ("RGBA", "LA", "L"):
        raise UsageError(
            f"{path}: the cut-out is {cut.mode} of {cut.size}, not RGBA or L of {picture.size} like its photo"
        )
    mask = cut if cut.mode == "L" else cut.getchannel("A")
    return Image.composite(picture, Image.new("RGB", picture.size, ground), mask)


def _write(path: Path, picture: Image.Image) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        picture.save(file, format="PNG")
