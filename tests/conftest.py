"""What several test files share: the toy catalogue, a bundle fitted on it, and the shared data."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shelfwise.bundle import Bundle
from shelfwise.catalog import Catalog
from shelfwise.predictions import Machine

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Toy:
    """The toy catalogue: its folder, its table, and how it reads."""

    directory: Path
    table: Path
    catalog: Catalog


@dataclass(frozen=True)
class Ran:
    """What a run of the command line gave."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        return self.err.strip()


class Shell:
    """The command line in this process: its real edge, with exit code and both streams."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *words: object) -> Ran:
        from shelfwise.cli import run

        self.capsys.readouterr()
        self.monkeypatch.setattr("sys.argv", ["shelfwise", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            run()
        out, err = self.capsys.readouterr()
        return Ran(int(end.value.code or 0), out, err)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one thread: tiny products cost more to share out than to compute."""
    from shelfwise.models.towers import one_thread as single

    with single():
        yield


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None) -> Shell:
    import shelfwise.testing  # noqa: F401  (registers the backbone "toy")

    return Shell(monkeypatch, capsys)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    from shelfwise.testing import toy_catalog

    directory = tmp_path_factory.mktemp("toy")
    table = toy_catalog(directory)
    return Toy(directory, table, Catalog.read(table))


@pytest.fixture(scope="session")
def challenge(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """The toy catalogue with the columns ``attr_1`` ..., the attribute list beside it."""
    from shelfwise.testing import toy_catalog

    directory = tmp_path_factory.mktemp("challenge")
    table = toy_catalog(directory, layout="challenge")
    read = Catalog.read(table, images=directory / "images", attributes=directory / "attributes.json")
    return Toy(directory, table, read)


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(cache=tmp_path_factory.mktemp("cache"), jobs=1, engine="torch")


@pytest.fixture(scope="session")
def bundle(toy: Toy, machine: Machine) -> Bundle:
    import shelfwise as sw
    from shelfwise.models.towers import one_thread as single

    with single():
        recipe = sw.Probe(backbone=sw.backbone("toy"))
        return sw.fit(toy.catalog, recipe, evidence=3, machine=machine, random_split=False)


@pytest.fixture(scope="session")
def saved(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle on disk; tests that change it work on a copy."""
    path = tmp_path_factory.mktemp("bundles") / "toy"
    bundle.save(path)
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    path = Path(os.environ.get("SHELFWISE_DATA", ROOT.parent / "shared" / "data"))
    if not (path / "fashion" / "train.csv").is_file():
        pytest.skip(f"the shared catalogues are not at {path}: set SHELFWISE_DATA")
    return path
