"""The torch modules of the text encoders: token ids and mask in, a vector and token vectors out.

It knows nothing of where weights or tokens come from. Importing it imports torch, so only functions do.

Legend: B texts, T tokens, D features, W features of a token.
"""

from typing import Any

from torch import Tensor, nn

from shelfwise.models.towers import layer_groups

#: How token vectors become one vector.
POOLS = ("mean", "class", "max")


class TextTower(nn.Module):
    """A network of token ids and the step from its token vectors to one vector.

    Attributes:
        net: the network.
        pool: ``mean``, ``class`` or ``max`` over the token vectors of a network that gives them alone; ``None`` for a
            network that gives ``(vector, tokens)`` by itself and knows its own filling.
        normalise: bring vectors to length 1.
        width: W.
    """

    def __init__(self, net: nn.Module, width: int, *, pool: str | None, normalise: bool) -> None:
        super().__init__()
        self.net = net
        self.width = width
        self.pool = pool
        self.normalise = normalise

    def forward(self, ids_BT: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return vectors [B, D] and token vectors [B, T, W] of ids [B, T] whose filling is false in the mask."""
        vector_BD: Tensor
        tokens_BTW: Tensor
        if self.pool is None:
            vector_BD, tokens_BTW = self.net(ids_BT)
        else:
            found: Any = self.net(input_ids=ids_BT, attention_mask=mask_BT.long())
            tokens_BTW = found.last_hidden_state
            vector_BD = pooled(tokens_BTW, mask_BT, self.pool)
        if self.normalise:
            vector_BD = nn.functional.normalize(vector_BD.float(), dim=1)
        return vector_BD, tokens_BTW

    @property
    def layer_groups(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """(name, parameter names) from the embeddings (``stem``) to the last layer; each parameter once."""
        return layer_groups(self)


def pooled(tokens_BTW: Tensor, mask_BT: Tensor, pool: str) -> Tensor:
    """Return one vector [B, W] of the token vectors that are no filling."""
    if pool == "class":
        return tokens_BTW[:, 0]
    real_BT1 = mask_BT.unsqueeze(2)
    if pool == "max":
        return tokens_BTW.masked_fill(~real_BT1, float("-inf")).amax(1)
    weight_BT1 = real_BT1.to(tokens_BTW.dtype)
    return (tokens_BTW * weight_BT1).sum(1) / weight_BT1.sum(1)
