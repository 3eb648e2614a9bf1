"""Manifest: the files of a bundle with their SHA-256, checked before any of them is used.

It does not know what the files hold. Folders inside, such as the members of an ensemble, are listed like the rest.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shelfwise.errors import BundleError, listing
from shelfwise.files import replacing_directory, settle, sha256, write_text

FORMAT = 1
INDEX = "bundle.json"
#: Files that more than one module reads.
EVIDENCE, DECISION, CLAIMS, OPTIONS = "evidence.parquet", "decision.json", "claims.json", "recipe.toml"
PHOTOS = "photos.json"


def listed(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in a folder and the folders in it, by its path there."""
    return {
        file.relative_to(folder).as_posix(): sha256(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@contextlib.contextmanager
def amending(path: Path) -> Iterator[Path]:
    """Give a copy of a bundle to change; it takes the bundle's place, listed anew, whole or not at all.

    Raises:
        BundleError: there is no whole bundle.
    """
    index = dict(read_index(path))
    with replacing_directory(path) as folder:
        shutil.copytree(path, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
        yield folder
        index["files"] = {name: digest for name, digest in listed(folder).items() if name != INDEX}
        write_index(folder, index)


def write_index(folder: Path, index: Mapping[str, Any]) -> None:
    """Write ``bundle.json``."""
    write_text(folder / INDEX, json.dumps(index, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of a bundle; a BundleError where it cannot be."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: cannot be read: {error}") from error


def read_index(path: Path) -> Mapping[str, Any]:
    """Read ``bundle.json`` and check every file it lists.

    Raises:
        BundleError: see ``Bundle.load``.
    """
    settle(path)
    if not (path / INDEX).is_file():
        raise BundleError(
            f"there is no bundle at {path}"
            + (
                " (it is a file; a bundle is the folder that fit wrote)"
                if path.is_file()
                else ""
                if path.exists()
                else " (nothing is there)"
            )
        )
    try:
        index: Mapping[str, Any] = json.loads((path / INDEX).read_text(encoding="utf-8"))
        files = dict(index["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path / INDEX}: cannot be read: {error}") from error
    if index.get("format") != FORMAT:
        raise BundleError(
            f"{path}: bundle format {index.get('format')!r} is not known (this version reads {FORMAT})"
        )
    for name, digest in files.items():
        file = path / name
        if not file.resolve().is_relative_to(path.resolve()):
            raise BundleError(f"{path}: lists a file outside itself: {name!r}")
        if not file.is_file():
            raise BundleError(f"{path}: the file {name} is missing")
        if sha256(file) != digest:
            raise BundleError(f"{path}: the file {name} was changed since the bundle was written")
    there = (file.relative_to(path) for file in path.rglob("*") if file.is_file())
    foreign = {file.as_posix() for file in there if not any(part.startswith(".") for part in file.parts)} - {
        INDEX,
        *files,
    }
    if foreign:
        raise BundleError(f"{path}: holds files that are not listed in {INDEX}: {listing(sorted(foreign))}")
    return index


def check_target(path: Path) -> None:
    """Make sure that a bundle may be written to ``path``.

    Raises:
        BundleError: something is there that is not a bundle.
    """
    if path.exists() and not (path / INDEX).is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise BundleError(f"{path} is there and is not a bundle; it is left as it is")
