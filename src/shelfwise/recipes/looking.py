"""Looking: the features of products whose picture is seen and whose text is read, one product at a time.

It does not know what is made of them. On the CPU a call takes one product and one thread, and products run side by
side; on a GPU batches have one size and one length. So features do not depend on the products beside.
Legend: N products, n of one call, D features, E of a text, H height, W width of a picture, T tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from shelfwise.catalog import Catalog
from shelfwise.data.beside import Beside, Tokens, Vectors
from shelfwise.data.images import read_bytes
from shelfwise.errors import ImageError
from shelfwise.models.backbones import Preprocess
from shelfwise.models.engines import cores, settle_device
from shelfwise.models.pair_tower import PairTower
from shelfwise.models.towers import one_thread
from shelfwise.predictions import Machine
from shelfwise.recipes.tuned_network import TunedNetwork
from shelfwise.recipes.words import Words

Floats = npt.NDArray[np.float32]
#: Products of one call on a GPU.
CUDA_BATCH = 32
#: Bytes of token vectors that are kept while a text tower is not trained.
MOST_READ = 4 << 30


@dataclass(frozen=True, eq=False)
class Looking:
    """What it takes to look at products.

    Attributes:
        network: of a pair, in evaluation.
        words: how texts become tokens.
        preprocess: how photos become pixels.
        flips: put the features of the mirrored picture behind those of the picture.
    """

    network: TunedNetwork
    words: Words
    preprocess: Preprocess
    flips: bool

    def __call__(self, catalog: Catalog, machine: Machine) -> tuple[Floats, Mapping[int, ImageError]]:
        """Return features float32 [N, D] and what is wrong with pictures, by row.

        A row is what the heads of Choice attributes take, then what those of Numbers take; NaN where there is neither
        a picture nor a text.
        """
        device = settle_device(machine.device)
        said, wrong = self.words.rows(catalog), dict(catalog.image_errors)
        size = CUDA_BATCH if device == "cuda" else 1
        batches = [range(at, min(at + size, len(catalog))) for at in range(0, len(catalog), size)]
        found: dict[int, Floats] = {}
        self.network.to(device).eval()

        def run(rows: Sequence[int]) -> list[tuple[int, Floats | None, ImageError | None]]:
            return self._batch(rows, [catalog.images[row] for row in rows], wrong, said, size, device)

        jobs = (machine.jobs or cores()) if size == 1 else 1
        with ThreadPoolExecutor(jobs, thread_name_prefix="look") as pool:
            results: Iterator[list[tuple[int, Floats | None, ImageError | None]]] = pool.map(run, batches)
            for batch, result in zip(batches, results, strict=True):
                for row, features_D, error in result:
                    if features_D is not None:
                        found[row] = features_D
                    if error is not None:
                        wrong[row] = error
                if machine.progress is not None and (batch.stop % 16 == 0 or batch.stop == len(catalog)):
                    machine.progress("look and read", batch.stop, len(catalog))
        self.network.cpu()
        width = len(next(iter(found.values()))) if found else 0
        vectors_ND = np.full((len(catalog), width), np.nan, np.float32)
        for row, features_D in found.items():
            vectors_ND[row] = features_D
        return vectors_ND, dict(sorted(wrong.items()))

    def _batch(
        self,
        rows: Sequence[int],
        sources: Sequence[Path | None],
        wrong: Mapping[int, ImageError],
        said: Sequence[list[int] | None],
        size: int,
        device: str,
    ) -> list[tuple[int, Floats | None, ImageError | None]]:
        """Return features, and what is wrong with the picture, of a few rows."""
        images_nHWC = np.zeros((size, *self.preprocess.size, 3), np.uint8)
        shown_n = np.zeros(size, np.bool_)
        errors: dict[int, ImageError] = {}
        for at, (row, source) in enumerate(zip(rows, sources, strict=True)):
            if row in wrong:
                continue
            try:
                images_nHWC[at] = self._pixels(source)
                shown_n[at] = True
            except ImageError as error:
                errors[row] = error
        texts = [said[row] for row in rows]
        known = [bool(shown_n[at]) or texts[at] is not None for at in range(len(rows))]
        found_nD: Floats | None = None
        if any(known):
            tokens = [text or [self.words.tokenizer.pad] for text in texts] + [[0]] * (size - len(rows))
            step = self.words.tokenizer.longest if size > 1 else 1
            ids_nT, mask_nT = self.words.tokenizer.filled(tokens, step=step)
            mask_nT[[at for at in range(size) if at >= len(rows) or texts[at] is None]] = False
            found_nD = self._run(images_nHWC, ids_nT, mask_nT, shown_n, device)
        return [
            (row, found_nD[at] if found_nD is not None and known[at] else None, errors.get(row))
            for at, row in enumerate(rows)
        ]

    def _pixels(self, source: Path | None) -> npt.NDArray[np.uint8]:
        if source is None:
            raise ImageError("missing", "the row names no picture")
        try:
            return self.preprocess.array(read_bytes(source))
        except ImageError as error:
            raise ImageError(error.kind, f"{source}: {error}") from error

    def _run(
        self,
        images_nHWC: npt.NDArray[np.uint8],
        ids_nT: npt.NDArray[np.int64],
        mask_nT: npt.NDArray[np.bool_],
        shown_n: npt.NDArray[np.bool_],
        device: str,
    ) -> Floats:
        with one_thread(), torch.inference_mode():
            images, ids, mask, shown = (
                torch.from_numpy(each).to(device) for each in (images_nHWC, ids_nT, mask_nT, shown_n)
            )
            beside = Beside(mask, ids, shown_B=None if shown_n.all() else shown)
            parts = []
            for view in (images, images.flip(2))[: 1 + self.flips]:
                alone, both = self.network.look(view, beside)
                assert both is not None
                parts += [both] if self.network.informed else [alone.flatten(1), both]
            found: Floats = torch.cat(parts, dim=1).float().cpu().numpy()
        return found


def read_texts(
    tower: PairTower, tokens: Tokens, machine: Machine, *, most_bytes: int = MOST_READ
) -> Tokens | Vectors:
    """Read all texts once, for a text tower that is not trained; what would be too much stays tokens.

    Args:
        tower: of a pair, in evaluation; one text a call, so a text's vectors do not depend on others.
        tokens: of the texts.
        machine: where.
        most_bytes: of all token vectors together.
    """
    lengths_N = tokens.mask.sum(axis=1)
    if int(lengths_N.sum()) * tower.width * 2 > most_bytes:
        return tokens
    device = settle_device(machine.device)
    tower.text.to(device).eval()

    def run(row: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float16]]:
        with one_thread(), torch.inference_mode():
            text_1E, tokens_1TW = tower.read(tokens.take(np.array([row])).to(device))
            found = tokens_1TW[0, : lengths_N[row]].half().cpu().numpy()
            return text_1E[0].float().cpu().numpy(), found

    jobs = (machine.jobs or cores()) if device == "cpu" else 1
    read = []
    with ThreadPoolExecutor(jobs, thread_name_prefix="read") as pool:
        for done, each in enumerate(pool.map(run, range(len(lengths_N))), 1):
            read.append(each)
            if machine.progress is not None and (done % 64 == 0 or done == len(lengths_N)):
                machine.progress("read texts", done, len(lengths_N))
    tower.text.cpu()
    starts = np.concatenate([[0], np.cumsum(lengths_N)]).astype(np.int64)
    return Vectors(np.stack([text for text, _ in read]), np.concatenate([each for _, each in read]), starts)
