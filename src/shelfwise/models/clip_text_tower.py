"""The text towers of open_clip models as text encoders, built and loaded without their image towers.

It knows no pictures. Importing it imports neither torch nor open_clip; building does.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shelfwise.errors import UsageError, require
from shelfwise.models.clip_tower import describe, download
from shelfwise.models.text_encoders import FrozenText, Tokenizer, make_frozen
from shelfwise.models.timm_tower import import_timm
from shelfwise.models.weights import fetch, json_beside, load_by_name, local_file, read_tensors
from shelfwise.registry import register

if TYPE_CHECKING:
    from torch import Tensor, nn

_CONFIG = "open_clip_config.json"
#: A name that old files have for a table that is computed.
_COMPUTED = "embeddings.position_ids"


@register.text_encoder("clip")
def clip(*, model: str, weights: str | bool, normalise: bool = True, seed: int = 0) -> FrozenText:
    """The text tower of any open_clip model; its image tower is neither built nor kept.

    Args:
        model: its name in open_clip.
        weights: a local ``.safetensors`` or ``.pt`` file of the whole model in open_clip's own layout, or a directory
            that holds one, the ``open_clip_config.json`` beside it followed; a published tag, fetched from the hub; or
            false for random weights.
        normalise: bring vectors to length 1; only their direction was trained.
        seed: of random weights.
    """
    import torch

    from shelfwise.models.text_towers import TextTower

    import_timm()
    require("open_clip", extra="clip")
    file = local_file(weights)
    if weights is True:
        raise UsageError("open_clip has no default weights: name a published tag or a local file")
    tag = weights if isinstance(weights, str) and file is None else None
    stated = json_beside(file, _CONFIG)
    # How pictures are prepared is settled here, so that a model whose tags differ in it needs no choice.
    described = describe(model, tag, None, {"preprocess_cfg": {}} | stated)
    text = dict(described.settings["text_cfg"]) | {"output_tokens": True, "hf_model_pretrained": False}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _build(described.settings, text)
    if isinstance(weights, str):
        path = file or fetch(f"{model}/{weights}", lambda: download(described))
        load_by_name(net, text_tensors(path, net), path)
    folder = file.parent if file is not None and stated.get("model_cfg") else None
    tokenizer = _tokens(model, folder, text)
    width = int(text.get("width", 512)) if not text.get("hf_model_name") else _hidden(net)
    tower = TextTower(net, width, pool=None, normalise=normalise)
    return make_frozen(f"clip/{model}(normalise={normalise})", tower, tokenizer)


def _build(settings: Mapping[str, Any], text: dict[str, Any]) -> "nn.Module":
    """Return the text tower, ids [B, T] to (features [B, D], tokens [B, T, W]), with random weights."""
    # open_clip has no public way to build one tower; building both would cost the image tower's memory.
    from open_clip.model import _build_text_tower

    quick = bool(settings.get("quick_gelu", False))
    net: nn.Module = fetch(
        str(text.get("hf_model_name") or "open_clip"),
        lambda: _build_text_tower(settings["embed_dim"], text, quick),
        "a model whose text tower is open_clip's own",
    )
    return net


def _hidden(net: Any) -> int:
    return int(net.transformer.config.hidden_size)


def text_tensors(path: Path, net: "nn.Module") -> "dict[str, Tensor]":
    """Return the tensors of the text tower in a file of the whole model, in either of open_clip's layouts.

    A tower is kept under ``text.``, or in the first layout beside ``visual.``, whose tensors are not read.

    Raises:
        UsageError: the file is no file of tensors, or has none of a text tower.
    """
    try:
        found = read_tensors(path, "text.")
    except UsageError:
        found = {}
        for part in sorted({name.split(".")[0] for name in net.state_dict()}):
            for name, tensor in read_tensors(path, part).items():
                found[part + name] = tensor
    return {name: tensor for name, tensor in found.items() if not name.endswith(_COMPUTED)}


def _tokens(model: str, folder: Path | None, text: Mapping[str, Any]) -> Tokenizer:
    """Return the model's own tokenizer at its own context length."""
    import open_clip

    name = model if folder is None else f"local-dir:{folder}"
    tokenize = fetch(
        f"{model} (its tokenizer)",
        lambda: open_clip.get_tokenizer(name),
        "a directory that holds it, with open_clip_config.json",
    )
    inner = getattr(tokenize, "tokenizer", None)
    pad = int(getattr(inner, "pad_token_id", None) or 0)
    context = int(tokenize.context_length)

    def split(texts: list[str]) -> list[list[int]]:
        return [_stripped(row, pad) for row in tokenize(texts, context_length=context).tolist()]

    return Tokenizer(split, pad, context, fixed=True)


def _stripped(row: list[int], pad: int) -> list[int]:
    """Return ids without the filling at the end."""
    end = len(row)
    while end and row[end - 1] == pad:
        end -= 1
    return row[:end]
