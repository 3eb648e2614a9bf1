"""Files written whole or not at all: temporary file, fsync, rename.

It knows nothing of what is written. A process killed at any moment leaves the old file or the new
one, never a part; stray temporary files carry ``.tmp-`` in their name and are safe to delete.
"""

import contextlib
import hashlib
import os
import platform
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

#: Called with what is going on, how many are done, and how many there are.
Progress = Callable[[str, int, int], None]
#: How libraries in Rust tell what the system refused.
OS_ERROR = re.compile(r"\(os error (\d+)\)")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_directory(path: Path) -> None:
    """Flush a directory's entries to disk, so that a rename in it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it takes its place in one step.

    On an exception (Ctrl-C included) the temporary file is removed and ``path`` is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{_mark()}")
    try:
        with _naming(path):
            yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_directory(path: str | Path) -> Iterator[Path]:
    """Give a temporary directory beside ``path``; on success it takes the place of ``path``.

    Where ``path`` exists it is moved aside first and removed last, so a process killed in between
    leaves either the old directory or the new one under the name ``path``, or, for the instant
    between two renames, the old one complete under its ``.old-`` name; see ``settle``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    settle(path)
    mark = _mark()
    temporary = path.with_name(f".{path.name}.tmp-{mark}")
    old = path.with_name(f".{path.name}.old-{mark}")
    temporary.mkdir()
    try:
        with _naming(path):
            yield temporary
        for file in sorted(temporary.rglob("*")):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
            else:
                sync_directory(file)
        sync_directory(temporary)
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
        sync_directory(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file that could not be written: libraries in Rust say "(os error 28)", and not where."""
    try:
        yield
    except Exception as error:
        found = OS_ERROR.search(str(error))
        if found is not None and getattr(error, "filename", None) is None:
            number = int(found[1])
            raise OSError(number, os.strerror(number), str(path)) from error
        raise


def settle(path: Path) -> None:
    """Clear what a killed ``replacing_directory`` left beside ``path``.

    If ``path`` itself is gone and exactly its old copy is there, the old copy gets its name back. Unfinished copies
    go where the process of this machine that wrote them is no more.
    """
    for unfinished in path.parent.glob(f".{path.name}.tmp-{_host()}-*"):
        if not _alive(unfinished.name.rsplit("-", 2)[1]):
            shutil.rmtree(unfinished, ignore_errors=True)
    for old in path.parent.glob(f".{path.name}.old-*"):
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(old, path)


def _host() -> str:
    return hashlib.blake2b(platform.node().encode(), digest_size=4).hexdigest()


def _mark() -> str:
    """What makes a temporary name this process's own: machine, process, and a number drawn."""
    return f"{_host()}-{os.getpid()}-{uuid.uuid4().hex[:12]}"


def _alive(process: str) -> bool:
    if os.name != "posix":
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError, OverflowError):
        return True
    return True


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def cache_directory(chosen: str | Path | None = None) -> Path:
    """Return where caches live: the given path, else ``SHELFWISE_CACHE``, else ``~/.cache/shelfwise``."""
    if chosen is not None:
        return Path(chosen)
    named = os.environ.get("SHELFWISE_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "shelfwise"
