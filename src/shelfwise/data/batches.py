"""Batches: which products come together in which step, and the pictures they are shown as.

They know no files, networks or losses: pictures are taken from ``pixels``, labels are codes. Every draw is a
function of the seed, the epoch and the product's id: neither the order of the table nor the number of threads or
processes changes what a product looks like or when it comes. A thread fetches the next batch's pictures while the
present one is learnt from.

Legend: N products, B of one batch, A attributes (the most of any category), K Numbers, H height, W width, U
unlabelled ones.
"""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from shelfwise.data.augment import Augment
from shelfwise.data.beside import Beside, Tokens, Vectors
from shelfwise.data.draws import scramble
from shelfwise.data.mixing import Mixed, Mixing
from shelfwise.taxonomy import Taxonomy

Ints = NDArray[np.int64]
Keys = NDArray[np.uint64]
#: What a draw is for; draws for different ends do not depend on each other.
ORDER, WEIGHTS, PICTURE, UNLABELLED, MIXING = range(5)


class HasPixels(Protocol):
    """Pictures of one size, by row."""

    def take(self, rows: Sequence[int] | Ints) -> NDArray[np.uint8]:
        """Return the pictures of these rows, uint8 [n, H, W, 3]."""
        ...


@dataclass(frozen=True, eq=False)
class Products:
    """What is learnt from, in an order that does not depend on the table's.

    Attributes:
        ids: the products' ids.
        pixels: their pictures.
        rows: int64 [N], the row of each product's picture in ``pixels``.
        category: int64 [N], category codes; all -1 for unlabelled products.
        labels: int64 [N, A], value codes; -1 where nothing is stated.
        weights: float64 [N], how often each is drawn, in proportion; ``None`` for each once an epoch.
        numbers: float32 [N, K], standardised; NaN where nothing is stated. ``None`` where no Number is learnt.
        texts: what they say; ``None`` where texts are not read.
        shown: bool [N], whether there is a picture; ``None`` for all. Where texts are not read, all must have one.
    """

    ids: tuple[str, ...]
    pixels: HasPixels
    rows: Ints
    category: Ints
    labels: Ints
    weights: NDArray[np.float64] | None = None
    numbers: NDArray[np.float32] | None = None
    texts: Tokens | Vectors | None = None
    shown: NDArray[np.bool_] | None = None

    def take(self, at_B: Ints) -> tuple[torch.Tensor, Beside | None]:
        """Return the pictures of some products, and what comes beside them where texts are read.

        What stands in the place of a picture that is not there is not to be looked at.
        """
        there_B = np.ones(len(at_B), np.bool_) if self.shown is None else self.shown[at_B]
        images_BHWC = self.pixels.take(self.rows[at_B[there_B]])
        beside = None if self.texts is None else self.texts.take(at_B)
        if there_B.all() or beside is None:
            return torch.from_numpy(images_BHWC), beside
        every_BHWC = np.zeros((len(at_B), *images_BHWC.shape[1:]), np.uint8)
        every_BHWC[there_B] = images_BHWC
        return torch.from_numpy(every_BHWC), replace(beside, shown_B=torch.from_numpy(there_B))

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def keys(self) -> Keys:
        """A number for each id, uint64 [N]."""
        digests = b"".join(hashlib.blake2b(id_.encode(), digest_size=8).digest() for id_ in self.ids)
        return np.frombuffer(digests, "<u8").astype(np.uint64)


@dataclass(frozen=True, eq=False)
class Batch:
    """The products of one step.

    Attributes:
        ids: the products' ids.
        images_BHWC: float or uint8 in 0..255.
        category_B: long, category codes.
        labels_BA: long, value codes; -1 where nothing is stated or the picture was changed so that the label is
            no longer to be seen.
        rows_B: long, positions among the products learnt from.
        mixed: with which others the pictures were mixed.
        unlabelled_UHWC: pictures without labels.
        numbers_BK: float, standardised; NaN where nothing is stated, or another picture was mixed in.
        beside: the texts, and which pictures are there, for a network that reads.
    """

    ids: tuple[str, ...]
    images_BHWC: torch.Tensor
    category_B: torch.Tensor
    labels_BA: torch.Tensor
    rows_B: torch.Tensor
    mixed: Mixed | None = None
    unlabelled_UHWC: torch.Tensor | None = None
    numbers_BK: torch.Tensor | None = None
    beside: Beside | None = None

    def to(self, device: str | torch.device, non_blocking: bool = True) -> "Batch":
        """Return the batch on a device."""
        if torch.device(device).type == "cpu":
            return self

        moved: dict[str, Any] = {
            each.name: value.to(device, non_blocking=non_blocking)
            for each in fields(self)
            if isinstance(value := getattr(self, each.name), torch.Tensor | Beside)
        }
        return replace(self, mixed=None if self.mixed is None else self.mixed.to(device), **moved)


@dataclass(frozen=True, eq=False)
class Batches:
    """The batches of every epoch; call it with the number of an epoch.

    Attributes:
        products: what is learnt from.
        taxonomy: what the codes mean.
        size: height and width of the pictures as the network takes them.
        batch: B, over all processes; an epoch's batches differ in size by at most one.
        seed: of all draws.
        augment: how pictures are changed; ``None`` for as they are.
        mixing: which pictures are mixed; ``None`` for none.
        epochs: of the whole training, for mixing that fades.
        unlabelled: pictures that come along without labels, as many as there are products in the batch.
        process, processes: which part of every batch is this process's.
        ahead: batches whose pictures are fetched while one is learnt from.
        finish_ahead: change pictures in that thread as well; pays where the processor only waits for a GPU.
    """

    products: Products
    taxonomy: Taxonomy
    size: tuple[int, int]
    batch: int
    seed: int
    augment: Augment | None = None
    mixing: Mixing | None = None
    epochs: int = 1
    unlabelled: Products | None = None
    process: int = 0
    processes: int = 1
    ahead: int = 1
    finish_ahead: bool = False

    def __len__(self) -> int:
        """The batches of an epoch."""
        return max(1, -(-len(self.products) // self.batch))

    def __call__(self, epoch: int) -> "Epoch":
        """Return the batches of an epoch, counted from 0."""
        return Epoch(self, epoch)

    def order(self, epoch: int) -> tuple[Ints, Ints]:
        """Return the products of an epoch in the order they come, and which copy of itself each is."""
        count, weights_N = len(self.products), self.products.weights
        if weights_N is None:
            drawn_N, copy_N = np.arange(count), np.zeros(count, np.int64)
        else:
            drawn_N, copy_N = self._weighted(epoch, weights_N)
        place_N = _mixed(self.products.keys[drawn_N], self.seed, epoch, ORDER, copy_N)
        order = np.argsort(place_N, kind="stable")
        return drawn_N[order], copy_N[order]

    def _weighted(self, epoch: int, weights_N: NDArray[np.float64]) -> tuple[Ints, Ints]:
        """Draw as many products as there are by systematic sampling: each about as often as its weight says.

        A product of weight w among weights of mean 1 comes w times, rounded down or up by chance.
        """
        count = len(weights_N)
        shuffled = np.argsort(_mixed(self.products.keys, self.seed, epoch, WEIGHTS), kind="stable")
        edges = np.cumsum(weights_N[shuffled])
        start = _mixed(np.zeros(1, np.uint64), self.seed, epoch, WEIGHTS)[0] / 2.0**64
        points = (np.arange(count) + start) * (edges[-1] / count)
        drawn = np.sort(shuffled[np.minimum(np.searchsorted(edges, points, side="right"), count - 1)])
        first = np.searchsorted(drawn, drawn, side="left")
        return drawn, np.arange(count) - first


@dataclass(frozen=True, eq=False)
class Epoch:
    """The batches of one epoch, which may begin in the middle.

    Attributes:
        of: where they come from.
        number: of the epoch.
        first: the first batch that is given.
    """

    of: Batches
    number: int
    first: int = 0

    def __len__(self) -> int:
        return len(self.of) - self.first

    def skip(self, count: int) -> "Epoch":
        """Return the same epoch without its first batches."""
        return replace(self, first=self.first + count)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches, the next ones on their way."""
        given = self.of
        drawn, copies = given.order(self.number)
        parts = list(zip(np.array_split(drawn, len(given)), np.array_split(copies, len(given)), strict=True))

        def load(step: int) -> Any:
            at_B, copy_B = (part[given.process :: given.processes] for part in parts[step])
            fetched = self._fetch(at_B, copy_B, step)
            return self._finish(fetched) if given.finish_ahead else fetched

        waiting: deque[Future[Any]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            try:
                for step in range(self.first, len(parts)):
                    waiting.append(pool.submit(load, step))
                    if len(waiting) > given.ahead:
                        yield self._given(waiting.popleft().result())
                while waiting:
                    yield self._given(waiting.popleft().result())
            finally:
                for future in waiting:
                    future.cancel()

    @cached_property
    def _unlabelled(self) -> Ints:
        """The unlabelled products in the order they come along."""
        extra = self.of.unlabelled
        keys = np.zeros(0, np.uint64) if extra is None else extra.keys
        return np.argsort(_mixed(keys, self.of.seed, self.number, UNLABELLED), kind="stable")

    def _given(self, found: Any) -> Batch:
        return found if isinstance(found, Batch) else self._finish(found)

    def _fetch(self, at_B: Ints, copy_B: Ints, step: int) -> "_Fetched":
        """Take the pictures of a batch out of their store."""
        products, extra = self.of.products, self.of.unlabelled
        images, beside = products.take(at_B)
        unlabelled, extra_U = None, np.zeros(0, np.int64)
        if extra is not None and len(extra):
            first = step * self.of.batch + self.of.process
            extra_U = self._unlabelled[(first + self.of.processes * np.arange(len(at_B))) % len(extra)]
            unlabelled = torch.from_numpy(extra.pixels.take(extra.rows[extra_U]))
        return _Fetched(step, at_B, copy_B, images, beside, extra_U, unlabelled)

    def _finish(self, fetched: "_Fetched") -> Batch:
        """Change the pictures, mask labels that can no longer be seen, and mix."""
        given, products, at_B = self.of, self.of.products, fetched.at_B
        images = fetched.images
        category_B = torch.from_numpy(products.category[at_B])
        labels_BA = torch.from_numpy(products.labels[at_B])
        extra = fetched.unlabelled
        if given.augment is not None:
            seeds_B = self._seeds(products.keys[at_B], fetched.copy_B)
            changed = given.augment.apply(images, given.size, seeds_B)
            images = changed.images_BHWC
            labels_BA = given.augment.masked(labels_BA, changed.did, category_B, given.taxonomy)
            if extra is not None and given.unlabelled is not None:
                keys_U = given.unlabelled.keys[fetched.extra_U]
                copy_U = np.arange(len(keys_U)) + fetched.step * given.batch
                extra = given.augment.apply(extra, given.size, self._seeds(keys_U, copy_U)).images_BHWC
        mixed = None
        if given.mixing is not None:
            key = np.array([fetched.step * given.processes + given.process], np.uint64)
            seed = int(_mixed(key, given.seed, self.number, MIXING)[0] >> np.uint64(1))
            done = (self.number + fetched.step / len(given)) / given.epochs
            images, mixed = given.mixing.apply(images, category_B, labels_BA, seed=seed, progress=done)
        ids = tuple(products.ids[at] for at in at_B.tolist())
        numbers_BK = None if products.numbers is None else torch.from_numpy(products.numbers[at_B])
        if numbers_BK is not None and mixed is not None:
            numbers_BK = numbers_BK.masked_fill((mixed.share_B < 1)[:, None], float("nan"))
        rows_B = torch.from_numpy(at_B)
        return Batch(ids, images, category_B, labels_BA, rows_B, mixed, extra, numbers_BK, fetched.beside)

    def _seeds(self, keys_B: Keys, copy_B: Ints) -> torch.Tensor:
        drawn = _mixed(keys_B, self.of.seed, self.number, PICTURE, copy_B)
        return torch.from_numpy((drawn >> np.uint64(1)).astype(np.int64))


@dataclass(frozen=True, eq=False)
class _Fetched:
    """A batch as it comes out of the store of pictures."""

    step: int
    at_B: Ints
    copy_B: Ints
    images: torch.Tensor
    beside: Beside | None
    extra_U: Ints
    unlabelled: torch.Tensor | None


def _mixed(keys: Keys, seed: int, epoch: int, what: int, copy: Ints | None = None) -> Keys:
    """Return a number for each key that looks drawn: SplitMix64 over all parts."""
    found = keys.copy()
    copies = np.zeros(len(keys), np.uint64) if copy is None else copy.astype(np.uint64)
    for part in (np.full(len(keys), seed, np.uint64), np.full(len(keys), epoch, np.uint64), copies):
        found = scramble(found ^ scramble(part + np.uint64(what)))
    return found
