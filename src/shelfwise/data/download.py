"""Download photos by their URLs: concurrent, resumable, safe; what failed and why is a table.

It does not know how a request is made (``wire``), what may be asked for (``addresses``) or how a line survives a kill
(``ledger``). A photo counts when it decodes, whatever its name, its stated type and its status said.
Design record 0028.
"""

import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from shelfwise.data.addresses import scheme_of
from shelfwise.data.fetching import ENDINGS, Job, Run, linked
from shelfwise.data.ledger import Ledger, Outcome
from shelfwise.data.stores import check_packages
from shelfwise.data.terms import DownloadOptions
from shelfwise.data.wanted import Wanted, wanted_photos
from shelfwise.errors import UsageError
from shelfwise.files import Progress
from shelfwise.findings import Finding, Findings
from shelfwise.locate import LEDGER_NAME
from shelfwise.roles import IMAGE_ENDINGS, Columns
from shelfwise.tables import read_table, write_frame

MANIFEST_NAME = "manifest.csv"
_SCHEMA = {
    "id": pl.String,
    "photo": pl.Int64,
    "url": pl.String,
    "status": pl.String,
    "reason": pl.String,
    "detail": pl.String,
    "image": pl.String,
    "bytes": pl.Int64,
    "width": pl.Int64,
    "height": pl.Int64,
    "digest": pl.String,
}


@dataclass(frozen=True, eq=False)
class Downloads:
    """What became of every photo a table asks for.

    Attributes:
        folder: where the photos are; the image folder of the catalogue.
        frame: the manifest: a row per product and photo, by id, with ``id``, ``photo`` (1 for the first), ``url``,
            ``status`` (``ok``, ``failed``, ``not_an_image``, ``refused``, ``no_url``), ``reason``, ``detail``,
            ``image`` (the file under the folder), ``bytes``, ``width``, ``height`` and ``digest``. It does not
            depend on the order of the table.
        asked: addresses that were asked for in this run.
        known: addresses whose photo was there before.
        seconds: what this run took.
        notes: what is odd about the table.
    """

    folder: Path
    frame: pl.DataFrame
    asked: int
    known: int
    seconds: float
    notes: Findings = field(default_factory=Findings)

    def counts(self) -> dict[str, int]:
        """Return how many photos have each status."""
        return dict(sorted(Counter(self.frame["status"].to_list()).items()))

    def findings(self) -> Findings:
        """Return every photo that is not there as a finding, and what is odd about the table."""
        lost = self.frame.filter(pl.col("status") != "ok")
        return self.notes + Findings.of_all(
            Finding(
                f"download_{row['status']}" if row["status"] != "no_url" else "no_url",
                f"{row['url'] or 'no address'}: {row['detail']}",
                id=row["id"],
                severity="error" if row["status"] != "no_url" else "warning",
                evidence={"reason": row["reason"], "photo": row["photo"], "url": row["url"]},
            )
            for row in lost.iter_rows(named=True)
        )

    def write(self, path: str | Path) -> None:
        """Write the manifest to ``.csv`` or ``.parquet``, whole or not at all.

        Raises:
            UsageError: another ending.
        """
        write_frame(self.frame, path, escape=("url", "detail"))

    def __str__(self) -> str:
        counted = ", ".join(f"{count:,} {status}" for status, count in self.counts().items())
        rate = f", {self.asked / self.seconds:,.0f} a second" if self.asked and self.seconds else ""
        lines = [
            f"{len(self.frame):,} photos: {counted or 'none'}; {self.known:,} addresses known before, "
            f"{self.asked:,} asked for in {self.seconds:.1f} s{rate}"
        ]
        lost = self.frame.filter(pl.col("status") != "ok")
        for (status, reason), rows in sorted(lost.group_by("status", "reason")):
            first = rows.sort("id", "photo").row(0, named=True)
            lines.append(
                f"  {len(rows):,} {status}, {reason}; the first is id {first['id']}: {first['detail']}"
            )
        lines += [f"  {note}" for note in self.notes]
        return "\n".join(lines)


def download(
    table: Any,
    out: str | Path,
    *,
    photos: Sequence[str] = (),
    columns: Columns | None = None,
    options: DownloadOptions | None = None,
    manifest: str | Path | None = None,
    progress: Progress | None = None,
) -> Downloads:
    """Fetch the photos a table names by URL into a folder, each once, and say what became of each.

    The first photo of a product is ``<id>.<ending>``, so that ``Catalog.read(table, images=out)`` finds it; the second
    is ``2/<id>.<ending>``. A photo is verified by decoding it. An interrupted run goes on where it was; after a run
    that ended, a further one asks again for what failed and for nothing else. ``manifest.csv`` is written last.

    Args:
        table: path or frame, as ``Catalog.read`` takes it.
        out: the folder, which belongs to the downloads of this table.
        photos: columns of URLs, in the order of the photos; by default inferred. A cell may hold several.
        columns: ``id`` names the id column.
        options: what is allowed, how much at once, how long; see ``DownloadOptions``.
        manifest: also write the manifest here, ``.csv`` or ``.parquet``.
        progress: told about ``downloading``.

    Raises:
        CatalogError: a table or column that is not there.
        UsageError: a folder with photos from elsewhere, or one another download writes to.
        MissingExtra: a store whose package is not installed.
        ShelfwiseError: the folder cannot be written.
    """
    begun = time.monotonic()
    if manifest is not None and Path(manifest).suffix not in (".csv", ".parquet"):
        raise UsageError(f"the manifest is written to .csv or .parquet, not {manifest}")
    options, folder = options or DownloadOptions(), Path(out)
    wanted, notes = wanted_photos(read_table(table), columns or Columns(), tuple(photos), options)
    check_packages({scheme_of(photo.key) for photo in wanted if photo.key})
    _claim(folder)
    with Ledger(folder / LEDGER_NAME) as ledger:
        known, jobs = _settled(folder, ledger, wanted)
        ledger.finished = False
        if jobs:
            Run(folder, options, ledger, jobs, progress).go()
        frame = _manifest(wanted, ledger.outcomes())
        result = Downloads(folder, frame, len(jobs), known, time.monotonic() - begun, Findings.of_all(notes))
        for path in (folder / MANIFEST_NAME, *((manifest,) if manifest is not None else ())):
            result.write(path)
        ledger.finished = True
    return result


def _claim(folder: Path) -> None:
    """Make the folder, or see that it is one of ours."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = os.listdir(folder)
    except OSError as error:
        raise UsageError(f"{folder} cannot be a folder for photos: {error.strerror}") from error
    if LEDGER_NAME not in names and any(name.lower().endswith(IMAGE_ENDINGS) for name in names):
        raise UsageError(
            f"{folder} holds pictures that were not downloaded by this verb: name an empty folder"
        )


def _settled(folder: Path, ledger: Ledger, wanted: Iterable[Wanted]) -> tuple[int, list[Job]]:
    """Clear what a killed run left; return how many addresses are known, and what is to be fetched."""
    by_key: dict[str, Job] = {}
    for photo in wanted:
        if photo.key:
            job = by_key.setdefault(photo.key, Job(photo.key, photo.host, []))
            job.names.append(photo.name)
    outcomes, files, again = ledger.outcomes(), ledger.files(), ledger.finished
    names = {photo.name: photo.key for photo in wanted}
    for name in names:
        if "/" in name:
            (folder / name).parent.mkdir(exist_ok=True)
    stale = [name for name, key in names.items() if name in files and files[name] != key]
    for name in stale:
        (folder / f"{name}{outcomes[files[name]].ending}").unlink(missing_ok=True)
        del files[name]
    ledger.forget(stale)
    _clear(folder, names, files, interrupted=not again)
    jobs, known = [], 0
    for key, job in by_key.items():
        outcome = outcomes.get(key)
        if outcome is not None and outcome.status == "ok":
            missing = _missing(folder, job.names, files, outcome)
            if len(missing) < len(job.names):
                source = next(name for name in job.names if name not in missing)
                linked(
                    folder / f"{source}{outcome.ending}",
                    (folder / f"{name}{outcome.ending}" for name in missing),
                )
                ledger.record([(outcome, missing)])
                known += 1
                continue
            gone = [name for name in job.names if name in files]
            for name in gone:
                (folder / f"{name}{outcome.ending}").unlink(missing_ok=True)
            ledger.forget(gone)
        elif outcome is not None and not again and outcome.status != "refused":
            known += 1
            continue
        jobs.append(job)
    return known, jobs


def _clear(folder: Path, names: Mapping[str, str], files: Mapping[str, str], *, interrupted: bool) -> None:
    """Remove unfinished files; after an interrupted run also whole ones of this table that it could not record."""
    for place in {Path(name).parent.as_posix() for name in names}:
        prefix = "" if place == "." else f"{place}/"
        for entry in os.scandir(folder / place):
            stem, ending = os.path.splitext(entry.name)
            unfinished = entry.name.startswith(".") and ".tmp-" in entry.name
            unrecorded = prefix + stem in names and prefix + stem not in files and ending in ENDINGS.values()
            if unfinished or (interrupted and unrecorded):
                os.unlink(entry.path)


def _missing(folder: Path, names: Sequence[str], files: Mapping[str, str], outcome: Outcome) -> list[str]:
    """The names under which a known photo is not there whole."""

    def whole(name: str) -> bool:
        try:
            return os.stat(folder / f"{name}{outcome.ending}").st_size == outcome.bytes
        except OSError:
            return False

    return [name for name in names if files.get(name) != outcome.url or not whole(name)]


def _manifest(wanted: Iterable[Wanted], outcomes: Mapping[str, Outcome]) -> pl.DataFrame:
    """Lay out what became of every photo, by id and number."""
    rows = []
    for photo in wanted:
        if photo.refused is not None:
            said = photo.refused
            outcome = Outcome("", said.status, said.reason, str(said))
        else:
            outcome = outcomes[photo.key]
        image = f"{photo.name}{outcome.ending}" if outcome.status == "ok" else None
        numbers = (outcome.bytes, outcome.width, outcome.height) if image is not None else (None, None, None)
        rows.append(
            (
                photo.id,
                photo.photo,
                photo.url or None,
                outcome.status,
                outcome.reason or None,
                outcome.detail or None,
                image,
                *numbers,
                outcome.digest or None,
            )
        )
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")
