"""Mixing: mixup and cutmix of pictures of one category, for training only.

It does not know losses: which two pictures were mixed, and in which shares, goes on as a ``Mixed``, and each side's
missing labels stay missing. Legend: B pictures of a batch, H and W their pixels, A attributes.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from shelfwise.config import Options
from shelfwise.errors import UsageError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Mixed:
    """Which pictures of a batch were mixed into each other.

    Attributes:
        partner_B: long, the row of the picture mixed in; its own where there is none.
        share_B: float, the share of the picture itself; 1 where nothing was mixed in.
    """

    partner_B: torch.Tensor
    share_B: torch.Tensor

    def to(self, device: torch.device | str) -> "Mixed":
        """Return the same on another device."""
        return Mixed(self.partner_B.to(device, non_blocking=True), self.share_B.to(device, non_blocking=True))


class Mixing(Options):
    """How pictures are mixed; nothing is by default.

    Attributes:
        mixup: alpha of the Beta(alpha, alpha) that shares are drawn from (Zhang et al. 2018); 0 for none.
        cutmix: the same for a pasted rectangle (Yun et al. 2019); with both, each picture draws one of them.
        probability: the share of pictures that are mixed.
        fading: alpha falls in proportion to the part of training that is left, so that the last steps see pictures as
            they are; training on clean pictures at the end closes the gap that mixing opens (He et al. 2019).
    """

    mixup: float = Field(default=0.0, ge=0)
    cutmix: float = Field(default=0.0, ge=0)
    probability: float = Field(default=0.5, ge=0, le=1)
    fading: bool = False

    def apply(
        self,
        images_BHWC: torch.Tensor,
        category_B: torch.Tensor,
        labels_BA: torch.Tensor,
        *,
        seed: int,
        progress: float = 0.0,
    ) -> tuple[torch.Tensor, Mixed | None]:
        """Mix a batch; see ``mix``.

        Args:
            images_BHWC: pictures.
            category_B: their categories.
            labels_BA: -1 where missing.
            seed: of every draw.
            progress: how much of training is done, from 0 to 1.
        """
        left = 1 - min(max(progress, 0.0), 1.0) if self.fading else 1.0
        mixup, cutmix = self.mixup * left, self.cutmix * left
        if not (mixup or cutmix) or not self.probability:
            return images_BHWC, None
        return mix(
            images_BHWC,
            category_B,
            labels_BA,
            mixup=mixup,
            cutmix=cutmix,
            probability=self.probability,
            seed=seed,
        )


def mix(
    images_BHWC: torch.Tensor,
    category_B: torch.Tensor,
    labels_BA: torch.Tensor,
    *,
    mixup: float,
    cutmix: float,
    probability: float,
    seed: int,
) -> tuple[torch.Tensor, Mixed]:
    """Return pictures with others of their category mixed in, and which.

    Partners are drawn within the category among the pictures that have any label; one that is alone, or has no
    label, stays as it is. Order and draws come from the seed and the batch alone.

    Args:
        images_BHWC: uint8 or float.
        category_B: long.
        labels_BA: long, -1 where missing.
        mixup, cutmix: alpha of each, 0 for none.
        probability: the share of pictures that get a partner.
        seed: of every draw.
    """
    if mixup < 0 or cutmix < 0 or not 0 <= probability <= 1:
        raise UsageError(
            f"mixup={mixup}, cutmix={cutmix}: no alpha is negative, and {probability} is a share"
        )
    draw, count = np.random.default_rng(seed), len(images_BHWC)
    own_B = np.arange(count)
    chosen_B = draw.random(count) < (probability if mixup or cutmix else 0)
    cut_B = draw.random(count) < (0.5 if mixup and cutmix else float(cutmix > 0))
    alpha_B = np.where(cut_B, cutmix or 1.0, mixup or 1.0)
    share_B, order_B, at_2B = draw.beta(alpha_B, alpha_B), draw.random(count), draw.random((2, count))
    usable_B = (labels_BA >= 0).any(dim=1).cpu().numpy()
    partner_B = _partners(category_B.cpu().numpy(), usable_B, order_B)
    chosen_B &= partner_B != own_B
    partner_B, share_B = np.where(chosen_B, partner_B, own_B), np.where(chosen_B, share_B, 1.0)
    mixed_BHWC = images_BHWC.float() if images_BHWC.dtype == torch.uint8 else images_BHWC.clone()
    for which_B, change in (chosen_B & ~cut_B, _blend), (chosen_B & cut_B, _paste):
        rows = np.flatnonzero(which_B)
        if len(rows):
            share_B[rows] = change(
                mixed_BHWC, images_BHWC, rows, partner_B[rows], share_B[rows], at_2B[:, rows]
            )
    device = images_BHWC.device
    return mixed_BHWC, Mixed(
        torch.from_numpy(partner_B).to(device), torch.from_numpy(share_B).float().to(device)
    )


def _partners(category_B: Ints, usable_B: npt.NDArray[np.bool_], order_B: Floats) -> Ints:
    """Each usable picture's successor in a random circle of its category; others are their own."""
    partner_B = np.arange(len(category_B))
    rows = np.flatnonzero(usable_B)
    rows = rows[np.lexsort((order_B[rows], category_B[rows]))]
    if len(rows):
        codes = category_B[rows]
        first = np.r_[True, codes[1:] != codes[:-1]]
        start = np.flatnonzero(first)
        following = np.arange(1, len(rows) + 1)
        following[np.r_[start[1:] - 1, len(rows) - 1]] = start
        partner_B[rows] = rows[following]
    return partner_B


def _blend(
    mixed_BHWC: torch.Tensor, images_BHWC: torch.Tensor, rows: Ints, others: Ints, share_n: Floats, _: Floats
) -> Floats:
    """Write weighted means into some rows."""
    device = images_BHWC.device
    here, there = (torch.from_numpy(which).to(device) for which in (rows, others))
    share_n111 = torch.from_numpy(share_n).float().to(device)[:, None, None, None]
    mixed_BHWC[here] = torch.lerp(images_BHWC[there].float(), images_BHWC[here].float(), share_n111)
    return share_n


def _paste(
    mixed_BHWC: torch.Tensor,
    images_BHWC: torch.Tensor,
    rows: Ints,
    others: Ints,
    share_n: Floats,
    at_2n: Floats,
) -> Floats:
    """Write rectangles of others into some rows, and return the shares that are left, counted in pixels."""
    inside = []
    for size, at_n in zip(images_BHWC.shape[1:3], at_2n, strict=True):
        length_n = np.round(np.sqrt(1 - share_n) * size)
        start_n = np.floor(at_n * size) - length_n // 2
        at = np.arange(size)[None, :]
        inside.append((at >= start_n[:, None]) & (at < (start_n + length_n)[:, None]))
    cut_nHW = inside[0][:, :, None] & inside[1][:, None, :]
    device = images_BHWC.device
    here, there = (torch.from_numpy(which).to(device) for which in (rows, others))
    pasted_nHW1 = torch.from_numpy(cut_nHW).to(device)[..., None]
    mixed_BHWC[here] = torch.where(pasted_nHW1, images_BHWC[there].to(mixed_BHWC.dtype), mixed_BHWC[here])
    left_n: Floats = 1 - cut_nHW.mean(axis=(1, 2))
    return left_n
