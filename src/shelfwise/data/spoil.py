"""Spoil: training pictures made worse as bad photographs are: dark, tinted, noisy, compressed.

It does not know labels, or what else happens to a picture. ``benchmarks/robustness.py`` measures what it is worth.
Legend: B pictures as planes C (red, green, blue), n those that something happens to, h and w the pixels.
"""

import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image

from shelfwise.config import Options
from shelfwise.data.draws import Draws, Probability, Qualities, Range, Shares, Strength

Array = np.ndarray[Any, Any]
#: What can happen, in this order.
SPOILS = ("dark", "cast", "noise", "jpeg")


class Dark(Options):
    """Too little light: ``brightness`` is the share of it that is left."""

    probability: Probability = 0.0
    brightness: Shares = (0.25, 0.8)


class Cast(Options):
    """Light of another colour: each channel up to ``strength`` stronger or weaker."""

    probability: Probability = 0.0
    strength: Strength = 0.3


class Noise(Options):
    """Gaussian noise of each pixel and channel; ``sigma`` is in grey levels, of 255."""

    probability: Probability = 0.0
    sigma: Range = (2.0, 15.0)


class Jpeg(Options):
    """Compressed once more, at a low ``quality``."""

    probability: Probability = 0.0
    quality: Qualities = (15, 60)


class Spoil(Options):
    """What may be wrong with a photo, each with a probability; nothing by default.

    On a short fine-tune (fashion, one seed), each and ``blur`` on a fifth of the pictures scored +0.001 [-0.023, 0.026]
    on photos as they are and +0.00 to +0.02 on spoilt ones; a promise of 0.9 kept 0.89 to 0.92 on these, without 0.86
    to 0.89.

    Attributes:
        dark, cast: of the light.
        noise, jpeg: of camera and file.
    """

    dark: Dark = Dark()
    cast: Cast = Cast()
    noise: Noise = Noise()
    jpeg: Jpeg = Jpeg()

    def apply(self, planes_BChw: torch.Tensor, draws: Draws, did: dict[str, Array]) -> torch.Tensor:
        """Return the pictures, spoilt, and fill in what happened to which.

        Args:
            planes_BChw: float32 from 0 to 255.
            draws: of these pictures.
            did: per name in ``SPOILS``, bool [B]; filled in.
        """
        did.update({name: draws.happens(name, getattr(self, name).probability) for name in SPOILS})
        if did["dark"].any() or did["cast"].any():
            gains_BC11 = torch.from_numpy(self._gains(draws, did)).to(planes_BChw)[:, :, None, None]
            planes_BChw = (planes_BChw * gains_BC11).clamp_(0, 255)
        for name, change in (("noise", self._noisy), ("jpeg", self._compressed)):
            rows = np.flatnonzero(did[name])
            if len(rows):
                which = torch.from_numpy(rows).to(planes_BChw.device)
                planes_nChw = torch.stack(list(change(planes_BChw[which].cpu(), draws, rows)))
                planes_BChw = planes_BChw.index_copy(0, which, planes_nChw.to(planes_BChw.device))
        return planes_BChw

    def _gains(self, draws: Draws, did: dict[str, Array]) -> Array:
        """Return float64 [B, C], how much of each channel is left."""
        low, high = (math.log(share) for share in self.dark.brightness)
        light_B = np.where(did["dark"], draws.between("dark", low, high), 0)
        most = math.log1p(self.cast.strength)
        tint_CB = np.where(did["cast"], [draws.between(f"cast.{c}", -most, most) for c in "rgb"], 0)
        return np.asarray(np.exp(light_B + tint_CB).T)

    def _noisy(self, planes_nChw: torch.Tensor, draws: Draws, rows: Array) -> Iterator[torch.Tensor]:
        sigma_n, seed_n = draws.between("noise", *self.noise.sigma)[rows], draws.bits("noise.seed")[rows]
        for planes_Chw, sigma, seed in zip(planes_nChw, sigma_n.tolist(), seed_n.tolist(), strict=True):
            drawn = np.random.default_rng(seed).standard_normal(tuple(planes_Chw.shape), np.float32)
            yield (planes_Chw + sigma * torch.from_numpy(drawn)).clamp_(0, 255)

    def _compressed(self, planes_nChw: torch.Tensor, draws: Draws, rows: Array) -> Iterator[torch.Tensor]:
        low, high = self.jpeg.quality
        quality_n = np.floor(draws.between("jpeg", low, high + 1))[rows]
        for planes_Chw, quality in zip(planes_nChw, quality_n.tolist(), strict=True):
            image_hwC = planes_Chw.permute(1, 2, 0).round().byte().contiguous().numpy()
            file = io.BytesIO()
            Image.fromarray(image_hwC).save(file, "JPEG", quality=int(quality))
            again_hwC = np.array(Image.open(file).convert("RGB"))
            yield torch.from_numpy(again_hwC).permute(2, 0, 1).float()
