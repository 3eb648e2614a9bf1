"""Augment: photos changed at random for training, each by its own seed.

It does not know files, batches or networks, and evaluation never calls it. What is drawn for a picture depends on
that picture's seed alone, not on the pictures beside it. Crop, flip, rotation, affine change and perspective are one
warp of the picture, composed as a 3 x 3 matrix; brightness, contrast, saturation and hue are one colour matrix.
Legend: B pictures, n those that something happens to, H and W the pixels that come in, h and w those that go out,
K draws, A attributes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from shelfwise.config import Options
from shelfwise.data.draws import Draws, Probability, Range, Shares, Strength
from shelfwise.data.mixing import Mixed, Mixing, mix
from shelfwise.data.spoil import Spoil
from shelfwise.data.warp import blur, colour_matrices, homographies, recolour, warp
from shelfwise.errors import UsageError, suggest
from shelfwise.taxonomy import Taxonomy

__all__ = ["Augment", "Augmented", "Mixed", "Mixing", "mix"]


#: Changes that are composed into one warp.
GEOMETRIC = ("crop", "flip", "rotate", "affine", "perspective")


class Crop(Options):
    """A part of the picture, brought to the size that is asked for.

    Attributes:
        probability: of happening to a picture.
        scale: the share of the area that is kept.
        ratio: how many times wider, for its height, the part is than the picture.
    """

    probability: Probability = 1.0
    scale: Shares = (0.8, 1.0)
    ratio: Range = (0.9, 1.11)


class Flip(Options):
    """Left and right exchanged."""

    probability: Probability = 0.5


class Rotate(Options):
    """A turn by up to ``degrees`` either way."""

    probability: Probability = 0.0
    degrees: Annotated[float, Field(ge=0, le=180)] = 10.0


class Affine(Options):
    """The picture moved, scaled and sheared.

    Attributes:
        probability: of happening to a picture.
        translate: up to this share of width and height, either way.
        scale: how many times larger things get.
        shear: degrees, either way, along the width.
    """

    probability: Probability = 0.0
    translate: Strength = 0.1
    scale: Range = (0.9, 1.1)
    shear: Annotated[float, Field(ge=0, le=60)] = 5.0


class Perspective(Options):
    """Seen from the side: each corner comes from up to ``distortion`` times half a side further in."""

    probability: Probability = 0.0
    distortion: Strength = 0.1


class Colour(Options):
    """Brightness, contrast, saturation and hue, drawn together.

    Attributes:
        probability: of happening to a picture.
        brightness, contrast, saturation: each a factor between 1 less and 1 plus this.
        hue: up to this share of the colour circle, either way.
    """

    probability: Probability = 0.0
    brightness: Strength = 0.2
    contrast: Strength = 0.2
    saturation: Strength = 0.2
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0


class Blur(Options):
    """A Gaussian blur; ``sigma`` is in pixels that go out."""

    probability: Probability = 0.0
    sigma: Range = (0.1, 1.5)


class Erase(Options):
    """A rectangle of one random colour (after Zhong et al. 2020).

    Attributes:
        probability: of happening to a picture.
        scale: its share of the area.
        ratio: its width over its height.
    """

    probability: Probability = 0.0
    scale: Shares = (0.02, 0.2)
    ratio: Range = (0.3, 3.3)


Names = tuple[str, ...]


class Exclude(Options):
    """Attributes that a change makes unsure: their labels are left out where it happened to a picture.

    An attribute is written as ``attribute`` for every category that has it, or as ``category/attribute``. ``hue`` is
    of pictures whose hue was shifted, ``colour`` of all whose colours were changed.
    """

    crop: Names = ()
    flip: Names = ()
    rotate: Names = ()
    affine: Names = ()
    perspective: Names = ()
    colour: Names = ()
    hue: Names = ()
    blur: Names = ()
    erase: Names = ()
    dark: Names = ()
    cast: Names = ()
    noise: Names = ()
    jpeg: Names = ()


@dataclass(frozen=True, eq=False)
class Augmented:
    """Changed pictures, and what happened to which.

    Attributes:
        images_BHWC: float32 from 0 to 255 (a view of planes: channels are not the innermost in memory).
        did: per name in ``Exclude``, bool [B].
    """

    images_BHWC: torch.Tensor
    did: Mapping[str, torch.Tensor]


class Augment(Options):
    """What may happen to a training picture; by default a light crop and a flip.

    Attributes:
        crop, flip, rotate, affine, perspective: of the geometry.
        colour, blur, erase: of the pixels.
        spoil: what bad photographs have: little light, a colour cast, noise, compression.
        exclude: attributes whose labels a change makes unsure.
    """

    crop: Crop = Crop()
    flip: Flip = Flip()
    rotate: Rotate = Rotate()
    affine: Affine = Affine()
    perspective: Perspective = Perspective()
    colour: Colour = Colour()
    blur: Blur = Blur()
    erase: Erase = Erase()
    spoil: Spoil = Spoil()
    exclude: Exclude = Exclude()

    def apply(
        self, images_BHWC: torch.Tensor, size: tuple[int, int], seeds_B: torch.Tensor | np.ndarray[Any, Any]
    ) -> Augmented:
        """Return changed pictures of one size.

        A picture of which no part is cut out goes in whole, whatever its shape. What lies beyond an edge continues
        the edge: nothing is black that was not.

        Args:
            images_BHWC: uint8 pictures of one size.
            size: (h, w) of what goes out.
            seeds_B: int64, one for each picture; equal seeds draw equal changes.
        """
        if images_BHWC.ndim != 4 or images_BHWC.shape[3] != 3:
            raise UsageError(f"pictures are [B, H, W, 3], not {list(images_BHWC.shape)}")
        if len(seeds_B) != len(images_BHWC):
            raise UsageError(f"{len(images_BHWC)} pictures need a seed each, not {len(seeds_B)}")
        draws = Draws(torch.as_tensor(seeds_B).cpu().numpy())
        did: dict[str, np.ndarray[Any, Any]] = {}
        device, count = images_BHWC.device, len(images_BHWC)
        planes_BCHW = images_BHWC.permute(0, 3, 1, 2).float()
        matrices = self._geometry(draws, did, planes_BCHW.shape[2] / planes_BCHW.shape[3])
        if matrices is None and tuple(planes_BCHW.shape[2:]) != tuple(size):
            matrices = np.tile(np.eye(3), (count, 1, 1))
        if matrices is not None:
            least = math.sqrt(self.crop.scale[0]) if self.crop.probability else 1.0
            planes_BCHW = warp(planes_BCHW, torch.from_numpy(matrices).to(device), size, least)
        planes_BCHW = self._pixels(planes_BCHW, draws, did)
        return Augmented(
            planes_BCHW.permute(0, 2, 3, 1),
            {name: torch.from_numpy(which).to(device) for name, which in did.items()},
        )

    def _geometry(
        self, draws: "Draws", did: dict[str, np.ndarray[Any, Any]], aspect: float
    ) -> np.ndarray[Any, Any] | None:
        """Fill in what happens, and return float64 [B, 3, 3] from what goes out to what comes in, both -1 to 1."""
        chances = {name: getattr(self, name).probability for name in GEOMETRIC}
        did.update({name: draws.happens(name, chance) for name, chance in chances.items()})
        # By what may happen, not by what does: a picture must not depend on what is drawn for its neighbours.
        if not any(chances.values()):
            return None
        draw, crop, affine = draws.between, self.crop, self.affine
        log_low, log_high = (math.log(value) for value in crop.ratio)
        area, ratio = draw("crop.area", *crop.scale), np.exp(draw("crop.ratio", log_low, log_high))
        wide, tall = (np.minimum(np.sqrt(area * r), 1.0) for r in (ratio, 1 / ratio))
        return homographies(
            crop=np.where(
                did["crop"],
                [wide, tall, (1 - wide) * draw("crop.x", -1, 1), (1 - tall) * draw("crop.y", -1, 1)],
                [[1.0], [1.0], [0.0], [0.0]],
            ),
            flip=did["flip"],
            turn=np.where(
                did["rotate"], np.radians(draw("turn", -self.rotate.degrees, self.rotate.degrees)), 0
            ),
            scale=np.where(did["affine"], draw("scale", *affine.scale), 1),
            shear=np.where(did["affine"], np.tan(np.radians(draw("shear", -affine.shear, affine.shear))), 0),
            move=np.where(
                did["affine"], [2 * affine.translate * draw(f"move.{axis}", -1, 1) for axis in "xy"], 0
            ),
            corners=np.where(
                did["perspective"],
                [draw(f"corner.{k}", 0, self.perspective.distortion) for k in range(8)],
                0,
            ),
            aspect=aspect,
        )

    def _pixels(
        self, planes_BChw: torch.Tensor, draws: "Draws", did: dict[str, np.ndarray[Any, Any]]
    ) -> torch.Tensor:
        """Fill in what happens to colours, sharpness and rectangles, and do it."""
        colour, device = self.colour, planes_BChw.device
        did["colour"] = draws.happens("colour", colour.probability)
        did["hue"] = did["colour"] & (colour.hue > 0)
        did["blur"] = draws.happens("blur", self.blur.probability)
        did["erase"] = draws.happens("erase", self.erase.probability)
        if colour.probability:
            factors = {
                name: np.where(did["colour"], 1 + draws.between(name, -1, 1) * getattr(colour, name), 1)
                for name in ("brightness", "contrast", "saturation")
            }
            hue = np.where(did["hue"], draws.between("hue", -colour.hue, colour.hue), 0)
            planes_BChw = recolour(planes_BChw, *colour_matrices(hue=hue, **factors))
        if did["blur"].any():
            rows = np.flatnonzero(did["blur"])
            sigma_n = torch.from_numpy(draws.between("sigma", *self.blur.sigma)[rows]).to(device)
            which = torch.from_numpy(rows).to(device)
            planes_BChw = planes_BChw.index_copy(
                0, which, blur(planes_BChw[which], sigma_n, self.blur.sigma[1])
            )
        if did["erase"].any():
            planes_BChw = self._erase(planes_BChw, draws, did["erase"])
        return self.spoil.apply(planes_BChw, draws, did)

    def _erase(
        self, planes_BChw: torch.Tensor, draws: "Draws", which_B: np.ndarray[Any, Any]
    ) -> torch.Tensor:
        """Paint a rectangle on some pictures."""
        height, width = planes_BChw.shape[2:]
        low, high = (math.log(value) for value in self.erase.ratio)
        area_B, ratio_B = (
            draws.between("erase.area", *self.erase.scale),
            np.exp(draws.between("erase.ratio", low, high)),
        )
        inside = []
        for name, size, stretch_B in (("y", height, 1 / ratio_B), ("x", width, ratio_B)):
            length_B = np.clip(np.round(np.sqrt(area_B * height * width * stretch_B)), 1, size)
            start_B = np.floor(draws.between(f"erase.{name}", 0, 1) * (size - length_B + 1))
            at = np.arange(size)[None, :]
            inside.append((at >= start_B[:, None]) & (at < (start_B + length_B)[:, None]))
        hole_B1hw = (inside[0] & which_B[:, None])[:, None, :, None] & inside[1][:, None, None, :]
        ink_BC11 = np.stack([draws.between(f"erase.{c}", 0, 255) for c in "rgb"], axis=1)[:, :, None, None]
        device = planes_BChw.device
        return torch.where(
            torch.from_numpy(hole_B1hw).to(device), torch.from_numpy(ink_BC11).float().to(device), planes_BChw
        )

    def excluded(
        self, did: Mapping[str, torch.Tensor], category_B: torch.Tensor, taxonomy: Taxonomy
    ) -> torch.Tensor:
        """Return bool [B, most attributes of any category], where a label is no longer sure.

        Args:
            did: of ``Augmented``.
            category_B: codes; below 0 for none.
            taxonomy: categories and attributes.
        """
        most = max((len(taxonomy.choices(name)) for name in taxonomy.categories), default=0)
        unsure_BA = torch.zeros(len(category_B), most, dtype=torch.bool, device=category_B.device)
        for change, names in self.exclude.model_dump().items():
            if not names:
                continue
            for code in torch.unique(category_B).tolist():
                if code < 0:
                    continue
                category = taxonomy.categories[code]
                lost = [
                    choice.name in names or f"{category}/{choice.name}" in names
                    for choice in taxonomy.choices(category)
                ]
                if any(lost):
                    which_B1 = (did[change] & (category_B == code))[:, None]
                    unsure_BA[:, : len(lost)] |= which_B1 & torch.tensor(lost, device=category_B.device)
        return unsure_BA

    def masked(
        self,
        labels_BA: torch.Tensor,
        did: Mapping[str, torch.Tensor],
        category_B: torch.Tensor,
        taxonomy: Taxonomy,
    ) -> torch.Tensor:
        """Return the labels, -1 where ``excluded``."""
        unsure_BA = self.excluded(did, category_B, taxonomy)
        return labels_BA.masked_fill(unsure_BA[:, : labels_BA.shape[1]], -1)

    def check(self, taxonomy: Taxonomy) -> None:
        """Make sure that every attribute in ``exclude`` is one.

        Raises:
            UsageError: it is not; the message has the nearest name.
        """
        known = {choice.name for _, choice in taxonomy.pairs()}
        known |= {f"{category}/{choice.name}" for category, choice in taxonomy.pairs()}
        for change, names in self.exclude.model_dump().items():
            for name in names:
                if name not in known:
                    raise UsageError(
                        f"augment.exclude.{change}: no category has the attribute {name!r}. {suggest(name, known)}"
                    )
