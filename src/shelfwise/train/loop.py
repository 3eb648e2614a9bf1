"""The training loop: a generator of steps.

It knows no pictures, labels, heads or losses: a step turns a batch into sums, and the loop divides their gradient
by the number of labels in all batches of that step on all processes. Saving, logging and stopping are the
caller's for-loop. Device, precision and processes are those of ``accelerate``.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch
from torch import nn

from shelfwise.errors import UsageError
from shelfwise.train.anatomy import Anatomy
from shelfwise.train.checkpoint import State
from shelfwise.train.events import Batches, Event, Sums, Validate
from shelfwise.train.optim import Optimiser, Phase
from shelfwise.train.place import Place, Precision
from shelfwise.train.run import Run

__all__ = ["Batches", "Event", "Precision", "State", "Sums", "train"]


def train(
    network: nn.Module,
    step: Callable[[Any], Sums],
    batches: Callable[[int], Batches],
    phases: Sequence[Phase],
    optimiser: Optimiser,
    *,
    seed: int = 0,
    precision: Precision = "fp32",
    device: str = "cpu",
    validate: Validate | None = None,
    resume: State | None = None,
    anatomy: Anatomy | None = None,
) -> Generator[Event, None, None]:
    """Train a network in place, phase after phase; the weights of a phase are those the next one begins with.

    Everything that is drawn comes from the seed and the position, so a training that was killed and goes on from
    a checkpoint ends at the same weights, bit for bit on a CPU with as many threads. When the caller stops
    early, the weights that would have been kept so far are put into place.

    Args:
        network: with first weights; moved to the device. When going on, built as it was at first.
        step: a batch, on the device, to sums over its labelled cells.
        batches: an epoch's number to this process's batches; each has ``ids``, one a product. Every process must
            have as many, see ``place.process``.
        phases: one after another.
        optimiser: for all of them; moments and averages begin anew in each.
        seed: of dropout and the like.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        device: ``cpu``, ``cuda`` or ``auto``.
        validate: the network in eval mode to scores by (category, attribute), the higher the better; called in
            the main process after every epoch.
        resume: a state of the same training.
        anatomy: layer groups, pairs and heads; without it, what the network itself says.

    Yields:
        An event after each step, epoch and phase.

    Raises:
        TrainingError: a loss that is not finite, batches that are not as many as they said, or a state of
            another training.
        UsageError: options that do not fit the network or this machine.
    """
    if not phases:
        raise UsageError("nothing to train: give at least one phase")
    if validate is None and (optimiser.schedule == "plateau" or optimiser.patience is not None):
        raise UsageError(
            "schedule = 'plateau' and patience need scores: hold some products out to validate on"
        )
    place = Place(precision, device)
    network.to(place.device)
    whole = (anatomy or Anatomy()).complete(network)
    run = Run(place, network, step, batches, tuple(phases), optimiser, seed, validate, whole)
    drawn = torch.random.get_rng_state()
    try:
        if resume is not None:
            run.restore(resume)
        yield from run.events()
    except GeneratorExit:
        if run.course is not None:
            run.course.finish()
        raise
    finally:
        network.eval()
        torch.random.set_rng_state(drawn)
