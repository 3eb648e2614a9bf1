"""Parameter groups, layer-wise rates, schedules, weight averaging.

It does not know pictures, labels or heads: parameters have names, and layer groups are lists of names from the
stem to the heads. Every rate is a pure function of the step and of the scores so far, so going on from a
checkpoint needs no state of a schedule.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from torch import nn

from shelfwise.config import Options
from shelfwise.errors import UsageError

#: Layer groups of a network from the stem to the heads: a name and the names of its parameters.
LayerGroups = Sequence[tuple[str, Sequence[str]]]
#: The name of the last layer group.
HEADS = "heads"
#: Layer groups that begin at random: ``train = "heads"`` means all of them, at the rate of the heads.
NEW = ("fusion", HEADS)
#: What the layer groups of a backbone with two towers begin with.
SIDES = ("image", "text")
#: Parts of the names of packed biases and norms, [attributes, 1, width].
PACKED_VECTORS = frozenset({"bias", "biases", "gains", "shifts"})


class Rates(Options):
    """Learning rates of the backbone and of the heads.

    Attributes:
        backbone: of every layer group that is not one of the others'.
        image, text: of the towers of a pair, where they are not ``backbone``.
        heads: of the heads, and of what is put between two towers.
    """

    backbone: Annotated[float, Field(ge=0)] | None = None
    image: Annotated[float, Field(ge=0)] | None = None
    text: Annotated[float, Field(ge=0)] | None = None
    heads: Annotated[float, Field(ge=0)]

    @model_serializer(mode="wrap")
    def _stated(self, given: SerializerFunctionWrapHandler) -> dict[str, float]:
        return {name: rate for name, rate in given(self).items() if rate is not None}

    @model_validator(mode="after")
    def _complete(self) -> "Rates":
        if self.backbone is None and (self.image is None or self.text is None):
            raise ValueError("give backbone, or both image and text")
        return self

    def of(self, group: str) -> float:
        """Return the rate of a layer group.

        Raises:
            UsageError: there is none.
        """
        side = group.partition(".")[0]
        found = self.heads if group in NEW else {"image": self.image, "text": self.text}.get(side)
        found = self.backbone if found is None else found
        if found is None:
            raise UsageError(f"lr: the layer group {group!r} is of no tower of a pair: give backbone")
        return found


class Phase(Options):
    """One stretch of training: what is trained, for how long, at which rate.

    Attributes:
        epochs: passes over the training products.
        steps: stop after so many steps of the optimiser, should the epochs have more; the schedule spans them.
        train: ``all``; ``heads``; ``each head`` (what belongs to one head alone, each at the mean loss of its own
            labels and clipped by itself: as if they were trained one after another); how many of the backbone's
            last layer groups beside the heads, of each tower of a pair; or names of layer groups, of towers (``image``,
            ``text``) and of heads (``Category/attribute``). What is not trained is in eval mode: its statistics stay
            as they are.
        lr: the highest learning rate, one for all or ``{ backbone = ..., heads = ... }``; the towers of a pair may
            have their own, ``{ image = ..., text = ..., heads = ... }``.
        wise_ft: the share of the trained weights in the average with the weights this phase began with
            (Wortsman et al. 2022, WiSE-FT); 1 for no averaging.
    """

    epochs: Annotated[int, Field(ge=1)] = 1
    steps: Annotated[int, Field(ge=1)] | None = None
    train: Literal["all", "heads", "each head"] | Annotated[int, Field(ge=1)] | tuple[str, ...] = "all"
    lr: Annotated[float, Field(gt=0)] | Rates = 1e-3
    wise_ft: Annotated[float, Field(gt=0, le=1)] = 1.0

    def rate(self, group: str) -> float:
        """Return the highest rate of a layer group."""
        return self.lr.of(group) if isinstance(self.lr, Rates) else self.lr


class Optimiser(Options):
    """How weights follow gradients.

    Attributes:
        name: ``adamw`` (Loshchilov and Hutter 2019) or ``sgd`` with Nesterov momentum.
        weight_decay: of all parameters but norms and biases.
        betas: of AdamW.
        momentum: of SGD.
        layer_decay: factor of the rate from each layer group to the one before it; 1 for one rate.
        clip: the greatest norm of all gradients together; none for no clipping.
        accumulate: batches per step of the optimiser.
        schedule: ``cosine``, ``multistep``, ``plateau`` or ``constant``; each phase starts anew.
        warm_up: the share of a phase's steps in which the rate rises linearly.
        floor: the share of the highest rate that ``cosine`` ends at.
        milestones: finished epochs of a phase after which ``multistep`` multiplies the rate by ``gamma``.
        gamma: factor of ``multistep`` and ``plateau``.
        plateau_patience: epochs without a better score that ``plateau`` waits for.
        ema: decay of the exponential moving average of the weights, which then are what is scored and kept;
            none for no averaging.
        patience: epochs without a better score after which a phase stops; none to never stop early.
        keep: ``best`` (by score, for each head by itself where only heads are trained) or ``last``.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    clip: Annotated[float, Field(gt=0)] | None = None
    accumulate: Annotated[int, Field(ge=1)] = 1
    schedule: Literal["cosine", "multistep", "plateau", "constant"] = "cosine"
    warm_up: Annotated[float, Field(ge=0, lt=1)] = 0.0
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = ()
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    plateau_patience: Annotated[int, Field(ge=0)] = 2
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    patience: Annotated[int, Field(ge=1)] | None = None
    keep: Literal["best", "last"] = "best"

    @model_validator(mode="after")
    def _milestones_fit(self) -> "Optimiser":
        if (self.schedule == "multistep") != bool(self.milestones):
            raise ValueError("milestones and schedule = 'multistep' need each other")
        return self


def parameter_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    layer_groups: LayerGroups,
    phase: Phase,
    optimiser: Optimiser,
) -> list[dict[str, Any]]:
    """Return groups for ``torch.optim``: rates by layer group, no weight decay on norms and biases.

    Parameters that do not require a gradient are left out. Norms and biases are vectors (at most one axis longer
    than 1), and packed vectors of several heads, known by their names.

    Args:
        named_parameters: of the network.
        layer_groups: from the stem to the heads.
        phase: its rates.
        optimiser: weight decay and layer decay.

    Returns:
        Dicts with ``params``, ``lr`` (the highest rate), ``weight_decay``, ``name`` and ``names``.
    """
    depth = {name: k for k, (_, names) in enumerate(layer_groups) for name in names}
    last = len(layer_groups) - 1
    above = heights(layer_groups)
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, parameter in named_parameters:
        if not parameter.requires_grad:
            continue
        at = depth.get(name, last if name.startswith(f"{HEADS}.") else 0)
        label = layer_groups[at][0]
        rate = phase.rate(label) * optimiser.layer_decay ** above[at]
        if optimiser.layer_decay == 1 and label not in NEW:
            side = label.partition(".")[0]
            label = side if side in SIDES else "backbone"
        decays = not _is_vector(name, parameter)
        group = groups.setdefault(
            (label, decays),
            {
                "params": [],
                "names": [],
                "name": label,
                "lr": rate,
                "weight_decay": optimiser.weight_decay if decays else 0.0,
            },
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def heights(layer_groups: LayerGroups) -> list[int]:
    """Return how far each layer group is from the end of its tower, where the last one is 1; 0 for what is new."""
    found: list[int] = []
    seen: dict[str, int] = {}
    for name, _ in reversed(layer_groups):
        side = name.partition(".")[0]
        tower = "" if name in NEW else side if side in SIDES else "backbone"
        seen[tower] = seen.get(tower, 0) + 1
        found.append(seen[tower] if tower else 0)
    return found[::-1]


def _is_vector(name: str, parameter: torch.Tensor) -> bool:
    """Whether a parameter is a norm's or a bias."""
    return sum(length > 1 for length in parameter.shape) < 2 or not PACKED_VECTORS.isdisjoint(name.split("."))


def torch_optimiser(groups: list[dict[str, Any]], optimiser: Optimiser) -> torch.optim.Optimizer:
    """Return the optimiser over groups of ``parameter_groups``, fused into one kernel a group where possible."""
    kinds = {parameter.device.type for group in groups for parameter in group["params"]}
    fused = kinds <= {"cpu"} or kinds <= {"cuda"}
    if optimiser.name == "sgd":
        momentum = optimiser.momentum
        return torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=momentum > 0, fused=fused)
    return torch.optim.AdamW(groups, lr=0.0, betas=optimiser.betas, fused=fused)


def schedule(
    optimiser: Optimiser, step: int, steps: int, per_epoch: int, scores: Sequence[float] = ()
) -> float:
    """Return the factor of the highest rate at a step of a phase.

    Args:
        optimiser: the schedule's options.
        step: steps of the phase already taken.
        steps: of the whole phase.
        per_epoch: steps of an epoch.
        scores: of the epochs of this phase so far, for ``plateau``.
    """
    warm = round(optimiser.warm_up * steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    if optimiser.schedule == "cosine":
        turn = math.cos(math.pi * (step - warm) / max(steps - warm, 1))
        return optimiser.floor + (1 - optimiser.floor) * (1 + turn) / 2
    if optimiser.schedule == "multistep":
        passed = sum(milestone <= step // per_epoch for milestone in optimiser.milestones)
        return float(optimiser.gamma**passed)
    if optimiser.schedule == "plateau":
        return float(optimiser.gamma ** plateaus(scores, optimiser.plateau_patience))
    return 1.0


def plateaus(scores: Sequence[float], patience: int) -> int:
    """Return how often more than ``patience`` epochs in a row brought no better score."""
    best, waited, count = -math.inf, 0, 0
    for score in scores:
        if score > best:
            best, waited = score, 0
        else:
            waited += 1
        if waited > patience:
            waited, count = 0, count + 1
    return count


class ModelEma:
    """An exponential moving average of weights, kept beside them (Polyak and Juditsky 1992).

    The decay rises with the steps taken, ``min(decay, (1 + t) / (10 + t))``, so that the first weights are
    forgotten soon.

    Args:
        names: of the weights.
        weights: the tensors that training changes.
        decay: of the average.
    """

    def __init__(self, names: Collection[str], weights: Sequence[torch.Tensor], decay: float) -> None:
        self.names, self.weights, self.decay = list(names), list(weights), decay
        self.averages = [weight.detach().clone() for weight in weights]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights after so many steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.averages, self.weights, 1 - decay)
