"""Remembered: vectors of photos in memory, for a process that is asked again and again.

It knows no tables and writes nothing to disk. A photo may be looked at before anybody asks for its vector, by any
thread; what cannot be read is remembered as well. Legend: N rows, D features.
"""

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from shelfwise.data.images import content_digest, read_bytes
from shelfwise.errors import ImageError
from shelfwise.files import Progress
from shelfwise.models.embed import Embeddings, HasImages, embed, vector_of
from shelfwise.models.engines import Chosen
from shelfwise.models.halves import Half

#: Vectors that are remembered; of 1,280 numbers they are 10 MB.
MOST = 4096
#: An engine is used ahead where it was asked about so large a share of the pictures that another was asked about. The
#: large network of a cascade sees few of them.
USUAL = 0.9


@dataclass(eq=False)
class Remembered:
    """The vectors of the pictures that were seen last; safe for threads.

    Attributes:
        most: how many are kept.
    """

    most: int = MOST
    _kept: OrderedDict[tuple[str, bytes], Half | ImageError] = field(default_factory=OrderedDict)
    _asked: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self, photo: bytes, engines: Iterable[Chosen]) -> None:
        """Compute the vectors of a photo by the engines that are usually asked, so that they are there when wanted.

        Raises:
            EngineError: as ``embed``.
        """
        digest = content_digest(photo)
        for chosen in engines:
            space = chosen.space
            if chosen.engine.batch == 1 and self._usual(space) and self._get(space, digest) is None:
                self._put(space, {digest: vector_of(photo, chosen)})

    def vectors(
        self, photos: HasImages, chosen: Chosen, *, jobs: int | None = None, progress: Progress | None = None
    ) -> Embeddings:
        """Return the vectors of all photos, those that are remembered without a look; as ``embed`` does.

        Raises:
            EngineError: as ``embed``.
        """
        sources, space = photos.images, chosen.space
        errors = dict(photos.image_errors)
        digests: dict[int, bytes] = {}
        held: dict[bytes, bytes] = {}
        for row, source in enumerate(sources):
            if source is None or row in errors:
                continue
            try:
                data = read_bytes(source)
            except ImageError as error:
                errors[row] = error
                continue
            digests[row] = content_digest(data)
            held[digests[row]] = data
        with self._lock:
            self._asked[space] += len(held)
        known = {digest: self._get(space, digest) for digest in held}
        new = [digest for digest, vector in known.items() if vector is None]
        if new:
            found = embed([held[digest] for digest in new], chosen, jobs=jobs, progress=progress)
            computed = {
                digest: found.errors.get(row, found.vectors[row].astype("<f2"))
                for row, digest in enumerate(new)
            }
            self._put(space, computed)
            known |= computed
        vectors_ND = np.full((len(sources), chosen.card.dimension), np.nan, np.float32)
        for row, digest in digests.items():
            vector = known[digest]
            if isinstance(vector, ImageError):
                errors[row] = ImageError(vector.kind, f"{sources[row]}: {vector}")
            else:
                vectors_ND[row] = vector
        card, record = chosen.card, chosen.record
        return Embeddings(vectors_ND, dict(sorted(errors.items())), record, card.fingerprint, space, len(new))

    def _usual(self, space: str) -> bool:
        with self._lock:
            return self._asked[space] >= USUAL * max(self._asked.values(), default=0)

    def _get(self, space: str, digest: bytes) -> Half | ImageError | None:
        with self._lock:
            return self._kept.get((space, digest))

    def _put(self, space: str, computed: Mapping[bytes, Half | ImageError]) -> None:
        """Keep vectors; the oldest make room."""
        with self._lock:
            for digest, vector in computed.items():
                self._kept[space, digest] = vector
            while len(self._kept) > self.most:
                self._kept.popitem(last=False)
