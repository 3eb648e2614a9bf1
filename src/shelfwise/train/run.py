"""A training under way: where it is, how it goes on, and its state.

It does not know device or precision (``place``), nor how a step is taken (``course``).
Legend: P pairs of category and attribute.
"""

import hashlib
import itertools
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from shelfwise.errors import TrainingError
from shelfwise.train.anatomy import Anatomy, Pair, trained
from shelfwise.train.best import mean_score
from shelfwise.train.checkpoint import State
from shelfwise.train.course import Course, Taken, buffers, fingerprint
from shelfwise.train.events import Batches, Event, Validate
from shelfwise.train.optim import Optimiser, Phase, schedule
from shelfwise.train.place import Place


@dataclass
class Position:
    """Where a training is.

    Attributes:
        phase: phases finished.
        epoch: epochs of this phase finished.
        step: steps of this epoch taken.
        epochs: epochs finished over all phases.
        steps: steps taken over all phases.
        before: steps taken when this phase began.
    """

    phase: int = 0
    epoch: int = 0
    step: int = 0
    epochs: int = 0
    steps: int = 0
    before: int = 0


class Run:
    """A training under way.

    Args:
        place: device, precision, processes.
        network: on the device.
        step: a batch to sums.
        batches: number of an epoch to its batches.
        phases: at least one.
        optimiser: for all of them.
        seed: of what is drawn.
        validate: scores the network.
        anatomy: complete.
    """

    def __init__(
        self,
        place: Place,
        network: nn.Module,
        step: Callable[[Any], Any],
        batches: Callable[[int], Batches],
        phases: tuple[Phase, ...],
        optimiser: Optimiser,
        seed: int,
        validate: Validate | None,
        anatomy: Anatomy,
    ) -> None:
        self.place, self.network, self.step, self.batches = place, network, step, batches
        self.phases, self.optimiser, self.seed = phases, optimiser, seed
        self.validate, self.anatomy = validate, anatomy
        self.count = len(batches(0))
        place.same(self.count, "batches")
        if not self.count:
            raise TrainingError("there are no batches: no product to train on has a label and a picture")
        self.per_epoch = math.ceil(self.count / optimiser.accumulate)
        self.at = Position()
        self.course: Course | None = None
        self.scores: list[float] = []
        self.totals = self.last = self._nothing()
        self.pending: deque[Taken] = deque()
        self.frozen: tuple[int, str] | None = None
        self.mark = time.perf_counter()
        self.step_seconds = self.validate_seconds = self.busy = self.step_now = 0.0

    def _nothing(self) -> Tensor:
        pairs = len(self.anatomy.pairs)
        return torch.zeros(3 + 2 * pairs, dtype=torch.float64, device=self.place.device)

    def _steps(self, phase: Phase) -> int:
        """Steps of a whole phase."""
        whole = phase.epochs * self.per_epoch
        return whole if phase.steps is None else min(whole, phase.steps)

    @property
    def of(self) -> int:
        """Steps over all phases, as far as can be known."""
        return self.at.before + sum(self._steps(phase) for phase in self.phases[self.at.phase :])

    def events(self) -> Iterator[Event]:
        """Go on from where the training is to its end."""
        while self.at.phase < len(self.phases):
            if self.course is None:
                self.course = self._course()
            course, phase = self.course, self.phases[self.at.phase]
            while not self._over(phase):
                yield from self._epoch(course, phase)
            course.finish()
            scores = course.best.scores if self.optimiser.keep == "best" else {}
            self.course = None
            self.place.free()
            self.at = Position(self.at.phase + 1, 0, 0, self.at.epochs, self.at.steps, self.at.steps)
            self.scores = []
            yield self._event(
                "phase", self.last, {}, scores=scores, score=mean_score(scores) if scores else None
            )

    def _course(self) -> Course:
        phase = self.phases[self.at.phase]
        return Course(
            self.place, self.network, self.step, self.anatomy, phase, self.optimiser, self.at.before
        )

    def _over(self, phase: Phase) -> bool:
        """Whether a phase has had all its epochs, or its score has not risen for too long."""
        if self.at.step:
            return False
        patience = self.optimiser.patience
        tired = patience is not None and self.course is not None and self.course.best.waited >= patience
        return tired or self.at.epoch >= math.ceil(self._steps(phase) / self.per_epoch)

    def _epoch(self, course: Course, phase: Phase) -> Iterator[Event]:
        steps = min(self.per_epoch, self._steps(phase) - self.at.epoch * self.per_epoch)
        groups = self._groups(steps)
        lag = 1 if self.place.device.type == "cuda" else 0
        course.learn()
        self.mark, self.busy, pictures = time.perf_counter(), 0.0, 0.0
        for group in groups:
            done = self.at.epoch * self.per_epoch + self.at.step
            factor = schedule(self.optimiser, done, self._steps(phase), self.per_epoch, self.scores)
            taken = course.take(group, self._seeds(len(group)), self.at.epochs, self.at.steps + 1, factor)
            self.totals += taken.totals
            self.at.step, self.at.steps = self.at.step + 1, self.at.steps + 1
            self.pending.append(taken)
            ready = len(self.pending) - (lag if self.at.step < steps else 0)
            for _ in range(ready):
                event = self._of_step(self.pending.popleft())
                pictures += event.pictures_per_second * self.step_now
                yield event
                self.mark = time.perf_counter()
        yield self._scored(course, pictures / max(self.busy, 1e-9))

    def _groups(self, steps: int) -> Iterator[list[Any]]:
        """Yield the batches of each step that is left in this epoch, the last one with what remains."""
        source, each = self.batches(self.at.epochs), self.optimiser.accumulate
        if len(source) != self.count:
            raise TrainingError(
                f"epoch {self.at.epochs + 1} has {len(source)} batches, the first one had {self.count}"
            )
        gone = self.at.step * each
        skip = getattr(source, "skip", None)
        left = iter(skip(gone)) if skip is not None else itertools.islice(source, gone, None)
        for number in range(self.at.step, steps):
            size = min(each, self.count - number * each)
            group = list(itertools.islice(left, size))
            if len(group) < size:
                raise TrainingError(
                    f"epoch {self.at.epochs + 1} ended after {number * each + len(group)} of {self.count} batches"
                )
            yield group

    def _seeds(self, count: int) -> list[int]:
        """One seed a batch, from the training's seed and the batch's place in it alone."""
        seeds = []
        for number in range(count):
            place = f"{self.seed} {self.at.epochs} {self.at.step} {number} {self.place.index}"
            digest = hashlib.blake2b(place.encode(), digest_size=8).digest()
            seeds.append(int.from_bytes(digest) >> 1)
        return seeds

    def _of_step(self, taken: Taken) -> Event:
        taken.check()
        pictures = float(taken.totals[2])
        self.step_now = time.perf_counter() - self.mark
        self.busy += self.step_now
        self.step_seconds = (
            self.step_now if not self.step_seconds else 0.9 * self.step_seconds + 0.1 * self.step_now
        )
        return self._event("step", taken.totals, taken.rates, pictures / self.step_now, step=taken.step)

    def _scored(self, course: Course, rate: float) -> Event:
        """Score what an epoch has brought, and finish it."""
        scores: dict[Pair, float] = {}
        better = False
        if self.validate is not None:
            begun = time.perf_counter()
            self.network.eval()
            with course.given.taken():
                found: Mapping[Pair, float] = {}
                if self.place.main:
                    with torch.no_grad(), self.place.accelerator.autocast():
                        found = self.validate(self.network)
                rows = self.place.told([[*pair, float(score)] for pair, score in found.items()])
                scores = {(category, attribute): score for category, attribute, score in rows}
                better = course.best.show(scores)
            self.validate_seconds = time.perf_counter() - begun
            self.scores.append(mean_score(scores))
        self.last, self.totals = self.totals, self._nothing()
        epoch = self.at.epochs
        self.at.epoch, self.at.step, self.at.epochs = self.at.epoch + 1, 0, epoch + 1
        rates = {group["name"]: group["lr"] for group in course.torch_optimiser.param_groups}
        return self._event(
            "epoch",
            self.last,
            rates,
            rate,
            scores=scores,
            better=better,
            score=self.scores[-1] if scores else None,
        )

    def _event(
        self,
        kind: Any,
        totals: Tensor,
        rates: Mapping[str, float],
        rate: float = 0.0,
        *,
        step: int | None = None,
        scores: Mapping[Pair, float] | None = None,
        score: float | None = None,
        better: bool = False,
    ) -> Event:
        loss, labels, _, *of_pairs = totals.tolist()
        count = len(self.anatomy.pairs)
        sums = zip(self.anatomy.pairs, of_pairs[:count], of_pairs[count:], strict=True)
        steps = self.at.steps if step is None else step
        return Event(
            kind=kind,
            phase=self.at.phase - (kind == "phase"),
            epoch=self.at.epochs - (kind != "step"),
            step=steps,
            of=self.of,
            loss=loss / max(labels, 1.0),
            rates=rates,
            pictures_per_second=rate,
            seconds_left=self._seconds_left(steps),
            score=self.scores[-1] if kind == "step" and self.scores else score,
            scores=scores or {},
            pair_loss={pair: total / cells for pair, total, cells in sums if cells},
            best=better,
            main=self.place.main,
            state=self.state,
        )

    def _seconds_left(self, steps: int) -> float:
        left = self.of - steps
        return left * self.step_seconds + math.ceil(left / self.per_epoch) * self.validate_seconds

    def _changed(self) -> dict[str, Tensor]:
        """The network's tensors that any phase up to now may have changed."""
        names = {n for phase in self.phases[: self.at.phase + 1] for n in trained(self.anatomy, phase)[0]}
        weights = {name: weight for name, weight in self.network.named_parameters() if name in names}
        return weights | buffers(self.network)

    def _options(self) -> dict[str, Any]:
        """What must be the same for a state to be of this training."""
        options = {
            "phases": [phase.table() for phase in self.phases],
            "optimiser": self.optimiser.table(),
            "seed": self.seed,
            "batches": self.count,
            "processes": self.place.processes,
            "pairs": [list(pair) for pair in self.anatomy.pairs],
        }
        same: dict[str, Any] = json.loads(json.dumps(options))
        return same

    def _frozen(self, changed: Mapping[str, Tensor]) -> str:
        """The fingerprint of what no phase has changed yet; taken once a phase."""
        if self.frozen is None or self.frozen[0] != self.at.phase:
            rest = {n: weight for n, weight in self.network.named_parameters() if n not in changed}
            self.frozen = self.at.phase, fingerprint(rest)
        return self.frozen[1]

    def state(self) -> State:
        """Return all that is needed to go on from here."""
        for taken in self.pending:
            taken.check()
        changed = self._changed()
        tensors = {f"network.{name}": tensor for name, tensor in changed.items()}
        tensors["epoch.totals"] = self.totals
        facts: dict[str, Any] = {
            "options": self._options(),
            "position": asdict(self.at),
            "scores": self.scores,
            "frozen": self._frozen(changed),
        }
        if self.course is not None:
            tensors |= {f"phase.{name}": tensor for name, tensor in self.course.tensors()}
            best = self.course.best
            facts["best"] = {
                "score": best.score,
                "waited": best.waited,
                "by_head": bool(best.heads),
                "scores": [[*pair, score] for pair, score in best.scores.items()],
            }
            if self.place.scaler is not None:
                facts["scaler"] = self.place.scaler.state_dict()
        return State(self.at.steps, tensors, facts)

    @torch.no_grad()
    def restore(self, state: State) -> None:
        """Go to where a state was taken.

        Raises:
            TrainingError: it is of another training.
        """
        facts, own = state.facts, self._options()
        for key, value in facts["options"].items():
            if own.get(key) != value:
                raise TrainingError(
                    f"the checkpoint is of another training: its {key} were {value!r}, now {own.get(key)!r}"
                )
        self.at = Position(**facts["position"])
        changed = self._changed()
        given = {n.removeprefix("network."): t for n, t in state.tensors.items() if n.startswith("network.")}
        if set(given) != set(changed) or self._frozen(changed) != facts["frozen"]:
            raise TrainingError(
                "the checkpoint is of another training: the network it began with was not this one"
            )
        for name, tensor in given.items():
            changed[name].copy_(tensor)
        self.totals.copy_(state.tensors["epoch.totals"])
        self.scores = list(facts["scores"])
        if "best" not in facts:
            return
        self.course = self._course()
        self.course.restore(
            {n.removeprefix("phase."): t for n, t in state.tensors.items() if n.startswith("phase.")}
        )
        best, told = self.course.best, facts["best"]
        best.score, best.waited = told["score"], told["waited"]
        best.heads = best.heads if told["by_head"] else {}
        best.scores = {(category, attribute): score for category, attribute, score in told["scores"]}
        if self.place.scaler is not None:
            self.place.scaler.load_state_dict(facts["scaler"])
