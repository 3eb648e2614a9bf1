"""Pair: a backbone that looks at the picture and reads the text, and puts both together.

It knows no catalogues: texts come as token ids. A picture that is not there, and a text that says nothing, is a learnt
state of its own, never a grey picture or an empty sentence. Importing it does not import torch; building does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from shelfwise.errors import UsageError, listing
from shelfwise.models.backbones import Backbone, build_backbone, make_backbone
from shelfwise.models.text_encoders import FrozenText, frozen
from shelfwise.registry import REGISTRIES, Spec, register

Fusion = Literal["concat", "attention"]
FUSIONS = ("concat", "attention")


@dataclass(frozen=True, eq=False)
class PairBackbone(Backbone):
    """A backbone with a text tower beside its image tower.

    ``module`` is a ``pair_tower.PairTower``; ``dimension`` is that of both together, the rest is of the image tower.

    Attributes:
        image: the image tower, which is a part of the module.
        text: the text tower, likewise, with its tokenizer.
    """

    image: Backbone
    text: FrozenText


@register.backbone("pair")
def pair(
    *,
    image: Any,
    text: Any,
    fusion: Fusion = "attention",
    width: int = 256,
    heads: int = 4,
    dropout: float = 0.1,
    hide: float = 0.05,
    seed: int = 0,
) -> PairBackbone:
    """An image tower and a text tower, for Numbers such as a price: ``finetune`` trains them together.

    Args:
        image: a backbone, as a name or a table; or one that is built, whose module is taken over.
        text: a text encoder that is a network, likewise.
        fusion: ``concat`` puts both vectors side by side; ``attention`` adds what the picture's positions and its
            vector find among the words, by cross-attention with several heads (Vaswani et al. 2017).
        width: of each side; 0, with ``concat`` only, for the towers' own vectors, brought to length 1.
        heads: of the attention; ``width`` is a multiple.
        dropout: of each side, and of the attention.
        hide: the share of training products whose picture is hidden, and likewise the text.
        seed: of the first weights of what is put between the towers.

    Raises:
        UsageError: options that do not fit together.
    """
    import torch

    from shelfwise.models.pair_tower import Attention, Concat, PairTower

    if fusion not in FUSIONS:
        raise UsageError(f"fusion is one of {listing(FUSIONS)}, not {fusion!r}")
    if not (0 <= dropout < 1 and 0 <= hide < 0.5):
        raise UsageError(f"dropout is in [0, 1) and hide in [0, 0.5), not {dropout} and {hide}")
    if width < 0 or (fusion == "attention" and (width < 2 or heads < 1 or width % heads)):
        raise UsageError(f"fusion = {fusion!r}: width = {width} is no multiple of heads = {heads} above 0")
    if not (isinstance(image, Backbone) and isinstance(text, FrozenText)):
        specs = pair_specs({"image": image, "text": text})
        image, text = build_backbone(specs["image"]), frozen(specs["text"])
    tower: Any = text.tower
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        between: torch.nn.Module
        if fusion == "concat":
            between = Concat(image.dimension, text.dimension, width, dropout)
        else:
            sides = (image.dimension, image.channels), (text.dimension, tower.width)
            between = Attention(*sides, width, heads, dropout)
    name = f"pair({image.name}, {text.name}, {fusion}, {width}, {heads}, {text.tokenizer.longest})"
    module = PairTower(image.module, tower, between, hide)
    made = make_backbone(name, module, image.preprocess, train_preprocess=image.train_preprocess)
    told = {field.name: getattr(made, field.name) for field in fields(made)}
    return PairBackbone(**told | {"family": image.family}, image=image, text=text)


def image_of(backbone: Spec) -> Spec:
    """Return what looks at pictures alone: the image tower of a pair, any other backbone itself."""
    return pair_specs(backbone.table())["image"] if backbone.name == "pair" else backbone


def pair_specs(options: Mapping[str, Any]) -> dict[str, Spec]:
    """Return the specs of both towers, as they stand among the options of a pair.

    Raises:
        UsageError: an unknown name or option.
    """
    found = {}
    for key, kind in (("image", "backbone"), ("text", "text_encoder")):
        given = options[key]
        if not isinstance(given, Spec):
            table = {"name": given} if isinstance(given, str) else given
            if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
                raise UsageError(f"pair: {key} is a {kind} as a name or a table with a name, not {given!r}")
            given = REGISTRIES[kind].spec(**table)
        if given.kind != kind or given.name == "pair":
            raise UsageError(f"pair: {key} is a {kind}, not the {given.kind} {given.name!r}")
        found[key] = given
    return found
