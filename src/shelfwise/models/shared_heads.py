"""Shared heads: attributes of one name are one head for all categories, told apart by a category token.

They do not know where the features come from. The values of a shared head are the union of the
categories' values by name; each category reads its own.
Legend: B batch, n rows of one category, D features, T width of the token, A attributes of a category,
V their values packed, C the most values of any of them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from shelfwise.errors import UsageError, listing, suggest
from shelfwise.models.heads import (
    CategoryHeads,
    Layer,
    Norm,
    Selection,
    Takes,
    chain,
    packed_slices,
    rows_by_category,
)
from shelfwise.models.losses import padded_columns
from shelfwise.registry import register
from shelfwise.taxonomy import Choice, Taxonomy


class SharedHeads(nn.Module):
    """One head per name of an attribute, on the features and a vector of the category.

    Args:
        taxonomy: categories, attributes, values.
        dimension: D.
        token: T; 0 for none.
        layers: hidden layers of every head.
        separate: names that keep a head per category.
    """

    takes: Takes = "vector"

    def __init__(
        self,
        taxonomy: Taxonomy,
        dimension: int,
        token: int,
        layers: Sequence[Layer],
        separate: Sequence[str],
    ) -> None:
        super().__init__()
        self.categories = taxonomy.categories
        self.taxonomy = taxonomy
        self.separate = frozenset(separate)
        values: dict[str, dict[str, int]] = {}
        for category, choice in taxonomy.pairs():
            own = values.setdefault(self._name(category, choice), {})
            for value in choice.values:
                own.setdefault(value, len(own))
        self.names = tuple(values)
        slices = packed_slices([len(own) for own in values.values()])
        self.heads = CategoryHeads(slices, dimension + token, layers)
        codes = [code for code, category in enumerate(self.categories) if taxonomy.width(category)]
        self.token_of = {code: place for place, code in enumerate(codes)}
        self.tokens = nn.Parameter(torch.randn(len(codes), token)) if token else None
        for code in codes:
            self._select(code, values, slices)

    def _name(self, category: str, choice: Choice) -> str:
        return f"{category}/{choice.name}" if choice.name in self.separate else choice.name

    def _select(self, code: int, values: dict[str, dict[str, int]], slices: Sequence[slice]) -> None:
        """Note which heads and which of their values a category reads."""
        category = self.categories[code]
        places = {name: place for place, name in enumerate(self.names)}
        choices = self.taxonomy.choices(category)
        heads = [places[self._name(category, choice)] for choice in choices]
        columns = [
            slices[head].start + values[self.names[head]][value]
            for head, choice in zip(heads, choices, strict=True)
            for value in choice.values
        ]
        gather_AC, real_AC = (
            torch.from_numpy(part) for part in padded_columns(self.taxonomy.slices(category))
        )
        flat_V = real_AC.flatten().nonzero()[:, 0]
        gather_AC = torch.tensor(columns)[gather_AC]
        for name, value in (("index", torch.tensor(heads)), ("gather", gather_AC), ("flat", flat_V)):
            self.register_buffer(f"{name}_{code}", value, persistent=False)

    def forward(self, features_BD: Tensor, category_B: Tensor) -> list[tuple[str, Tensor, Tensor]]:
        """Return, per category in the batch, its name, its rows [n] and their logits [n, V]."""
        outputs = []
        for code, rows in rows_by_category(category_B):
            if code not in self.token_of:
                continue
            features_nD = features_BD[rows]
            if self.tokens is not None:
                token_T = self.tokens[self.token_of[code]].to(features_nD.dtype)
                features_nD = torch.cat([features_nD, token_T.expand(len(rows), -1)], dim=1)
            selection = Selection(
                *(self.get_buffer(f"{name}_{code}") for name in ("index", "gather", "flat"))
            )
            outputs.append((self.categories[code], rows, self.heads(features_nD, selection)))
        return outputs

    def masks(self, category: str, attribute: str) -> dict[str, Tensor]:
        """Return, per parameter name, where the values of one attribute's head lie; all categories share them."""
        name = self._name(category, self.taxonomy.choice(category, attribute))
        found = self.heads.masks(self.names.index(name))
        return {f"heads.{parameter}": mask for parameter, mask in found.items()}


@register.heads("shared")
def shared(
    taxonomy: Taxonomy,
    dimension: int,
    *,
    token: int = 16,
    separate: Sequence[str] = (),
    hidden: int = 256,
    layers: int = 1,
    dropout: float = 0.1,
    norm: Norm = "layer",
    groups: int = 8,
) -> SharedHeads:
    """Attributes of one name share one head, which also reads a learnt vector of the category.

    Args:
        taxonomy: categories, attributes, values.
        dimension: features.
        token: width of the category's vector; 0 for none.
        separate: names of attributes that mean another thing in every category and keep a head each.
        hidden: as for ``mlp``.
        layers: as for ``mlp``.
        dropout: as for ``mlp``.
        norm: ``layer``, ``group`` or ``none``; statistics over a batch would mix categories.
        groups: as for ``mlp``.
    """
    if norm == "batch":
        raise UsageError("shared heads see one category at a time: norm is 'layer', 'group' or 'none'")
    if token < 0:
        raise UsageError(f"shared heads: token is at least 0, not {token}")
    known = sorted({choice.name for _, choice in taxonomy.pairs()})
    wrong = next((name for name in separate if name not in known), None)
    if wrong is not None:
        hint = suggest(wrong, known) or f"Known: {listing(known, 5)}."
        raise UsageError(f"separate names attributes, and none is called {wrong!r}. {hint}")
    return SharedHeads(taxonomy, dimension, token, chain(hidden, layers, dropout, norm, groups), separate)
