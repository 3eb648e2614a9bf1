"""LoRA for a vision-language model: an adapter learnt from questions with their right replies.

It does not know taxonomies or tables. Only low-rank additions to named layers are learnt (Hu et al., "LoRA", ICLR
2022), optionally at a higher rate for their outer halves (Hayou et al., "LoRA+", ICML 2024); the model itself stays as
it is. The loss is the mean over the tokens of the replies in a step; the question's own tokens teach nothing. The order
of the examples is drawn from seed, epoch and name, so neither the table's order nor the machine matters.
Legend: T tokens of a whole example, U tokens of the vocabulary.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from shelfwise.config import Options
from shelfwise.errors import BundleError, EngineError, require
from shelfwise.files import Progress
from shelfwise.models.torchvision_repair import import_torchvision
from shelfwise.models.vision_language import VisionLanguage

if TYPE_CHECKING:
    import torch
    from PIL import Image

Arrays = dict[str, npt.NDArray[np.float32]]
#: A gradient longer than this is shortened to it.
LONGEST_STEP = 1.0


class Lora(Options):
    """How an adapter is learnt.

    Attributes:
        rank: of the additions.
        alpha: their scale is ``alpha / rank``.
        targets: names of the layers that get one.
        epochs: passes over the examples.
        lr: learning rate after warm-up; it falls to 0 as a cosine.
        warm_up: share of the steps in which it rises.
        outer: the rate of the outer halves, as a multiple.
        accumulate: examples a step.
        products: at most so many are learnt from, drawn by seed; left out, all.
    """

    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16.0, gt=0)
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    epochs: int = Field(default=3, ge=1)
    lr: float = Field(default=5e-5, gt=0)
    warm_up: float = Field(default=0.1, ge=0, le=1)
    outer: float = Field(default=1.0, gt=0)
    accumulate: int = Field(default=8, ge=1)
    products: int | None = Field(default=None, ge=1)


@dataclass(frozen=True, eq=False)
class Example:
    """A question about a picture with its right reply.

    Attributes:
        name: of the product.
        image: opens its picture, at the size that will be used.
        question: in words.
        reply: in words.
    """

    name: str
    image: "Callable[[], Image.Image]"
    question: str
    reply: str


def with_adapter(base: VisionLanguage, options: Lora, seed: int) -> VisionLanguage:
    """Return the model with an adapter that does nothing yet; the given one is not to be used any more.

    Raises:
        EngineError: no layer has one of the names in ``targets``.
        MissingExtra: peft is not installed.
    """
    import torch

    import_torchvision()
    peft = require("peft", extra="lora")
    settings = peft.LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=0.0,
        target_modules=list(options.targets),
        bias="none",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = peft.get_peft_model(base.model, settings)
        except ValueError as error:
            raise EngineError(
                f"{base.source}: {' '.join(str(error).split())[:300]}; see recipe.lora.targets"
            ) from error
    return VisionLanguage(base.source, model.eval(), base.processor)


def adapter_of(tuned: VisionLanguage) -> Arrays:
    """Return the adapter's arrays, float32, by name."""
    named = {name: p for name, p in tuned.model.named_parameters() if "lora_" in name}
    return {name: named[name].detach().float().cpu().numpy() for name in sorted(named)}


def put_adapter(tuned: VisionLanguage, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Put saved arrays into a model with an adapter.

    Raises:
        BundleError: they are of another model or of other options.
    """
    import torch

    named = {name: p for name, p in tuned.model.named_parameters() if "lora_" in name}
    if sorted(named) != sorted(arrays) or any(tuple(named[n].shape) != arrays[n].shape for n in named):
        raise BundleError(
            f"the saved adapter does not fit the model {tuned.source!r}: other layers or another rank"
        )
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(torch.from_numpy(np.array(arrays[name])))


def tune(
    tuned: VisionLanguage,
    examples: Sequence[Example],
    options: Lora,
    seed: int,
    progress: Progress | None = None,
) -> list[float]:
    """Learn the adapter, in place.

    Args:
        tuned: a model with an adapter.
        examples: what to learn from.
        options: how.
        seed: of the order.
        progress: told the steps.

    Returns:
        The loss of every step.
    """
    import torch

    chosen = order_of(examples, seed, -1)[: options.products]
    steps = math.ceil(len(chosen) / options.accumulate) * options.epochs
    optimiser = torch.optim.AdamW(_groups(tuned.model, options), weight_decay=0.0)
    rates = [group["lr"] for group in optimiser.param_groups]
    learnt = [p for group in optimiser.param_groups for p in group["params"]]
    losses: list[float] = []
    for step, batch in enumerate(_batches(chosen, options, seed)):
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * _schedule(step, steps, options.warm_up)
        words = [tuned.tokens(example.reply) + _end(tuned) for example in batch]
        total = sum(map(len, words))
        losses.append(0.0)
        for example, reply in zip(batch, words, strict=True):
            loss = _loss(tuned, example, reply) / total
            torch.autograd.backward(loss)
            losses[-1] += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(learnt, LONGEST_STEP)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if progress is not None:
            progress("tuning", step + 1, steps)
    return losses


def order_of(examples: Sequence[Example], seed: int, epoch: int) -> list[Example]:
    """Return the examples as an epoch takes them: by a digest of seed, epoch and name."""

    def place(example: Example) -> bytes:
        return hashlib.blake2b(f"{seed}\x1f{epoch}\x1f{example.name}".encode(), digest_size=16).digest()

    return sorted(examples, key=place)


def _batches(examples: Sequence[Example], options: Lora, seed: int) -> Iterator[list[Example]]:
    for epoch in range(options.epochs):
        ordered = order_of(examples, seed, epoch)
        for at in range(0, len(ordered), options.accumulate):
            yield ordered[at : at + options.accumulate]


def _groups(model: Any, options: Lora) -> list[dict[str, Any]]:
    """The adapter's parameters in two groups, the inner and the outer halves."""
    inner = [p for name, p in model.named_parameters() if "lora_A" in name]
    outer = [p for name, p in model.named_parameters() if "lora_B" in name]
    return [{"params": inner, "lr": options.lr}, {"params": outer, "lr": options.lr * options.outer}]


def _schedule(step: int, steps: int, warm_up: float) -> float:
    rising = max(1, round(warm_up * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def _end(tuned: VisionLanguage) -> list[int]:
    end = tuned.processor.tokenizer.eos_token_id
    return [] if end is None else [int(end)]


def _loss(tuned: VisionLanguage, example: Example, reply: Sequence[int]) -> "torch.Tensor":
    """Sum over the tokens of a reply of minus its log-probability."""
    import torch

    given = tuned.inputs(example.image(), example.question)
    before, device = given["input_ids"], tuned.model.device
    after = torch.tensor([list(reply)], device=device)
    whole = {}
    for name, tensor in given.items():
        along = tensor.shape == before.shape
        more = after if name == "input_ids" else torch.full_like(after, name == "attention_mask")
        whole[name] = torch.cat([tensor, more.to(tensor.dtype)], dim=1) if along else tensor
    logits_TU = tuned.model(**whole, use_cache=False).logits[0, before.shape[1] - 1 : -1]
    loss: torch.Tensor = torch.nn.functional.cross_entropy(logits_TU.float(), after[0], reduction="sum")
    return loss
