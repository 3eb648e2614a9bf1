"""Desks for tests: a few items without any picture, and a PostgreSQL server of this process where one is installed."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

from shelfwise.service.items import Item, key_of
from shelfwise.taxonomy import Choice, Taxonomy

TAXONOMY = Taxonomy(
    {
        "Cups": (Choice("colour", ("red", "green", "blue")), Choice("lid", ("yes", "no"), {}, "no")),
        "Plates": (Choice("colour", ("red", "blue")),),
    }
)


def item(number: int, **changes: object) -> Item:
    """The item of cup ``number``: stated red, seen green; the risk grows with the number."""
    values = ("red", "green", "blue")
    id_ = f"{number:03d}"
    plain = Item(
        key_of(id_, "Cups", "colour"), id_, "Cups", "colour", "", None, "red", "green", 0.7, "blue", 0.2, "unsure",
        "mismatch", number / 1000, "", (), values,
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]


def binaries() -> Path | None:
    """The folder of PostgreSQL's programs; None where there is none."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).parent
    return next(
        (path for path in sorted(Path("/usr/lib/postgresql").glob("*/bin")) if (path / "initdb").is_file()),
        None,
    )


@contextmanager
def postgres(programs: Path) -> Iterator[str]:
    """A server on a socket in a folder of its own, gone afterwards; gives the address of its database."""
    folder = Path(mkdtemp(prefix="pg"))
    shutil.chown(folder, "postgres") if os.getuid() == 0 else None
    user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []

    def run(*words: object) -> None:
        subprocess.run([*user, *map(str, words)], check=True, capture_output=True, cwd=folder)

    data = folder / "data"
    options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
    try:
        run(programs / "initdb", "-D", data, "-U", "desk", "-A", "trust", "-E", "UTF8", "--no-sync")
        run(programs / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options, "start")
        try:
            yield f"postgresql://desk@/postgres?host={folder}"
        finally:
            run(programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
