"""Pictures of products drawn from their attribute values; knows nothing of ids, files, labels or tables."""

from collections.abc import Mapping
from random import Random

from PIL import Image

from shelfwise.drawings.garments import garment_of, wear
from shelfwise.drawings.regions import Regions
from shelfwise.drawings.sarees import drape
from shelfwise.drawings.stages import Scene, backdrop, hide, person, sparkle

__all__ = ["Regions", "draw_product"]


def draw_product(
    category: str, values: Mapping[str, str], rng: Random, regions: Regions | None = None
) -> Image.Image:
    """Photograph one product: an RGB picture of 480 x 640 pixels that shows its attribute values.

    Args:
        category: one of the five categories of `shelfwise.rendering`.
        values: attribute name -> value; every attribute of the category, `default` included.
        rng: all variation (pose, stage, light, shade, things in the way) comes from here and nowhere else.
        regions: new ones, to be told where each attribute is seen.

    Raises:
        KeyError: a value or a category that cannot be drawn.
    """
    occasion = values.get("occasion") or values.get("ocassion", "daily")
    regions = Regions() if regions is None else regions
    scene = Scene.set_up(category, rng, backdrop(rng, occasion, regions), regions)
    if category == "Sarees":
        drape(scene, values)
    else:
        person(scene, category)
        wear(scene, garment_of(category, values, rng))
    if occasion in ("party", "wedding"):
        sparkle(scene)
    picture = scene.finish()
    bare = picture.copy()
    hide(picture, rng)
    regions.hide(bare, picture)
    return picture
