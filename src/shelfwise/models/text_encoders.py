"""Text encoders: texts to [N, D] vectors, fitted to the training texts or frozen.

It knows no listings and no tables: a text is a string. An entry of the registry gives an encoder, and its ``fit`` what
encodes. A frozen encoder is its own fit; its vectors are kept on disk by the content of the text, rounded to float16
before anyone sees them, so a value is the same whether it was computed now or read back. A text without anything but
blanks is a row of NaN: what that means is up to the caller. Importing this module does not import torch.

Legend: N texts, D features, B texts of one call, T tokens, W features of a token.
"""

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from shelfwise.data.images import content_digest
from shelfwise.data.store import Store
from shelfwise.errors import BundleError, UsageError
from shelfwise.files import cache_directory, write_text
from shelfwise.models.backbones import version
from shelfwise.models.embed import FLUSH
from shelfwise.models.engines import cores, settle_device
from shelfwise.models.halves import to_half
from shelfwise.predictions import Machine
from shelfwise.registry import REGISTRIES, Spec

if TYPE_CHECKING:
    from torch import nn

Vectors = NDArray[np.float32]
#: What an encoder writes about itself into its folder.
FILE = "text.json"
#: Part of every fingerprint; raised when the same weights and options come to mean other vectors.
REVISION = 1
#: What a tokenizer makes of these is part of the fingerprint; the last one is longer than most contexts.
PROBES = ("Cotton shirt, 2 x 500 ml (Pack of 12)", "ÄÖß café\t½ ₹1,299/- 棉 \U0001f600", "long text 9 " * 600)
#: Texts of one call on a GPU, and what their lengths are rounded up to, so that few shapes of a batch occur.
CUDA_BATCH, CUDA_STEP = 64, 16


@runtime_checkable
class FittedText(Protocol):
    """What encodes texts.

    Attributes:
        dimension: D.
    """

    @property
    def dimension(self) -> int:
        """D."""
        ...

    def encode(self, texts: Sequence[str], machine: Machine) -> Vectors:
        """Return float32 [N, D]; NaN where a text is empty. A row depends on its text alone."""
        ...

    def save(self, folder: Path) -> None:
        """Write what was learnt, or what tells the frozen weights from others, into a folder."""
        ...


@runtime_checkable
class TextEncoder(Protocol):
    """What an entry of the registry gives: an encoder with its options."""

    def fit(self, texts: Sequence[str], *, seed: int) -> FittedText:
        """Learn from the training texts; frozen encoders return themselves."""
        ...

    def load(self, folder: Path) -> FittedText:
        """Read what ``save`` of a fit with these options wrote.

        Raises:
            BundleError: it is missing or broken, or was written by another encoder or with other weights.
        """
        ...


def build_text_encoder(spec: Spec) -> TextEncoder:
    """Build a registered text encoder.

    Raises:
        UsageError: an unknown name or option, or weights that are not there or do not fit.
        MissingExtra: the encoder needs a package that is not installed.
    """
    built = REGISTRIES["text_encoder"].build(spec)
    if not isinstance(built, TextEncoder):
        raise UsageError(f"the text encoder {spec.name!r} gave a {type(built).__name__} without fit and load")
    return built


def frozen(spec: Spec) -> "FrozenText":
    """Build a text encoder that is a network with its tokenizer.

    Raises:
        UsageError: it is none.
    """
    built = build_text_encoder(spec)
    if not isinstance(built, FrozenText):
        raise UsageError(f"the text encoder {spec.name!r} has no network of tokens; use 'sentence' or 'clip'")
    return built


def readable(texts: Sequence[str]) -> list[str]:
    """Return texts without outer blanks; halves of surrogate pairs, which no encoding has, become ``?``."""
    return [text.encode("utf-8", "replace").decode("utf-8").strip() for text in texts]


def read_card(folder: Path, expected: dict[str, Any]) -> dict[str, Any]:
    """Read what an encoder wrote about itself, and make sure that it is the expected one.

    Args:
        folder: the encoder's.
        expected: keys that must have these values.

    Raises:
        BundleError: it cannot be read, or says something else.
    """
    path = folder / FILE
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: cannot be read: {error}") from error
    if not isinstance(card, dict):
        raise BundleError(f"{path}: holds no JSON object")
    other = [key for key, value in expected.items() if card.get(key) != value]
    if other:
        said = ", ".join(f"{key} {card.get(key)!r} where it is {expected[key]!r} here" for key in other)
        raise BundleError(f"{path}: was written by another text encoder: {said}")
    return card


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Write what an encoder says of itself; the same content is the same bytes."""
    write_text(folder / FILE, json.dumps(card, ensure_ascii=False, sort_keys=True, indent=1) + "\n")


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """Texts to token ids; calls take turns, as tokenizers are not safe to share between threads.

    Attributes:
        split: ids of every text, cut to the longest length the network takes, without padding.
        pad: the id that fills up.
        longest: the most tokens the network takes.
        fixed: whether it takes that length only.
    """

    split: Callable[[list[str]], list[list[int]]]
    pad: int
    longest: int
    fixed: bool = False
    turn: Any = field(default_factory=threading.Lock, repr=False)

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of every text, at least one."""
        with self.turn:
            return [row or [self.pad] for row in self.split(list(texts))]

    def fingerprint(self) -> str:
        """Return a SHA-256 over what it makes of a few texts: another tokenizer has another one."""
        told = [self.rows(readable(PROBES)), self.pad, self.longest, self.fixed]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def filled(
        self, rows: Sequence[Sequence[int]], *, step: int = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return ids int64 [B, T] and which of them are no filling, bool [B, T].

        Args:
            rows: ids of every text.
            step: T is a multiple of it, where the network takes any length, or the longest.
        """
        length = -(-max(map(len, rows), default=1) // step) * step
        length = self.longest if self.fixed else min(length, self.longest)
        ids_BT = np.full((len(rows), length), self.pad, np.int64)
        mask_BT = np.zeros(ids_BT.shape, np.bool_)
        for at, row in enumerate(rows):
            ids_BT[at, : len(row)] = row
            mask_BT[at, : len(row)] = True
        return ids_BT, mask_BT


@dataclass(frozen=True, eq=False)
class FrozenText:
    """A network with its tokenizer that encodes as it is.

    Attributes:
        name: what to call it, with the options that change the vectors.
        tower: the network, ids and mask to a vector and token vectors, with ``width`` (W) and ``layer_groups`` from the
            embeddings to the last layer.
        tokenizer: texts to what the network takes.
        dimension: D.
        fingerprint: SHA-256 over name, tokens of a few texts and weights; the same in every run.
    """

    name: str
    tower: "nn.Module"
    tokenizer: Tokenizer
    dimension: int
    fingerprint: str

    def fit(self, texts: Sequence[str], *, seed: int) -> "FrozenText":
        """Return the encoder itself: nothing is learnt."""
        return self

    def tokens(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return token ids int64 [N, T] and which of them are no filling, bool [N, T].

        An empty text has the tokens that begin and end every text, so no row of the mask is all false.
        """
        return self.tokenizer.filled(self.tokenizer.rows(readable(texts)))

    def encode(self, texts: Sequence[str], machine: Machine) -> Vectors:
        """Return float32 [N, D], NaN where a text is empty; what the cache knows is not computed.

        On the CPU a call takes one text and one thread, and texts run side by side, as photos do; on a GPU batches
        have one size and few lengths. So a vector does not depend on the texts beside it.

        Raises:
            EngineError: the network gives numbers that are not finite.
            UsageError: an unknown device, or one that is not there.
        """
        clean = readable(texts)
        digests = [content_digest(text.encode()) if text else None for text in clean]
        first = {digest: text for digest, text in zip(digests, clean, strict=True) if digest is not None}
        device = settle_device(machine.device)
        path = cache_directory(machine.cache) / "embeddings" / f"text-{self._space(device)}.sqlite"
        vectors_ND = np.full((len(clean), self.dimension), np.nan, np.float32)
        with Store(path) as store:
            known = store.get(list(first))
            fresh: dict[bytes, bytes] = {}
            new = [digest for digest in first if digest not in known]
            computed = self._computed([first[digest] for digest in new], device, machine.jobs or cores())
            for done, (at, vector_D) in enumerate(computed, 1):
                fresh[new[at]] = to_half(vector_D).tobytes()
                if len(fresh) == FLUSH or done == len(new):
                    store.put(fresh)
                    known |= fresh
                    fresh = {}
                if machine.progress is not None and (done % 16 == 0 or done == len(new)):
                    machine.progress("encode texts", done, len(new))
        for row, digest in enumerate(digests):
            if digest is not None:
                vectors_ND[row] = np.frombuffer(known[digest], "<f2")
        return vectors_ND

    def save(self, folder: Path) -> None:
        """Write what tells these weights from others; the weights themselves stay where they are."""
        write_card(folder, self._card())

    def load(self, folder: Path) -> "FrozenText":
        """Return the encoder itself, if it is the one that was saved.

        Raises:
            BundleError: it is not, or nothing was saved.
        """
        read_card(folder, self._card())
        return self

    def _card(self) -> dict[str, Any]:
        return {"encoder": self.name, "dimension": self.dimension, "fingerprint": self.fingerprint}

    def _space(self, device: str) -> str:
        """A name for the vectors: equal exactly where they are interchangeable."""
        major = ".".join(version("torch").split(".")[:2])
        return hashlib.sha256(json.dumps([self.fingerprint, device, major]).encode()).hexdigest()[:32]

    def _computed(self, texts: Sequence[str], device: str, jobs: int) -> Iterator[tuple[int, Vectors]]:
        """Yield (position, vector float32 [D]) of every text, the shortest first."""
        if not texts:
            return
        rows = self.tokenizer.rows(texts)
        order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
        size, step = (CUDA_BATCH, CUDA_STEP) if device == "cuda" else (1, 1)
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        self.tower.to(device)

        def run(batch: list[int]) -> Vectors:
            # A batch that is not full repeats its first text: a batch of one length has one shape.
            full = [rows[at] for at in batch] + [rows[batch[0]]] * (size - len(batch))
            return run_tower(self.tower, *self.tokenizer.filled(full, step=step), device)[: len(batch)]

        with contextlib.ExitStack() as stack:
            if size > 1 or jobs == 1:
                results: Iterator[Vectors] = map(run, batches)
            else:
                pool = ThreadPoolExecutor(jobs, thread_name_prefix="text")
                stack.callback(pool.shutdown, wait=True, cancel_futures=True)
                results = pool.map(run, batches)
            for batch, vectors_BD in zip(batches, results, strict=True):
                yield from zip(batch, vectors_BD, strict=True)


def run_tower(
    tower: "nn.Module", ids_BT: NDArray[np.int64], mask_BT: NDArray[np.bool_], device: str = "cpu"
) -> Vectors:
    """Return the vectors float32 [B, D] of one call, on one thread."""
    import torch

    from shelfwise.models.towers import one_thread

    with one_thread(), torch.inference_mode():
        vector_BD, _ = tower(torch.from_numpy(ids_BT).to(device), torch.from_numpy(mask_BT).to(device))
        found: Vectors = vector_BD.float().cpu().numpy()
    return found


def make_frozen(name: str, tower: "nn.Module", tokenizer: Tokenizer) -> FrozenText:
    """Return a FrozenText around a network.

    Args:
        name: architecture and the options that change the vectors (weights and tokenizer aside).
        tower: is set to evaluation.
        tokenizer: texts to what it takes.
    """
    from shelfwise.models.towers import digest_weights

    tower.eval()
    rows = tokenizer.rows(readable(PROBES))
    dimension = int(run_tower(tower, *tokenizer.filled(rows[:1])).shape[1])
    identity = json.dumps([REVISION, name, dimension, rows, tokenizer.pad])
    fingerprint = hashlib.sha256((identity + digest_weights(tower)).encode()).hexdigest()
    return FrozenText(name, tower, tokenizer, dimension, fingerprint)
