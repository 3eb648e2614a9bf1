import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

import hostile
from shelfwise.data.facts import STORE_NAME, FactTable, facts_of, measure
from shelfwise.data.store import Store

COLUMNS = (
    "ok digest width height blur brightness contrast dark_share bright_share detail phash dhash colour "
    "thumb luma"
)


def same(one: FactTable, other: FactTable) -> bool:
    return (
        all((getattr(one, name) == getattr(other, name)).all() for name in COLUMNS.split())
        and one.notes == other.notes
        and {row: (e.kind, str(e)) for row, e in one.errors.items()}
        == {row: (e.kind, str(e)) for row, e in other.errors.items()}
    )


def photo(seed: int, width: int = 200, height: int = 150) -> Image.Image:
    cells = np.random.default_rng(seed).integers(0, 255, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)


def write(directory: Path, count: int) -> list[Path]:
    directory.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        photo(seed).save(directory / f"{seed:03d}.jpg")
    return [directory / f"{seed:03d}.jpg" for seed in range(count)]


def test_measures_mean_what_they_say() -> None:
    sharp = hostile.encoded(photo(1).filter(ImageFilter.UnsharpMask(4, 300)), "PNG")
    soft = hostile.encoded(photo(1).filter(ImageFilter.GaussianBlur(6)), "PNG")
    assert measure(sharp).blur > 5 * measure(soft).blur
    black = measure(hostile.encoded(Image.new("RGB", (80, 60), (5, 5, 5)), "PNG"))
    assert (black.dark_share, black.bright_share, black.contrast, black.detail) == (1, 0, 0, 0)
    assert black.brightness == pytest.approx(5 / 255)
    white = measure(hostile.encoded(Image.new("RGB", (80, 60), (255, 255, 255)), "PNG"))
    assert (white.bright_share, white.brightness) == (1, 1)
    half = Image.new("RGB", (80, 80), (255, 0, 0))
    half.paste((0, 0, 255), (0, 40, 80, 80))
    colour = np.frombuffer(measure(hostile.encoded(half, "PNG")).colour, dtype=np.uint8).reshape(4, 4, 3)
    assert (colour[:2] == [255, 0, 0]).all()
    assert (colour[2:] == [0, 0, 255]).all()


def test_hashes_survive_encoding_and_scale_and_tell_pictures_apart() -> None:
    facts = [measure(hostile.encoded(photo(seed), "PNG")) for seed in range(12)]
    for seed, fact in enumerate(facts):
        small = hostile.encoded(photo(seed).resize((120, 90)), "JPEG", quality=60)
        assert (measure(small).phash ^ fact.phash).bit_count() <= 4
        assert (measure(small).dhash ^ fact.dhash).bit_count() <= 6
    apart = [(a.phash ^ b.phash).bit_count() for i, a in enumerate(facts) for b in facts[:i]]
    assert min(apart) > 10


def test_size_is_that_of_the_upright_original() -> None:
    buffer = io.BytesIO()
    photo(1, 3000, 2000).save(buffer, "JPEG", exif=hostile.exif(6))
    fact = measure(buffer.getvalue())
    assert (fact.width, fact.height) == (2000, 3000)


def test_rows_cache_and_jobs(tmp_path: Path) -> None:
    files = write(tmp_path / "images", 20)
    broken = tmp_path / "images" / "broken.jpg"
    broken.write_bytes(files[0].read_bytes()[:900])
    rows = [*files, None, broken, tmp_path / "gone.jpg", files[3]]
    plain = facts_of(rows, jobs=1)
    assert plain.ok.tolist() == [True] * 20 + [False, False, False, True]
    assert {row: error.kind for row, error in plain.errors.items()} == {21: "truncated", 22: "missing"}
    assert str(plain.errors[21]).startswith(str(broken))
    assert str(plain.errors[22]).count("gone.jpg") == 1
    assert plain.phash[23] == plain.phash[3]
    cold = facts_of(rows, cache=tmp_path / "cache", jobs=3)
    warm = facts_of(rows, cache=tmp_path / "cache", jobs=2)
    assert same(plain, cold)
    assert same(plain, warm)
    assert len(facts_of([])) == 0


def test_renamed_files_are_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write(tmp_path / "images", 5)
    first = facts_of(files, cache=tmp_path / "cache")
    moved = [path.rename(path.with_name("new_" + path.name)) for path in files]

    def refuse(data: bytes) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("shelfwise.data.facts.measure", refuse)
    again = facts_of(moved[::-1], cache=tmp_path / "cache")
    assert (again.phash == first.phash[::-1]).all()
    assert (again.thumb == first.thumb[::-1]).all()


def test_a_damaged_cache_is_a_finding_and_is_rebuilt(tmp_path: Path) -> None:
    files = write(tmp_path / "images", 5)
    first = facts_of(files, cache=tmp_path / "cache")
    (tmp_path / "cache" / STORE_NAME).write_bytes(b"garbage" * 1000)
    again = facts_of(files, cache=tmp_path / "cache")
    assert same(first, again)
    assert [finding.kind for finding in again.findings] == ["damaged_cache"]
    assert not facts_of(files, cache=tmp_path / "cache").findings


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    facts_of(write(tmp_path, 4), progress=lambda *call: calls.append(call))
    assert ("reading photos", 4, 4) in calls
    assert calls[-1] == ("measuring photos", 4, 4)


def test_kill_9_while_measuring_leaves_a_cache_that_gives_the_same(tmp_path: Path) -> None:
    files = write(tmp_path / "images", 150)
    right = facts_of(files)
    code = (
        "import sys; from pathlib import Path; import shelfwise.data.facts as f;"
        "f.AT_ONCE = 10; print(1, flush=True);"
        "f.facts_of(sorted(Path(sys.argv[1]).iterdir()), cache=Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "images"), str(tmp_path / "cache")]
    for wait in (0.05, 0.15):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert same(right, facts_of(files, cache=tmp_path / "cache"))
    with Store(tmp_path / "cache" / STORE_NAME) as store:
        assert len(store) == 150
