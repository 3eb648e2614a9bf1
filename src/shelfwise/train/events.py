"""What a training says: an Event after each step, epoch and phase; and what it is given.

It holds no logic of training. Legend: P pairs of category and attribute.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from shelfwise.train.anatomy import Pair
from shelfwise.train.checkpoint import State


class Sums(Protocol):
    """What a step returns: sums over the labelled cells of a batch, and how many there are.

    Attributes:
        loss: summed, with a gradient.
        labels: how many cells.
        pair_loss: [P] the same by (category, attribute).
        pair_labels: [P].
    """

    @property
    def loss(self) -> Tensor: ...  # noqa: D102
    @property
    def labels(self) -> Tensor: ...  # noqa: D102
    @property
    def pair_loss(self) -> Tensor: ...  # noqa: D102
    @property
    def pair_labels(self) -> Tensor: ...  # noqa: D102


class Batches(Protocol):
    """The batches of one epoch on this process; ``skip(n)``, where there is one, iterates without the first n."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...


@dataclass(frozen=True, eq=False)
class Event:
    """What happened; the training waits while the caller looks at it.

    Attributes:
        kind: ``step`` of the optimiser, ``epoch`` (after it was scored), or ``phase`` (its weights are in place).
        phase: number of the phase, from 0.
        epoch: number of the epoch over all phases, from 0.
        step: steps of the optimiser taken over all phases.
        of: steps over all phases, should none stop early.
        loss: mean per label, of the step or of the whole epoch.
        rates: learning rate by group of layers.
        pictures_per_second: of the step, or of the epoch without its scoring.
        seconds_left: estimated, until the last phase ends.
        score: mean over categories of the mean over attributes, once there are scores.
        scores: by (category, attribute), of an epoch.
        pair_loss: mean loss by (category, attribute).
        best: whether the epoch was the best so far.
        main: whether this is the process that saves and logs.
        state: returns all that is needed to go on from here; call it before the training goes on.
    """

    kind: Literal["step", "epoch", "phase"]
    epoch: int
    step: int
    of: int
    loss: float
    rates: Mapping[str, float] = field(default_factory=dict)
    pictures_per_second: float = 0.0
    seconds_left: float = 0.0
    score: float | None = None
    scores: Mapping[Pair, float] = field(default_factory=dict)
    pair_loss: Mapping[Pair, float] = field(default_factory=dict)
    phase: int = 0
    best: bool = False
    main: bool = True
    state: Callable[[], State] = field(default=lambda: State(0, {}, {}), repr=False)


#: The network in eval mode to scores by (category, attribute).
Validate = Callable[[nn.Module], Mapping[Pair, float]]
