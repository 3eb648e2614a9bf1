"""Embeddings: kept by content, safe when killed, the same for two processes and any number of jobs."""

import io
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from shelfwise.errors import EngineError, ImageError, UsageError
from shelfwise.models import embed as embed_module
from shelfwise.models.embed import HasImages, embed, embed_stream
from shelfwise.models.engines import Chosen, choose_engine, vectors
from shelfwise.models.halves import from_half
from shelfwise.registry import REGISTRIES

SPEC = REGISTRIES["backbone"].spec("timm", model="test_efficientnet", weights=False, size=64)


def photo(seed: int, side: int = 96) -> bytes:
    small = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), np.uint8)
    image = Image.fromarray(small).resize((side, side + 10), Image.Resampling.BICUBIC)
    with io.BytesIO() as file:
        image.save(file, "JPEG", quality=90)
        return file.getvalue()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the engine is chosen already."""
    cache = tmp_path_factory.mktemp("cache")
    choose_engine(SPEC, cache=cache)
    return cache


@pytest.fixture
def cache(shared: Path, tmp_path: Path) -> Path:
    shutil.copytree(shared / "engines", tmp_path / "cache" / "engines")
    return tmp_path / "cache"


@pytest.fixture
def chosen(cache: Path) -> Chosen:
    return choose_engine(SPEC, cache=cache, jobs=2)


def folder(directory: Path, count: int) -> list[Path]:
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"{row:04d}.jpg" for row in range(count)]
    for row, path in enumerate(paths):
        path.write_bytes(photo(row))
    return paths


def test_vectors_are_those_of_the_engine_rounded_once(cache: Path, chosen: Chosen, tmp_path: Path):
    paths = folder(tmp_path / "photos", 5)
    found = embed(paths, SPEC, cache=cache)
    images = np.stack([chosen.card.preprocess.array(path.read_bytes()) for path in paths])
    expected = vectors(chosen.engine, images).astype(np.float16).astype(np.float32)
    assert found.vectors.dtype == np.float32
    assert np.array_equal(found.vectors, expected)
    assert found.record == chosen.record
    assert not found.errors
    assert np.array_equal(embed(paths, SPEC, cache=cache).vectors, expected)
    assert np.array_equal(embed(paths, SPEC).vectors, expected)


def test_seen_content_is_never_computed_again(cache: Path, chosen: Chosen, tmp_path: Path):
    """A second run, renamed files, another order, an extended table, duplicates within a run."""
    paths = folder(tmp_path / "photos", 6)
    first = embed(paths, chosen, cache=cache)
    assert first.computed == 6
    second = embed(paths, chosen, cache=cache)
    assert second.computed == 0
    assert np.array_equal(second.vectors, first.vectors)
    renamed = [path.rename(path.with_name(f"new-{path.name}")) for path in paths]
    extra = tmp_path / "extra.jpg"
    extra.write_bytes(photo(100))
    twin = tmp_path / "twin.jpg"
    twin.write_bytes(photo(100))
    extended = embed([extra, *reversed(renamed), twin, extra], chosen, cache=cache)
    assert extended.computed == 1
    assert np.array_equal(extended.vectors[1:7], first.vectors[::-1])
    assert np.array_equal(extended.vectors[0], extended.vectors[7])
    assert np.array_equal(extended.vectors[0], extended.vectors[8])
    paths[0].write_bytes(photo(101))
    changed = embed(paths[:1], chosen, cache=cache)
    assert changed.computed == 1
    assert not np.array_equal(changed.vectors[0], first.vectors[0])


def test_duplicates_are_computed_once_across_chunks_without_a_cache(chosen: Chosen):
    one, other = photo(1), photo(2)
    parts = list(embed_stream([one, other, one, one, other], chosen, chunk=2))
    assert [(start, len(part), part.computed) for start, part in parts] == [(0, 2, 2), (2, 2, 0), (4, 1, 0)]


def test_every_row_keeps_its_place_and_its_error(cache: Path, chosen: Chosen, tmp_path: Path):
    paths: list[Path | None] = list(folder(tmp_path / "photos", 7))
    html = tmp_path / "page.jpg"
    html.write_text("<html>not a photo</html>")
    copy = tmp_path / "copy.jpg"
    copy.write_text("<html>not a photo</html>")
    empty = tmp_path / "empty.jpg"
    empty.touch()
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(photo(3)[:700])
    rows = [*paths[:3], html, None, empty, *paths[3:5], tmp_path / "gone.jpg", cut, copy, *paths[5:]]
    for _ in range(2):
        found = embed(rows, chosen, cache=cache)
        kinds = {row: error.kind for row, error in found.errors.items()}
        assert kinds == {
            3: "not_an_image",
            4: "missing",
            5: "empty",
            8: "missing",
            9: "truncated",
            10: "not_an_image",
        }
        assert "page.jpg" in str(found.errors[3])
        assert "copy.jpg" in str(found.errors[10])
        assert "cut.jpg" in str(found.errors[9])
        assert np.isnan(found.vectors[~found.readable]).all()
        assert np.array_equal(found.vectors[found.readable], embed(paths, chosen, cache=cache).vectors)


def test_a_catalogue_says_why_a_row_has_no_photo(chosen: Chosen, tmp_path: Path):
    paths = folder(tmp_path, 2)
    reason = ImageError("outside", "row 2 points outside the image folder")
    catalog = SimpleNamespace(images=(paths[0], None, paths[1]), image_errors={1: reason})
    assert isinstance(catalog, HasImages)
    found = embed(catalog, chosen)
    assert found.errors == {1: reason}
    parts = dict(embed_stream(catalog, chosen, chunk=1))
    assert parts[1].errors == {0: reason}
    assert np.array_equal(parts[2].vectors[0], found.vectors[2])


def test_any_jobs_any_chunk_any_order_same_bits(chosen: Chosen):
    data = [photo(seed) for seed in range(9)]
    expected = embed(data, chosen, jobs=1).vectors
    order = np.random.default_rng(0).permutation(9)
    assert np.array_equal(embed([data[row] for row in order], chosen, jobs=5).vectors, expected[order])
    for chunk in (1, 4):
        parts = list(embed_stream(data, SPEC, chunk=chunk, jobs=3))
        assert np.array_equal(np.concatenate([part.vectors for _, part in parts]), expected)


class Batched:
    """An engine of batch 4 whose vector is the mean colour and how many rows are not blank."""

    name, precision, batch = "cuda", "f32", 4

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def run(self, images_BHWC: np.ndarray) -> np.ndarray:
        self.shapes.append(images_BHWC.shape)
        return np.tile(images_BHWC.mean((1, 2, 3), dtype=np.float32)[:, None], (1, 256))


def test_batches_are_padded_to_one_size(chosen: Chosen):
    engine = Batched()
    batched = Chosen(chosen.card, engine, chosen.record)
    data = [photo(seed) for seed in range(6)]
    rows = [*data[:2], b"junk", *data[2:]]
    found = embed(rows, batched)
    assert list(found.errors) == [2]
    assert set(engine.shapes) == {(4, 64, 64, 3)}
    means = [chosen.card.preprocess.array(photo_).mean(dtype=np.float32) for photo_ in data]
    np.testing.assert_allclose(found.vectors[found.readable][:, 0], means, rtol=1e-3)


def test_widening_is_a_cast():
    every = np.arange(1 << 16, dtype=np.uint16).view("<f2").reshape(-1, 64)
    found = np.empty(every.shape, np.float32)
    from_half(every, found)
    assert np.array_equal(found.view(np.int32), every.astype(np.float32).view(np.int32)), (
        "NaN and infinity too"
    )


def test_numbers_that_are_not_finite_are_an_error(chosen: Chosen, monkeypatch: pytest.MonkeyPatch):
    engine = Batched()
    monkeypatch.setattr(engine, "run", lambda images: np.full((4, 256), 1e9, np.float32))
    with pytest.raises(EngineError, match="float16"):
        embed([photo(0)], Chosen(chosen.card, engine, chosen.record))


def test_progress_ends_at_the_number_of_rows(chosen: Chosen):
    told: list[tuple[str, int, int]] = []
    embed(
        [photo(0), None, photo(1)],
        chosen,
        progress=lambda what, done, total: told.append((what, done, total)),
    )
    assert told[-1] == ("embed", 3, 3)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_an_empty_table_and_a_wrong_chunk(chosen: Chosen):
    assert embed([], chosen).vectors.shape == (0, chosen.card.dimension)
    with pytest.raises(UsageError, match="chunk"):
        next(iter(embed_stream([photo(0)], chosen, chunk=0)))


RUN = """
import sys
from pathlib import Path
import numpy as np
from shelfwise.models import embed as module
from shelfwise.models.halves import from_half
from shelfwise.registry import REGISTRIES
module.FLUSH = 8
spec = REGISTRIES["backbone"].spec("timm", model="test_efficientnet", weights=False, size=64)
paths = sorted(Path(sys.argv[1]).iterdir())
def told(what, done, total):
    print(done, flush=True)
found = module.embed(paths, spec, cache=Path(sys.argv[2]), progress=told)
np.save(sys.argv[3], found.vectors)
"""


def start(photos: Path, cache: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RUN, str(photos), str(cache), str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_at_random_moments_and_equal_afterwards(cache: Path, tmp_path: Path):
    photos = tmp_path / "photos"
    paths = folder(photos, 400)
    expected = embed(paths, SPEC, cache=None).vectors
    moments = random.Random(7)
    for _ in range(6):
        with start(photos, cache, tmp_path / "vectors.npy") as process:
            assert process.stdout is not None
            first = int(process.stdout.readline())
            until = first + moments.randint(1, 50)
            while int(process.stdout.readline()) < until:
                pass
            time.sleep(moments.uniform(0, 0.02))
            process.kill()
    assert not (tmp_path / "vectors.npy").exists()
    after = embed(paths, SPEC, cache=cache)
    assert 0 < after.computed < 400
    assert np.array_equal(after.vectors, expected)
    assert embed(paths, SPEC, cache=cache).computed == 0


def test_two_processes_share_a_cold_cache(tmp_path: Path):
    photos, cache = tmp_path / "photos", tmp_path / "cache"
    paths = folder(photos, 60)
    outs = [tmp_path / "a.npy", tmp_path / "b.npy"]
    processes = [start(photos, cache, out) for out in outs]
    for process in processes:
        process.communicate(timeout=120)
        assert process.returncode == 0
    first, second = (np.load(out) for out in outs)
    assert np.array_equal(first, second)
    again = embed(paths, SPEC, cache=cache)
    assert again.computed == 0
    assert np.array_equal(again.vectors, first)
    assert not [path for path in (cache / "engines").iterdir() if path.name.startswith(".")]


def test_a_damaged_store_is_begun_anew(cache: Path, chosen: Chosen, tmp_path: Path):
    paths = folder(tmp_path / "photos", 3)
    first = embed(paths, chosen, cache=cache)
    file = cache / "embeddings" / f"{chosen.space}.sqlite"
    assert file.is_file()
    file.write_bytes(os.urandom(4096))
    again = embed(paths, chosen, cache=cache)
    assert again.computed == 3
    assert np.array_equal(again.vectors, first.vectors)


def test_work_ahead_is_bounded():
    """Never more than ``ahead`` items are under way, and they come back in order."""
    from concurrent.futures import ThreadPoolExecutor

    started: list[int] = []
    with ThreadPoolExecutor(2) as pool:
        for count, item in enumerate(embed_module._ordered(pool, 3, _noted(started), range(30))):
            assert item == count
            assert len(started) <= count + 3


def _noted(started: list[int]):
    def work(item: int) -> int:
        started.append(item)
        return item

    return work
