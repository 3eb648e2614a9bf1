"""The torch modules of a pair: a picture's tower, a text's tower, and what is put between them.

They know nothing of where weights, pictures or tokens come from. Importing it imports torch, so only functions do.

Legend: B products, H height, W width, T tokens, D features of the picture, C channels of its map, h and w the map's
sides, E features of the text, P positions that ask, U width of each side, F features of both.
"""

from typing import Any

import torch
from torch import Tensor, nn

from shelfwise.data.beside import Beside
from shelfwise.models.towers import layer_groups


class PairTower(nn.Module):
    """Two towers and what puts their features together.

    Attributes:
        image: pictures to a vector [B, D] and, where it has one, a map [B, C, h, w].
        text: token ids and mask to a vector [B, E] and token vectors.
        fusion: ``Concat`` or ``Attention``.
        hide: the share of training products whose picture is hidden from the fusion, and likewise the text.
        width: features of a token.
    """

    def __init__(self, image: nn.Module, text: nn.Module, fusion: nn.Module, hide: float) -> None:
        super().__init__()
        self.text, self.image, self.fusion, self.hide = text, image, fusion, hide
        self.width = int(text.width)  # type: ignore[arg-type]

    @property
    def towers(self) -> tuple[nn.Module, nn.Module]:
        """The networks of the picture and of the text."""
        return self.image, self.text

    def forward(self, images_BHWC: Tensor, beside: Beside | None = None) -> Tensor:
        """Return float32 features of both [B, F]; see ``look``."""
        return self.look(images_BHWC, beside)[1]

    def look(
        self, images_BHWC: Tensor, beside: Beside | None = None, *, as_map: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return the features of the pictures alone, [B, D] or [B, C, h, w], and those of both, float32 [B, F].

        Args:
            images_BHWC: RGB, uint8 or float in 0..255.
            beside: the texts, and which pictures are there; left out where there are no texts and all pictures. The
                features alone of a picture that is not there are 0.
            as_map: give the map of the pictures instead of their vector.
        """
        if beside is None:
            beside = Beside(images_BHWC.new_zeros((len(images_BHWC), 1), dtype=torch.bool))
        shown_B, mask_BT = beside.shown_B, beside.mask_BT
        vector_BD, map_BChw = self._seen(images_BHWC, shown_B, as_map or isinstance(self.fusion, Attention))
        said_B = mask_BT.any(dim=1)
        text_BE, tokens_BTW = self.read(beside)
        seen_B = torch.ones_like(said_B) if shown_B is None else shown_B
        if self.training and self.hide:
            drawn_B = torch.rand(len(said_B), device=said_B.device)
            seen_B, said_B = seen_B & (drawn_B >= self.hide), said_B & (drawn_B < 1 - self.hide)
        both_BF = self.fusion(vector_BD, map_BChw, seen_B, text_BE, tokens_BTW, mask_BT, said_B)
        alone = map_BChw if as_map and map_BChw is not None else vector_BD
        return alone, both_BF.float()

    def read(self, beside: Beside) -> tuple[Tensor, Tensor]:
        """Return vectors [B, E] and token vectors [B, T, W] of the texts; of one that is not there, some."""
        if beside.text_BE is not None and beside.tokens_BTW is not None:
            return beside.text_BE, beside.tokens_BTW
        if beside.ids_BT is None:
            fusion: Any = self.fusion
            none_BT = beside.mask_BT.float()
            return none_BT[:, :1].expand(-1, fusion.text.dimension), none_BT[..., None].expand(
                -1, -1, self.width
            )
        first_BT = torch.zeros_like(beside.mask_BT)
        first_BT[:, 0] = ~beside.mask_BT.any(dim=1)  # attention over nothing is not a number
        text_BE, tokens_BTW = self.text(beside.ids_BT, beside.mask_BT | first_BT)
        return text_BE, tokens_BTW

    def feature_map(self, images_BHWC: Tensor) -> Tensor:
        """Return the map of the pictures, float32 [B, C, h, w]."""
        image: Any = self.image
        found: Tensor = image.feature_map(images_BHWC)
        return found

    def _seen(
        self, images_BHWC: Tensor, shown_B: Tensor | None, mapped: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return vector and, if asked for and there is one, map of the pictures; only those that are there are run."""
        if shown_B is None:
            return self._run(images_BHWC, mapped)
        rows = shown_B.nonzero().flatten()
        if self.training and not len(
            rows
        ):  # the one learnt question is asked as often as there are positions, or once
            fusion: Any = self.fusion
            return images_BHWC.new_zeros(
                (len(images_BHWC), fusion.image.dimension), dtype=torch.float32
            ), None
        # One picture is run even where none is there, for its shape; nobody gets to see what comes of it.
        some = rows if len(rows) else rows.new_zeros(1)
        vector_bD, map_bChw = self._run(images_BHWC[some], mapped)

        def spread(found: Tensor) -> Tensor:
            every = found.new_zeros((len(images_BHWC), *found.shape[1:]))
            return every.index_copy(0, rows, found[: len(rows)])

        return spread(vector_bD), None if map_bChw is None else spread(map_bChw)

    def _run(self, images_BHWC: Tensor, mapped: bool) -> tuple[Tensor, Tensor | None]:
        image: Any = self.image
        if not mapped or (isinstance(self.fusion, Attention) and self.fusion.positions is None):
            return image(images_BHWC), None
        if hasattr(image, "vector_and_map"):
            vector_BD, map_BChw = image.vector_and_map(images_BHWC)
            return vector_BD, map_BChw
        return image(images_BHWC), image.feature_map(images_BHWC)

    def parts_in_order(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """(name, parameter names): ``text.*``, then ``image.*``, each from its stem to its last layer; ``fusion``."""
        groups: list[tuple[str, tuple[str, ...]]] = []
        for side in ("text", "image"):
            for name, names in layer_groups(getattr(self, side)):
                groups.append((f"{side}.{name}", tuple(f"{side}.{each}" for each in names)))
        fusion = tuple(f"fusion.{name}" for name, _ in self.fusion.named_parameters())
        return (*groups, ("fusion", fusion))


class Side(nn.Module):
    """One vector of a pair brought to the width of both, or the learnt state where there is none.

    Args:
        dimension: of the vector.
        width: U; 0 for the vector itself, brought to length 1.
        dropout: of what comes out.
    """

    def __init__(self, dimension: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dimension, self.width = dimension, width or dimension
        self.project: nn.Module | None = None
        if width:
            self.project = nn.Sequential(
                nn.Linear(dimension, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout)
            )
        self.none = nn.Parameter(torch.randn(self.width) * self.width**-0.5)

    def forward(self, vector_BD: Tensor, there_B: Tensor) -> Tensor:
        """Return [B, U] of vectors and whether there is one."""
        if self.project is None:
            found_BU = nn.functional.normalize(vector_BD.float(), dim=1)
        else:
            found_BU = self.project(vector_BD)
        return torch.where(there_B[:, None], found_BU, self.none.to(found_BU.dtype))


class Concat(nn.Module):
    """Both vectors side by side.

    Args:
        image: D.
        text: E.
        width: U; 0 for the vectors themselves, brought to length 1.
        dropout: of each side.
    """

    def __init__(self, image: int, text: int, width: int, dropout: float) -> None:
        super().__init__()
        self.image, self.text = Side(image, width, dropout), Side(text, width, dropout)
        self.dimension = self.image.width + self.text.width

    def forward(
        self,
        vector_BD: Tensor,
        map_BChw: Tensor | None,
        seen_B: Tensor,
        text_BE: Tensor,
        tokens_BTW: Tensor,
        mask_BT: Tensor,
        said_B: Tensor,
    ) -> Tensor:
        """Return [B, 2 U]."""
        return torch.cat([self.image(vector_BD, seen_B), self.text(text_BE, said_B)], dim=1)


class Attention(nn.Module):
    """Both vectors side by side, and what the picture finds among the words.

    Every position of the picture's map, and its vector, asks; the words are asked; what they find is averaged. Where
    there is no picture a learnt question asks, and where there are no words there is one learnt word.

    Args:
        image: D and C; C is ``None`` where the picture has no map, and its vector alone asks.
        text: E and the features of a token.
        width: U.
        heads: of the attention.
        dropout: of each side, and of the attention.
    """

    def __init__(
        self, image: tuple[int, int | None], text: tuple[int, int], width: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.image, self.text = Side(image[0], width, dropout), Side(text[0], width, dropout)
        self.dimension = 3 * width
        self.asks = nn.Sequential(nn.Linear(image[0], width), nn.LayerNorm(width))
        channels = image[1]
        self.positions = (
            None if channels is None else nn.Sequential(nn.Linear(channels, width), nn.LayerNorm(width))
        )
        self.words = nn.Sequential(nn.Linear(text[1], width), nn.LayerNorm(width))
        self.attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.no_picture = nn.Parameter(torch.randn(width))
        self.no_word = nn.Parameter(torch.randn(width))

    def forward(
        self,
        vector_BD: Tensor,
        map_BChw: Tensor | None,
        seen_B: Tensor,
        text_BE: Tensor,
        tokens_BTW: Tensor,
        mask_BT: Tensor,
        said_B: Tensor,
    ) -> Tensor:
        """Return [B, 3 U].

        Args:
            vector_BD, map_BChw: of the pictures.
            seen_B: which are there.
            text_BE, tokens_BTW: of the texts.
            mask_BT: which tokens are no filling.
            said_B: which texts are there.
        """
        query_BPU = self.asks(vector_BD)[:, None]
        if self.positions is not None and map_BChw is not None:
            query_BPU = torch.cat([query_BPU, self.positions(map_BChw.flatten(2).transpose(1, 2))], dim=1)
        query_BPU = torch.where(seen_B[:, None, None], query_BPU, self.no_picture.to(query_BPU.dtype))
        words_BTU = self.words(tokens_BTW)
        words_BTU = torch.where(said_B[:, None, None], words_BTU, self.no_word.to(words_BTU.dtype))
        asked_BT = mask_BT & said_B[:, None]
        only_BT = torch.zeros_like(asked_BT)
        only_BT[:, 0] = ~said_B
        found_BPU, _ = self.attention(
            query_BPU, words_BTU, words_BTU, key_padding_mask=~(asked_BT | only_BT), need_weights=False
        )
        found_BU = self.norm((found_BPU + query_BPU).mean(dim=1))
        sides = self.image(vector_BD, seen_B), self.text(text_BE, said_B)
        return torch.cat([*sides, found_BU.to(sides[0].dtype)], dim=1)
