"""Saliency: where in a photo the answer of a probe comes from, by contrast with other products of the category.

It does not know tables, nor how a map is shown. A probe's features hold the averages of every stage's map, so what a
channel holds at a place is its part of the answer (class activation mapping, Zhou et al. 2016,
https://arxiv.org/abs/1512.04150). Such a map by itself points anywhere: heads on frozen features weigh channels that
cancel out. So a channel counts at a place

- as far as the heads weigh it, for the answer against the other values in proportion to their probability,
- as far as products with this answer differ there from the others by more than twice the standard error,
- and as far as this photo is on their side of the middle: not at all to twice.

A place counts as far as all channels there together tell products with this answer from the others, by a ridge
regression that scores each product by what the others teach. And it counts as far as its colour is unlike what lies
along the photo's upper and side edges: a photo of a catalogue has its product in the middle, and what is behind it does
not speak for a value.

Measured on the demo catalogue: ``docs/design/0039-heat-maps.md``. Look-alikes' votes are not part of the map.
Legend: n reference products, C channels of all levels used, D features, G places a side, v values of an attribute.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter

from shelfwise.data.images import read_bytes
from shelfwise.errors import ImageError, UsageError
from shelfwise.models.backbones import Backbone, build_backbone
from shelfwise.predictions import Predictor
from shelfwise.recipes.experts import Expert
from shelfwise.recipes.parts import PartsPredictor
from shelfwise.recipes.probe_predictor import ProbePredictor

if TYPE_CHECKING:
    from torch import Tensor

Floats = npt.NDArray[np.float64]
Half = npt.NDArray[np.float16]
#: Places a side of a map.
GRID = 20
#: A level is used whose places are at most this many pixels wide, and at least: finer ones see no more than a dot.
COARSEST, FINEST = 16, 4
#: Differences below this many standard errors count as none.
ERRORS = 2.0
#: Distance of two colours, of 0 to 1 a channel, from which on they are wholly unlike; places of the edge compared with,
#: the most alike ones; places that everything is smoothed over (standard deviation).
UNLIKE, NEAREST, SMOOTH = 0.2, 3, 0.7
#: Penalty of the regression at a place, as a share of the mean square of a product's channels there; what a place that
#: tells nothing counts all the same; places regressed at once, which bounds memory.
PENALTY, NOTHING, PLACES = 0.3, 1e-3, 40
#: Reference products with an answer, and with other answers, that a contrast needs.
FEWEST = 3
#: Added to the spread of a channel, and to the average that a slope is taken at.
RIDGE, SMALL = 1e-2, 1e-3


@dataclass(frozen=True, eq=False)
class Looking:
    """A probe's backbone and image expert, ready to draw maps.

    Attributes:
        backbone: reads photos.
        expert: the heads.
        channels: int64 [C], where in the features the averages of the maps' channels are.
        levels: which stages those are of.
    """

    backbone: Backbone
    expert: Expert
    channels: npt.NDArray[np.int64]
    levels: tuple[int, ...]

    @classmethod
    def of(cls, predictor: Predictor) -> "Looking":
        """Prepare a predictor.

        Raises:
            UsageError: it is no probe of photos on a backbone that keeps its stages' averages.
            MissingExtra: torch is not installed.
        """
        inner = predictor.choices if isinstance(predictor, PartsPredictor) else predictor
        if not isinstance(inner, ProbePredictor) or "image" not in inner.experts:
            raise UsageError(
                "heat maps are drawn of what a probe says of photos (recipe 'probe' with choice_inputs 'image'), "
                f"and this bundle answers by a {type(inner).__name__}"
            )
        spec = inner.recipe.backbone
        backbone = build_backbone(spec)
        size = backbone.preprocess.size
        if backbone.preprocess.fit != "stretch" or backbone.preprocess.crop_fraction != 1:
            raise UsageError(
                f"heat maps need a backbone that sees the whole photo, fit = 'stretch', not {spec}"
            )
        stages = _stages(backbone, np.zeros((*size, 3), np.uint8))
        starts = np.cumsum([0, *(stage.shape[1] for stage in stages)])
        levels = tuple(
            at for at, stage in enumerate(stages) if FINEST <= size[0] / stage.shape[2] <= COARSEST + 1
        )
        channels = np.concatenate([np.arange(starts[at], starts[at + 1]) for at in levels])
        return cls(backbone, inner.experts["image"], channels, levels)

    def maps(self, path: Path) -> Half:
        """Return float16 [C, G, G], what the channels hold at each place of a photo.

        Raises:
            ImageError: it cannot be read.
        """
        import torch

        stages = _stages(self.backbone, self.backbone.preprocess.array(read_bytes(path)))
        scaled = []
        for at in self.levels:
            side = stages[at].shape[2]
            if side >= GRID:
                scaled.append(torch.nn.functional.adaptive_avg_pool2d(stages[at], GRID))
            else:
                scaled.append(torch.nn.functional.interpolate(stages[at], (GRID, GRID), mode="bilinear"))
        found: Half = torch.cat(scaled, 1)[0].half().numpy()
        return found

    def foreground(self, path: Path) -> Floats:
        """Return float64 [G, G], 0 to 1, how unlike the photo's edge each place is.

        Raises:
            ImageError: it cannot be read.
        """
        return unlike_edge(self.backbone.preprocess.array(read_bytes(path)))


def unlike_edge(image_HWC: npt.NDArray[np.uint8]) -> Floats:
    """Return float64 [G, G], 0 to 1, how unlike the colour of each place is to the nearest ones along the edge."""
    small = Image.fromarray(image_HWC).resize((GRID, GRID), Image.Resampling.BOX)
    colours_GG3 = np.asarray(small, np.float64) / 255
    edge_GG = np.ones((GRID, GRID), bool)
    edge_GG[1:, 1:-1] = False  # the lower edge is left out: products run off it
    apart_GGE = np.linalg.norm(colours_GG3[:, :, None] - colours_GG3[edge_GG], axis=3)
    apart_GG = np.sqrt(np.mean(np.sort(apart_GGE, axis=2)[:, :, :NEAREST] ** 2, axis=2))
    found: Floats = gaussian_filter(np.minimum(apart_GG / UNLIKE, 1), SMOOTH, mode="nearest")
    return found


def _stages(backbone: Backbone, image_HWC: npt.NDArray[np.uint8]) -> "list[Tensor]":
    import torch

    from shelfwise.models.towers import Tower, one_thread

    if not isinstance(backbone.module, Tower):
        raise UsageError(f"heat maps are drawn of networks with stages, and {backbone.name} has none")
    with one_thread(), torch.inference_mode():
        return backbone.module.stage_maps(torch.from_numpy(image_HWC.copy()[None]))


@dataclass(frozen=True, eq=False)
class Contrast:
    """Reference products of one category.

    Attributes:
        maps: float16 [n, C, G, G].
        codes: int32 [n, A], their values, -1 for unknown.
    """

    maps: Half
    codes: npt.NDArray[np.int32]
    _told: dict[tuple[int, int], tuple[Floats, Floats]] = field(default_factory=dict)
    _telling: dict[tuple[int, int], Floats] = field(default_factory=dict)

    @classmethod
    def learn(
        cls, looking: Looking, photos: Sequence[Path | None], codes_nA: npt.NDArray[np.int32]
    ) -> "Contrast":
        """Read the references' photos; those that cannot be read are left out."""
        maps, kept = [], []
        for at, path in enumerate(photos):
            try:
                if path is not None:
                    maps.append(looking.maps(path))
                    kept.append(at)
            except ImageError:
                continue
        shape = (len(looking.channels), GRID, GRID)
        return cls(np.stack(maps) if maps else np.zeros((0, *shape), np.float16), codes_nA[kept])

    def of(self, attribute: int, value: int) -> "tuple[Floats, Floats, Floats, Floats] | None":
        """Return the mean of products with a value, of those with others, the spread and the error of the difference.

        All float64 [C, G, G]; ``None`` where there are too few of either.
        """
        code_n = self.codes[:, attribute]
        with_n, without_n = code_n == value, (code_n >= 0) & (code_n != value)
        if min(with_n.sum(), without_n.sum()) < FEWEST:
            return None
        if (attribute, value) not in self._told:
            with_CGG = self.maps[with_n].mean(axis=0, dtype=np.float64)
            self._told[attribute, value] = with_CGG, self.maps[without_n].mean(axis=0, dtype=np.float64)
        with_CGG, without_CGG = self._told[attribute, value]
        error_CGG = self.spread * np.sqrt(1 / with_n.sum() + 1 / without_n.sum())
        return with_CGG, without_CGG, self.spread, error_CGG

    def telling(self, attribute: int, value: int) -> Floats:
        """Return float64 [G, G], how well each place tells products with a value from those with others.

        It is the difference of their mean scores, each product scored by a ridge regression on the channels at the
        place that did not see it (leave-one-out in closed form: Allen 1974, PRESS); 0 where it is below.
        """
        if (attribute, value) not in self._telling:
            self._telling[attribute, value] = self._told_apart(attribute, value)
        return self._telling[attribute, value]

    def _told_apart(self, attribute: int, value: int) -> Floats:
        code_n = self.codes[:, attribute]
        known_n = code_n >= 0
        with_n = code_n == value
        target_n = np.where(known_n, with_n - with_n[known_n].mean(), 0.0).astype(np.float32)
        scores_Pn = self._hats @ target_n
        own_Pn = np.diagonal(self._hats, axis1=1, axis2=2)
        left_out_Pn = (scores_Pn - own_Pn * target_n) / np.maximum(1 - own_Pn, 1e-3)
        apart_P = left_out_Pn[:, with_n].mean(axis=1) - left_out_Pn[:, known_n & ~with_n].mean(axis=1)
        found_P: Floats = np.maximum(apart_P.astype(np.float64), 0)
        return found_P.reshape(GRID, GRID)

    @cached_property
    def _hats(self) -> npt.NDArray[np.float32]:
        """What a ridge regression at each place makes of targets, float32 [G * G, n, n]."""
        import torch

        from shelfwise.models.towers import one_thread

        maps_nCP = torch.from_numpy(self.maps).flatten(2).float()
        maps_nCP = maps_nCP - maps_nCP.mean(dim=0)
        maps_nCP /= maps_nCP.std(dim=(0, 2), correction=0)[:, None] + SMALL
        count, channels, places = maps_nCP.shape
        hats_Pnn = np.empty((places, count, count), np.float32)
        with one_thread():
            for start in range(0, places, PLACES):
                part_pnC = maps_nCP[:, :, start : start + PLACES].permute(2, 0, 1).contiguous()
                gram_pnn = part_pnC @ part_pnC.transpose(1, 2) / channels
                penalty_p = PENALTY * gram_pnn.diagonal(dim1=1, dim2=2).mean(dim=1) + SMALL
                penalised_pnn = gram_pnn + penalty_p[:, None, None] * torch.eye(count)
                hats_Pnn[start : start + PLACES] = torch.linalg.solve(penalised_pnn, gram_pnn).numpy()
        return hats_Pnn

    @cached_property
    def spread(self) -> Floats:
        """The standard deviation of every channel at every place, float64 [C, G, G]."""
        found: Floats = self.maps.std(axis=0, dtype=np.float64) + RIDGE
        return found

    @cached_property
    def average(self) -> Floats:
        """The mean of every channel, float64 [C]."""
        found: Floats = self.maps.mean(axis=(0, 2, 3), dtype=np.float64)
        return found

    def weigh(self, looking: Looking, head_rv: Floats, probs_v: Floats, value: int) -> Floats:
        """Return float64 [C], how much each channel's average moves the answer against the other values."""
        others_v = probs_v.copy()
        others_v[value] = 0
        others_v /= max(others_v.sum(), 1e-12)
        space, at = looking.expert.space, looking.channels
        pull_C = (
            space.axes[at].astype(np.float64) @ (head_rv[:, value] - head_rv @ others_v) / space.scale[at]
        )
        slope_C = 0.5 / np.sqrt(np.abs(self.average) + SMALL)  # the features are square roots of averages
        weights_C: Floats = np.abs(pull_C) * slope_C
        return weights_C


def draw(
    looking: Looking,
    contrast: Contrast,
    head_rv: Floats,
    probs_v: Floats,
    place: tuple[int, int],
    map_CGG: Half,
    foreground_GG: Floats,
) -> npt.NDArray[np.float32] | None:
    """Return float32 [G, G], how much each place of a photo speaks for a value, the most 1; ``None`` where unknown.

    Args:
        looking: the backbone.
        contrast: references of the category.
        head_rv: the attribute's weights.
        probs_v: what the answer says of each value.
        place: the attribute's position, and the value's.
        map_CGG: of the photo.
        foreground_GG: of the photo, as ``unlike_edge`` returns it.
    """
    found = contrast.of(*place)
    if found is None:
        return None
    with_CGG, without_CGG, spread_CGG, error_CGG = found
    difference_CGG = with_CGG - without_CGG
    sure_CGG = np.maximum(np.abs(difference_CGG) - ERRORS * error_CGG, 0)
    side_CGG = (map_CGG - (with_CGG + without_CGG) / 2) * np.sign(difference_CGG) / spread_CGG
    weights_C = contrast.weigh(looking, head_rv, probs_v, place[1])
    heat_GG = (weights_C[:, None, None] * sure_CGG * (1 + np.clip(side_CGG, -1, 1))).sum(axis=0)
    heat_GG = gaussian_filter(heat_GG, SMOOTH, mode="nearest")
    heat_GG *= gaussian_filter(contrast.telling(*place), SMOOTH, mode="nearest") + NOTHING
    heat_GG *= foreground_GG
    most = heat_GG.max()
    return None if most <= 0 else (heat_GG / most).astype(np.float32)
