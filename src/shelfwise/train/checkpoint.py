"""Checkpoints: atomic save, exact resume, the last two kept.

It does not know what is trained. A checkpoint is a directory ``step-<number>`` of two files:
``tensors.safetensors`` and ``state.json``, which holds everything that is no tensor and the SHA-256 of both. It
appears under its name only when all of it is on the disk, so a full disk, Ctrl-C or ``kill -9`` leave the one
before as it was.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from shelfwise.errors import TrainingError
from shelfwise.files import replacing_directory, sha256

FORMAT = 1
TENSORS, FACTS = "tensors.safetensors", "state.json"


@dataclass(frozen=True, eq=False)
class State:
    """All that a training needs to go on exactly: tensors by name, and facts that JSON can hold.

    Tensors are those of the running training, not copies: save them before the training goes on.

    Attributes:
        step: steps of the optimiser taken, over all phases; names the checkpoint.
        tensors: weights, moments, averages, the best weights so far.
        facts: position, scores, scale of the loss.
    """

    step: int
    tensors: Mapping[str, torch.Tensor]
    facts: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Loaded:
    """What was found in a folder of checkpoints.

    Attributes:
        state: the newest whole one; ``None`` where there is none.
        notes: one sentence per damaged checkpoint that was passed over.
    """

    state: State | None
    notes: tuple[str, ...] = field(default=())


def save(directory: str | Path, state: State, *, keep: int = 2) -> Path:
    """Write a checkpoint whole or not at all, then delete all but the newest.

    Args:
        directory: the folder of one training's checkpoints.
        state: of the training.
        keep: how many to keep.

    Returns:
        The checkpoint's own directory.

    Raises:
        OSError: the disk is full, or the folder cannot be written; earlier checkpoints are as they were.
    """
    directory = Path(directory)
    path = directory / f"step-{state.step:09d}"
    with replacing_directory(path) as temporary:
        tensors = {name: tensor.detach().contiguous() for name, tensor in state.tensors.items()}
        save_file(tensors, temporary / TENSORS)
        facts = json.dumps(dict(state.facts), ensure_ascii=False, sort_keys=True)
        described = {
            "format": FORMAT,
            "step": state.step,
            "tensors": sha256(temporary / TENSORS),
            "facts": hashlib.sha256(facts.encode()).hexdigest(),
            "state": json.loads(facts),
        }
        (temporary / FACTS).write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")
    for old in _checkpoints(directory)[keep:]:
        shutil.rmtree(old)
    return path


def load_last(directory: str | Path) -> Loaded:
    """Return the newest whole checkpoint of a folder; damaged ones are passed over and named.

    Args:
        directory: the folder of one training's checkpoints; it need not exist.
    """
    notes: list[str] = []
    for path in _checkpoints(Path(directory)):
        try:
            return Loaded(_load(path), tuple(notes))
        except TrainingError as error:
            notes.append(str(error))
    return Loaded(None, tuple(notes))


def _checkpoints(directory: Path) -> list[Path]:
    """Checkpoints of a folder, newest first; unfinished ones have other names."""
    return sorted((path for path in directory.glob("step-*") if path.is_dir()), reverse=True)


def _load(path: Path) -> State:
    """Read one checkpoint, every byte of it checked."""
    try:
        described = json.loads((path / FACTS).read_text(encoding="utf-8"))
        known = described["format"], described["tensors"], described["facts"], described["state"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"the checkpoint {path} is damaged: {FACTS} cannot be read ({error})") from error
    version, tensors_sum, facts_sum, facts = known
    if version != FORMAT:
        raise TrainingError(f"the checkpoint {path} has format {version!r}, this version reads {FORMAT}")
    text = json.dumps(facts, ensure_ascii=False, sort_keys=True)
    if hashlib.sha256(text.encode()).hexdigest() != facts_sum:
        raise TrainingError(f"the checkpoint {path} is damaged: {FACTS} is not what was written")
    try:
        if sha256(path / TENSORS) != tensors_sum:
            raise TrainingError(f"the checkpoint {path} is damaged: {TENSORS} is not what was written")
        tensors = load_file(path / TENSORS)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"the checkpoint {path} is damaged: {TENSORS} cannot be read") from error
    return State(int(described["step"]), tensors, facts)
