"""Track: where steps go: console, JSONL, TensorBoard, MLflow, Weights & Biases.

It does not know what is trained, nor when training stops: it is given the loop's events, one by one, and the
folder of the run. The JSONL file and TensorBoard follow the run through kills and resumes without a step twice; the
two services get one record an epoch. Their keys come from the environment, never from a run file.
"""

import contextlib
import json
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from shelfwise.config import TrackOptions
from shelfwise.errors import UsageError, require
from shelfwise.files import Progress, replacing, write_text

if TYPE_CHECKING:
    from shelfwise.train.events import Event

#: The file of a run's steps and epochs, inside its folder and inside a bundle.
FILE = "training.jsonl"
#: In which order the events of one step come.
ORDER = {"step": 0, "epoch": 1, "phase": 2}
#: What an epoch's line says only of the machine it ran on.
TIMINGS = ("pictures_per_second", "seconds_left")
Record = dict[str, Any]


class Tracker(Protocol):
    """Takes a run's events in order, and is closed once; ``failed`` says whether the run broke off."""

    def take(self, event: "Event", record: Record) -> None: ...  # noqa: D102
    def close(self, failed: bool) -> None: ...  # noqa: D102


@contextlib.contextmanager
def tracker(
    options: TrackOptions | None, directory: str | Path, progress: Progress | None = None
) -> "Iterator[Callable[[Event], None]]":
    """Give a function that takes the loop's events and sends each where the options say.

    Events of processes that do not log (``event.main``) are left out.

    Args:
        options: by default console and JSONL.
        directory: of the run; the same one when the run is resumed.
        progress: what the console is; without it, it shows nothing.

    Raises:
        MissingExtra: a service's package is not installed.
        UsageError: Weights & Biases without a key in the environment.
    """
    options = options or TrackOptions()
    directory = Path(directory)
    with contextlib.ExitStack() as stack:
        trackers = [_open(name, options, directory, progress) for name in dict.fromkeys(options.to)]
        for each in reversed(trackers):
            stack.push(lambda kind, error, trace, each=each: each.close(kind is not None))

        def take(event: "Event") -> None:
            if event.main:
                record = record_of(event)
                for each in trackers:
                    each.take(event, record)

        yield take


def _open(name: str, options: TrackOptions, directory: Path, progress: Progress | None) -> Tracker:
    match name:
        case "console":
            return Console(progress)
        case "jsonl":
            return Jsonl(directory / FILE)
        case "tensorboard":
            return TensorBoard(directory / "tensorboard")
        case "mlflow":
            return Mlflow(options.experiment, directory)
        case _:
            return WandB(options.project, directory)


def record_of(event: "Event") -> Record:
    """Return an event as JSON has it: NaN is null, pairs are ``[category, attribute, number]``.

    A step has no pairs: there may be thousands of them, and one step says next to nothing of each.
    """
    pairs = {} if event.kind == "step" else {"scores": event.scores, "pair_loss": event.pair_loss}
    return {
        "kind": event.kind,
        "phase": event.phase,
        "epoch": event.epoch,
        "step": event.step,
        "of": event.of,
        "loss": _number(event.loss),
        "rates": {name: _number(rate) for name, rate in event.rates.items()},
        "pictures_per_second": _number(event.pictures_per_second),
        "seconds_left": _number(event.seconds_left),
        "score": None if event.score is None else _number(event.score),
        "best": event.best,
        **{
            name: [[*pair, _number(value)] for pair, value in found.items()]
            for name, found in pairs.items()
            if found
        },
    }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


class Console:
    """One line that is written over: loss, score and pictures a second; the progress adds the time left."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress, self.score = progress, float("nan")
        self.words, self.left = "", 0

    def take(self, event: "Event", record: Record) -> None:
        """Show a step, with the score of the epoch before."""
        if event.score is not None:
            self.score = event.score
        if self.progress is None or not event.of:
            return
        parts = ["training", f"loss {event.loss:.3f}"]
        if math.isfinite(self.score):
            parts.append(f"score {self.score:.3f}")
        if event.pictures_per_second > 0:
            parts.append(f"{event.pictures_per_second:,.0f} pictures/s")
        # The last step is shown as done when its epoch has been scored.
        last = event.step >= event.of and event.kind == "step"
        self.words, self.left = " · ".join(parts), event.of - event.step + last
        self.progress(self.words, event.of - self.left, event.of)

    def close(self, failed: bool) -> None:
        """Take the line away where a training stopped early."""
        if self.progress is not None and self.left and not failed:
            self.progress(self.words, 1, 1)


class Jsonl:
    """One line an event, in order; what a killed run wrote beyond its last checkpoint is written anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: Any = None

    def take(self, event: "Event", record: Record) -> None:
        """Append a line; it is in the file before the training goes on, and on the disk after every epoch."""
        if self.file is None:
            self._go_on(_place(record))
        self.file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
        self.file.flush()
        if event.kind != "step":
            os.fsync(self.file.fileno())

    def _go_on(self, first: tuple[int, int]) -> None:
        """Keep the lines before the first event of this process; a part of a line goes."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            lines = [
                json.dumps(line, ensure_ascii=False) + "\n"
                for line in read_jsonl(self.path)
                if _place(line) < first
            ]
            with replacing(self.path) as temporary:
                temporary.write_text("".join(lines), encoding="utf-8", newline="\n")
        self.file = self.path.open("a", encoding="utf-8", newline="\n")

    def close(self, failed: bool) -> None:
        """Close the file."""
        if self.file is not None:
            self.file.close()


def _place(record: Record) -> tuple[int, int]:
    return int(record["step"]), ORDER[record["kind"]]


def read_jsonl(path: str | Path) -> list[Record]:
    """Read a file of events; a line that was cut off by a kill, and what follows it, is left out.

    Raises:
        UsageError: the file cannot be read.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"cannot read the steps of a training: {error}") from error
    records: list[Record] = []
    for line in text.split("\n")[:-1]:
        try:
            record = json.loads(line)
            _place(record)
        except (ValueError, KeyError, TypeError):
            break
        records.append(record)
    return records


def epochs_of(records: Sequence[Record]) -> list[Record]:
    """Return the epochs without what only says how fast the machine was: the same run has the same ones."""
    epochs = [record for record in records if record["kind"] == "epoch"]
    return [{name: value for name, value in record.items() if name not in TIMINGS} for record in epochs]


def write_epochs(path: str | Path, epochs: Sequence[Record]) -> None:
    """Write epochs as a file that ``read_jsonl`` reads, whole or not at all; such a file goes into a bundle."""
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in epochs))


def numbers_of(record: Record) -> dict[str, float]:
    """Return an event's numbers by name: ``loss``, ``score``, ``rate/heads``, ``score/Category/attribute`` ..."""
    found = {name: record[name] for name in ("loss", "score", "pictures_per_second")}
    found |= {f"rate/{name}": rate for name, rate in record["rates"].items()}
    for key, word in (("scores", "score"), ("pair_loss", "loss")):
        found |= {
            f"{word}/{category}/{attribute}": value for category, attribute, value in record.get(key, [])
        }
    return {name: value for name, value in found.items() if value is not None}


class TensorBoard:
    """Event files beside the checkpoints; ``tensorboard --logdir`` of the folder of runs shows all runs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.writer: Any = None

    def take(self, event: "Event", record: Record) -> None:
        """Write the numbers of a step or an epoch; those of an epoch stand in a group of their own."""
        if self.writer is None:
            # Steps from here on that an earlier process wrote are not shown again.
            self.writer = _summary_writer(self.directory, event.step)
        if event.kind == "phase":
            return
        for name, value in numbers_of(record).items():
            self.writer.add_scalar(f"{event.kind}/{name}", value, event.step)
        if event.kind == "epoch":
            self.writer.flush()

    def close(self, failed: bool) -> None:
        """Flush and close."""
        if self.writer is not None:
            self.writer.close()


def _summary_writer(directory: Path, step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(directory), purge_step=step)


class _Service:
    """What both services share: one record an epoch, none twice, and a training that outlives a service."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name, self.path = name, directory / f"{name}.json"
        self.known: dict[str, Any] = {}
        if self.path.exists():
            self.known = json.loads(self.path.read_text(encoding="utf-8"))
        self.well = True

    def new(self, epoch: int) -> bool:
        """Whether an epoch has not been sent yet."""
        return self.well and epoch > int(self.known.get("epoch", -1))

    def keep(self, **entries: Any) -> None:
        """Remember the name of the run, or the epoch that was sent last."""
        self.known |= entries
        write_text(self.path, json.dumps(self.known) + "\n")

    def gone(self, error: Exception) -> None:
        """Say once that a service does not answer; the training is worth more than its curve."""
        self.well = False
        warnings.warn(
            f"{self.name} is told no more of this training, which goes on: {error}",
            RuntimeWarning,
            stacklevel=3,
        )


class Mlflow:
    """A run in MLflow, at ``MLFLOW_TRACKING_URI``; a resumed training goes on in its run."""

    def __init__(self, experiment: str, directory: Path) -> None:
        self.mlflow = require("mlflow", extra="mlflow")
        self.errors = OSError, require("mlflow.exceptions", extra="mlflow").MlflowException
        self.experiment, self.title = experiment, directory.name
        self.service, self.open = _Service("mlflow", directory), False

    def take(self, event: "Event", record: Record) -> None:
        """Send an epoch."""
        if event.kind != "epoch" or not self.service.new(event.epoch):
            return
        try:
            if not self.open:
                self._start()
            self.mlflow.log_metrics(_renamed(numbers_of(record)), step=event.step)
        except self.errors as error:
            self.service.gone(error)
            return
        self.service.keep(epoch=event.epoch)

    def _start(self) -> None:
        self.mlflow.set_experiment(self.experiment)
        known = self.service.known.get("run")
        begun = self.mlflow.start_run(run_id=known) if known else self.mlflow.start_run(run_name=self.title)
        self.open = True
        self.service.keep(run=begun.info.run_id)

    def close(self, failed: bool) -> None:
        """End the run; one that broke off can be gone on with."""
        if self.open:
            try:
                self.mlflow.end_run("FAILED" if failed else "FINISHED")
            except self.errors as error:
                self.service.gone(error)


def _renamed(numbers: Mapping[str, float]) -> dict[str, float]:
    """Return numbers under names that MLflow takes; two that become alike are told apart by a number."""
    found: dict[str, float] = {}
    for name, value in numbers.items():
        plain = re.sub(r"[^\w\-. /]|[^\x00-\x7f]", "_", name)
        unique, count = plain, 2
        while unique in found:
            unique, count = f"{plain}_{count}", count + 1
        found[unique] = value
    return found


class WandB:
    """A run in Weights & Biases; a resumed training goes on in its run."""

    def __init__(self, project: str, directory: Path) -> None:
        if not os.environ.get("WANDB_API_KEY") and os.environ.get("WANDB_MODE") not in (
            "offline",
            "disabled",
        ):
            raise UsageError(
                "track.to: wandb needs its key in the environment, WANDB_API_KEY; or WANDB_MODE=offline to "
                "write to the disk only"
            )
        self.wandb = require("wandb", extra="wandb")
        self.errors = OSError, require("wandb.errors", extra="wandb").Error
        self.project, self.directory = project, directory
        self.service = _Service("wandb", directory)
        self.run: Any = None

    def take(self, event: "Event", record: Record) -> None:
        """Send an epoch."""
        if event.kind != "epoch" or not self.service.new(event.epoch):
            return
        try:
            if self.run is None:
                self._start()
            self.run.log(numbers_of(record), step=event.step)
        except self.errors as error:
            self.service.gone(error)
            return
        self.service.keep(epoch=event.epoch)

    def _start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        known = self.service.known.get("run")
        self.run = self.wandb.init(
            project=self.project, name=self.directory.name, dir=str(self.directory), id=known, resume="allow"
        )
        self.service.keep(run=self.run.id)

    def close(self, failed: bool) -> None:
        """End the run."""
        if self.run is not None:
            try:
                self.run.finish(exit_code=int(failed))
            except self.errors as error:
                self.service.gone(error)
