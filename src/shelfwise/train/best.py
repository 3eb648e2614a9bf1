"""The weights that a phase gives: averaged, mixed with its start, and the best epoch's of them.

It does not train: it is shown the weights after each epoch with their scores. Where only heads are trained, the
best epoch is chosen for each head by itself, for heads share nothing.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence

import torch

from shelfwise.train.anatomy import Pair, Part
from shelfwise.train.optim import ModelEma


def mean_score(scores: Mapping[Pair, float]) -> float:
    """Return the mean over categories of the mean over their attributes; those without a score (nan) aside."""
    by: dict[str, list[float]] = {}
    for (category, _), score in scores.items():
        if math.isfinite(score):
            by.setdefault(category, []).append(score)
    return sum(sum(own) / len(own) for own in by.values()) / len(by) if by else math.nan


class Given:
    """The weights that are scored and kept: the moving average, if any, mixed with the first weights, if asked.

    Args:
        weights: the tensors that training changes, by name.
        ema: their moving average.
        start: copies of them as the phase began, for WiSE-FT.
        share: of the trained weights in that mix.
    """

    def __init__(
        self,
        weights: Mapping[str, torch.Tensor],
        ema: ModelEma | None,
        start: list[torch.Tensor] | None,
        share: float,
    ) -> None:
        self.weights, self.ema, self.start, self.share = list(weights.values()), ema, start, share

    @torch.no_grad()
    def take(self) -> None:
        """Put the given weights in the place of the trained ones."""
        if self.ema is not None:
            torch._foreach_copy_(self.weights, self.ema.averages)
        if self.start is not None:
            torch._foreach_lerp_(self.weights, self.start, 1 - self.share)

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Have the given weights in place for a while."""
        if self.ema is None and self.start is None:
            yield
            return
        with torch.no_grad():
            trained = [weight.detach().clone() for weight in self.weights]
        try:
            self.take()
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self.weights, trained)


class Best:
    """The best given weights of a phase so far.

    Args:
        tensors: weights and buffers that the phase may change, by name.
        heads: the parts of each head where heads are kept by themselves; empty to keep all by the mean score. All
            are kept together as well where statistics that heads share have moved in the first epoch: a head's
            best weights do not fit the statistics of another epoch.

    Attributes:
        copies: the best weights; empty before the first epoch.
        scores: their scores.
        score: the best mean score of an epoch.
        waited: epochs since something was better.
    """

    def __init__(
        self, tensors: Mapping[str, torch.Tensor], heads: Mapping[Pair, Sequence[Part]] | None = None
    ) -> None:
        self.tensors, self.heads = dict(tensors), dict(heads or {})
        own = {name for parts in self.heads.values() for name, _ in parts}
        self.shared = {n: t.detach().clone() for n, t in self.tensors.items() if self.heads and n not in own}
        self.copies: dict[str, torch.Tensor] = {}
        self.scores: dict[Pair, float] = {}
        self.score = -math.inf
        self.waited = 0

    @torch.no_grad()
    def show(self, scores: Mapping[Pair, float]) -> bool:
        """See the scores of the weights in place; keep what is better. Return whether anything was."""
        first = not self.copies
        if first:
            if any(not torch.equal(self.tensors[name], before) for name, before in self.shared.items()):
                self.heads = {}
            self.copies = {name: tensor.detach().clone() for name, tensor in self.tensors.items()}
        mean = mean_score(scores)
        improved = mean > self.score or first
        if self.heads:
            improved = first
            for pair, parts in self.heads.items():
                if scores.get(pair, math.nan) > self.scores.get(pair, -math.inf):
                    self.scores[pair] = scores[pair]
                    improved = True
                    for name, index in parts:
                        self.copies[name][index] = self.tensors[name][index]
        elif improved and not first:
            for name, tensor in self.tensors.items():
                self.copies[name].copy_(tensor)
        if improved and not self.heads:
            self.scores = dict(scores)
        if mean > self.score:
            self.score = mean
        self.waited = 0 if improved else self.waited + 1
        return improved

    @torch.no_grad()
    def restore(self) -> None:
        """Put the best weights into place; those that are there stay where nothing was kept."""
        for name, copy in self.copies.items():
            self.tensors[name].copy_(copy)
