"""One phase under way: what is trained, by which optimiser, and the weights it gives.

It does not know epochs or schedules: it is told the rates, and takes one step of the optimiser at a time.
Legend: P pairs of category and attribute, K batches of one step.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from shelfwise.errors import TrainingError, UsageError, listing
from shelfwise.models.network import set_trainable
from shelfwise.train.anatomy import Anatomy, outside, separate, trained
from shelfwise.train.best import Best, Given
from shelfwise.train.gradients import divide, divide_each
from shelfwise.train.optim import ModelEma, Optimiser, Phase, parameter_groups, torch_optimiser
from shelfwise.train.place import Place


@dataclass(frozen=True, eq=False)
class Taken:
    """A step of the optimiser that was taken, its sums still on the device.

    Attributes:
        totals: float64 [3 + 2P] over all processes: loss, labels, pictures, pair_loss, pair_labels.
        losses_K: of this process's batches.
        ids: of their products.
        epoch: number of the epoch.
        step: number of the step over all phases, from 1.
        rates: by group of layers.
    """

    totals: Tensor
    losses_K: Tensor
    ids: Sequence[Sequence[str]]
    epoch: int
    step: int
    rates: Mapping[str, float]

    def check(self) -> None:
        """Raise a ``TrainingError`` where a loss is not finite."""
        for loss, ids in zip(self.losses_K.tolist(), self.ids, strict=True):
            if not math.isfinite(loss):
                raise not_finite(loss, self.epoch, self.step, ids)


def not_finite(loss: float, epoch: int, step: int, ids: Sequence[str]) -> TrainingError:
    """Return the error of a loss that is no number."""
    return TrainingError(
        f"the loss is {loss} in epoch {epoch + 1}, step {step}, with the products {listing(map(str, ids))}. "
        "Look at their pictures and labels; if they are sound, take a lower lr, a longer warm_up, or clip = 1.0"
    )


class Course:
    """One phase under way.

    Args:
        place: device and processes.
        network: to train in place, on the device.
        step: a batch to sums.
        anatomy: of the network.
        phase: what is trained, at which rate.
        optimiser: how.
        before: steps taken before this phase.
    """

    def __init__(
        self,
        place: Place,
        network: nn.Module,
        step: Callable[[Any], Any],
        anatomy: Anatomy,
        phase: Phase,
        optimiser: Optimiser,
        before: int = 0,
    ) -> None:
        self.place, self.network, self.anatomy, self.optimiser = place, network, anatomy, optimiser
        self.before = before
        parameters = dict(network.named_parameters())
        names, some = trained(anatomy, phase)
        self.weights = {name: parameters[name] for name in parameters if name in names}
        self.buffers = buffers(network)
        changing = self.weights | self.buffers
        heads_alone = separate(anatomy, changing, self.weights)
        self.by_head = phase.train == "each head"
        if self.by_head and not (heads_alone and set(anatomy.heads) == set(anatomy.pairs)):
            raise UsageError("train = 'each head': these heads share parameters; take train = 'heads'")
        if not self.weights:
            raise UsageError(f"train = {phase.train!r}: the network has no such parameters")
        self.learn()
        self.outside = outside(anatomy, some or (), changing)
        self.untouched = {name: changing[name].detach().clone() for name in self.outside}
        self.each = [(pair, anatomy.heads.get(pair, ())) for pair in anatomy.pairs]
        groups = parameter_groups(self.weights.items(), anatomy.layer_groups, phase, optimiser)
        self.peaks = [group["lr"] for group in groups]
        self.names = [group["names"] for group in groups]
        self.torch_optimiser = place.optimiser(torch_optimiser(groups, optimiser))
        self.model = place.model(network, step)
        ema = ModelEma(self.weights, list(self.weights.values()), optimiser.ema) if optimiser.ema else None
        mixed = phase.wise_ft < 1
        start = [weight.detach().clone() for weight in self.weights.values()] if mixed else None
        self.given = Given(self.weights, ema, start, phase.wise_ft)
        kept = {pair: anatomy.heads[pair] for pair in (some or anatomy.heads)} if heads_alone else {}
        self.best = Best(self.weights | self.buffers, kept)

    def learn(self) -> None:
        """Put the network into training, what is frozen into eval."""
        self.network.train()
        set_trainable(self.network, tuple(self.weights))

    def set_rates(self, factor: float) -> dict[str, float]:
        """Set every group's rate to a share of its highest; return them by group of layers."""
        rates = {}
        for group, peak in zip(self.torch_optimiser.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor
            rates[group["name"]] = group["lr"]
        return rates

    def take(
        self, batches: Sequence[Any], seeds: Sequence[int], epoch: int, step: int, factor: float
    ) -> Taken:
        """Take one step of the optimiser over all given batches.

        Args:
            batches: at least one.
            seeds: of dropout and the like, one a batch.
            epoch: for messages.
            step: number over all phases, from 1.
            factor: of the highest rates.
        """
        at_once = self.place.device.type == "cpu"
        totals = torch.zeros(3 + 2 * len(self.anatomy.pairs), dtype=torch.float64, device=self.place.device)
        losses = []
        for number, (batch, seed) in enumerate(zip(batches, seeds, strict=True)):
            self.place.seed(seed)
            last = number == len(batches) - 1
            with self.place.unsynchronised(self.model, last):
                loss, labels, pair_loss, pair_labels = self.model(self.place.move(batch))
                if not loss.requires_grad:
                    loss = loss + 0.0 * next(iter(self.weights.values())).sum()
                losses.append(loss.detach())
                if at_once and not math.isfinite(float(losses[-1])):
                    raise not_finite(float(losses[-1]), epoch, step, batch.ids)
                self.place.accelerator.backward(loss)
            totals[0] += losses[-1]
            totals[1] += labels.detach()
            totals[2] += len(batch.ids)
            if self.anatomy.pairs:
                totals[3:] += torch.cat([pair_loss.detach(), pair_labels.detach()])
        self.place.sum(totals)
        rates = self._follow(totals, step, factor)
        return Taken(totals, torch.stack(losses), [batch.ids for batch in batches], epoch, step, rates)

    def _follow(self, totals: Tensor, step: int, factor: float) -> dict[str, float]:
        """Divide the gradients by the labels, clip them, and move the weights."""
        self.place.accelerator.unscale_gradients(self.torch_optimiser)
        clip, processes = self.optimiser.clip, self.place.processes
        for name, mask in self.outside.items():
            gradient = self.weights[name].grad if name in self.weights else None
            if gradient is not None:
                gradient.masked_fill_(mask, 0.0)
        if self.by_head:
            divide_each(self.weights, self.each, processes / _counted(totals[3 + len(self.each) :]), clip)
        else:
            divide(list(self.weights.values()), processes / _counted(totals[1]), clip)
        rates = self.set_rates(factor)
        self.torch_optimiser.step()
        self.torch_optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, mask in self.outside.items():
                tensor = self.best.tensors[name]
                tensor.copy_(torch.where(mask, self.untouched[name], tensor))
        if self.given.ema is not None:
            self.given.ema.update(step - self.before)
        return rates

    def finish(self) -> None:
        """Put the weights that this phase gives into place."""
        if self.best.copies and self.optimiser.keep == "best":
            self.best.restore()
        else:
            self.given.take()

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield all tensors of this phase but the network's own, by name."""
        state = self.torch_optimiser.optimizer.state
        for name, weight in self.weights.items():
            for key, value in state.get(weight, {}).items():
                if isinstance(value, Tensor):
                    yield f"optimiser.{key}.{name}", value
        extra = {"ema": self.given.ema.averages if self.given.ema else (), "start": self.given.start or ()}
        for kind, values in extra.items():
            if values:
                yield from ((f"{kind}.{n}", value) for n, value in zip(self.weights, values, strict=True))
        yield from ((f"best.{name}", value) for name, value in self.best.copies.items())
        if not self.best.copies:  # the first epoch goes on: what its end is compared with
            yield from ((f"shared.{name}", value) for name, value in self.best.shared.items())
        yield from ((f"untouched.{name}", value) for name, value in self.untouched.items())

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what ``tensors`` gave."""
        state = self.torch_optimiser.optimizer.state
        for full, value in tensors.items():
            kind, _, name = full.partition(".")
            if kind == "optimiser":
                key, _, name = name.partition(".")
                weight = self.weights[name]
                if value.shape == weight.shape:
                    state[weight][key] = torch.empty_like(weight).copy_(value)
                else:
                    state[weight][key] = value.to(weight.device)
            elif kind == "best":
                self.best.copies[name] = torch.empty_like(self.best.tensors[name]).copy_(value)
            elif kind == "shared":
                self.best.shared[name].copy_(value)
            elif kind == "untouched":
                self.untouched[name].copy_(value)
        averages = self.given.ema.averages if self.given.ema else ()
        for kind, values in (("ema", averages), ("start", self.given.start or ())):
            for name, value in zip(self.weights, values, strict=False):
                value.copy_(tensors[f"{kind}.{name}"])


def _counted(labels: Tensor) -> Tensor:
    """Labels to divide by, 1 where there are none; mixed labels count by their shares."""
    return torch.where(labels > 0, labels, 1.0).float()


def buffers(network: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that belong to the network's state."""
    kept = set(network.state_dict())
    return {name: buffer for name, buffer in network.named_buffers() if name in kept}


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors, their names, shapes and types included."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
