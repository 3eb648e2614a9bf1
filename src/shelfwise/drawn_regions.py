"""Drawn regions: where each attribute is seen in the pictures of a rendered catalogue.

Knows nothing of models. The pictures are drawn once more, in memory, and nothing is written; the same arguments as
``rendering.render_catalog`` was given tell of the same pictures. What a heat map should point at is known here.

A region is what was painted for an attribute and is not covered by anything painted later, or the place where it
would be seen: cloth for colour and print; sleeves, their ends and the bare arms of a garment without any; the neckline
and its edge; the hem; the outline; borders, pallu, blouse. An attribute whose value is not drawn anywhere, such as an
everyday occasion or a surface without trimmings, has none.
Legend: H height, W width.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import numpy as np
import numpy.typing as npt
from PIL import Image

from shelfwise.drawings import Regions, draw_product
from shelfwise.rendering import plan


@dataclass(frozen=True, eq=False)
class Drawn:
    """One picture and what is seen where.

    Attributes:
        id: the product's.
        split: ``train`` or ``test``.
        category: the product's.
        values: its true values, by attribute.
        regions: bool [H, W] by attribute.
        cloth: bool [H, W], the whole garment: where its colour is seen.
    """

    id: str
    split: str
    category: str
    values: dict[str, str]
    regions: dict[str, npt.NDArray[np.bool_]]
    cloth: npt.NDArray[np.bool_]


def drawn_regions(
    *, products: int = 1500, seed: int = 0, size: tuple[int, int] = (240, 320)
) -> Iterator[Drawn]:
    """Yield every picture of a rendered catalogue that can be opened, copies of another product's left out.

    Args:
        products, seed, size: as ``render_catalog`` was given them.
    """
    for row in plan(products, seed):
        if row.unreadable or row.source is not None:
            continue
        told = Regions()
        draw_product(row.line.category, row.true, Random(row.seed), told)
        masks = {name: _scaled(mask, size) for name, mask in told.masks().items()}
        kept = {name: masks[name] for name in row.line.attributes if name in masks and masks[name].any()}
        yield Drawn(str(row.id), row.split, row.line.category, dict(row.true), kept, masks["color"])


def _scaled(mask: Image.Image, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    return np.asarray(mask.resize(size, Image.Resampling.BOX)) >= 128
