"""Beside: what a network that reads texts is given beside the pictures of a batch.

It knows no network and no listings: texts are token ids, or what a text tower that is not trained has made of them.
Legend: N products, B of one batch, T tokens, E features of a text, W of a token, S tokens of all texts end to end.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Beside:
    """Texts of a batch, and which pictures are there.

    Attributes:
        mask_BT: bool, which tokens are no filling; a row that is all filling has no text.
        ids_BT: long, token ids.
        text_BE, tokens_BTW: float, vectors of texts and tokens, instead of ids.
        shown_B: bool, which products have a picture; ``None`` for all.
    """

    mask_BT: torch.Tensor
    ids_BT: torch.Tensor | None = None
    text_BE: torch.Tensor | None = None
    tokens_BTW: torch.Tensor | None = None
    shown_B: torch.Tensor | None = None

    def to(self, device: str | torch.device, non_blocking: bool = True) -> "Beside":
        """Return the same on a device."""
        moved = {
            each.name: value.to(device, non_blocking=non_blocking)
            for each in fields(self)
            if (value := getattr(self, each.name)) is not None
        }
        return replace(self, **moved)


@dataclass(frozen=True, eq=False)
class Tokens:
    """The texts of N products as token ids.

    Attributes:
        ids: int32 [N, T].
        mask: bool [N, T], which of them are no filling; all false where there is no text.
        fixed: every batch has T tokens; else as many as its longest text.
    """

    ids: NDArray[np.int32]
    mask: NDArray[np.bool_]
    fixed: bool = False

    def take(self, rows: Ints) -> Beside:
        """Return those of some products."""
        mask_nT = self.mask[rows]
        most = mask_nT.shape[1] if self.fixed else max(1, int(mask_nT.sum(axis=1).max(initial=1)))
        ids_nT = self.ids[rows][:, :most].astype(np.int64)
        return Beside(torch.from_numpy(mask_nT[:, :most].copy()), torch.from_numpy(ids_nT))


@dataclass(frozen=True, eq=False)
class Vectors:
    """The texts of N products as a text tower that is not trained reads them.

    Attributes:
        texts: float32 [N, E].
        tokens: float16 [S, W], those of all texts end to end.
        starts: int64 [N + 1], where each text's begin; none where there is no text.
    """

    texts: NDArray[np.float32]
    tokens: NDArray[np.float16]
    starts: Ints

    def take(self, rows: Ints) -> Beside:
        """Return those of some products."""
        lengths_n = self.starts[rows + 1] - self.starts[rows]
        mask_nT = np.arange(max(1, int(lengths_n.max(initial=1))))[None, :] < lengths_n[:, None]
        tokens_nTW = np.zeros((*mask_nT.shape, self.tokens.shape[1]), np.float32)
        for at, row in enumerate(rows.tolist()):
            tokens_nTW[at, : lengths_n[at]] = self.tokens[self.starts[row] : self.starts[row + 1]]
        parts = (torch.from_numpy(each) for each in (self.texts[rows], tokens_nTW))
        return Beside(torch.from_numpy(mask_nT), None, *parts)
