"""Answering: the rows of one shard to their answers, and the file they are kept in.

It knows a job and one shard, not where or in which order shards are answered. ``answer_rows`` is pure: the same rows
and job give the same frame. The columns are those of the answers with everything explained; beside them, called with
``@``, what is to be known of each row: its key, whether it failed, what is wrong with it, what it looks like.
"""

import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from shelfwise.answers import Answers
from shelfwise.batch.carried import CONTENT, KEY, Kept, contents, located_in, row_keys, to_try_again
from shelfwise.batch.jobs import KEYS, BatchOptions, Done, Job, bundle_digest
from shelfwise.batch.shards import Shard
from shelfwise.catalog import Catalog, Schema
from shelfwise.errors import BundleError, CatalogError, ImageError
from shelfwise.files import replacing, write_text
from shelfwise.layouts import answer_frame
from shelfwise.locate import URL_CELL, ImageFolder
from shelfwise.manifest import INDEX, read_json
from shelfwise.photos import Located, Photos, locate_photos, read_photos
from shelfwise.predictions import Machine
from shelfwise.roles import Columns, Layout, Roles
from shelfwise.taxonomy import Taxonomy

if TYPE_CHECKING:
    from shelfwise.bundle import Bundle

FAILED, WRONG, NEAR = "@failed", "@wrong", "@near"
#: What stands beside the answers in a file of them.
BESIDE: Mapping[str, pl.DataType] = {
    KEY: pl.Binary(),
    CONTENT: pl.Binary(),
    FAILED: pl.Boolean(),
    WRONG: pl.List(pl.Struct({"field": pl.String, "error": pl.String})),
    NEAR: pl.List(
        pl.Struct({"rank": pl.Int64, "look_alike": pl.String, "similarity": pl.Float64, "stated": pl.Float64})
    ),
}
#: Findings and notes that a file of answers keeps.
MOST_SAID = 12
#: Where a file of answers says the rest, in its schema.
SAID = "shelfwise"


@lru_cache(maxsize=1)
def loaded(path: Path, digest: str) -> "Bundle":
    """Return the bundle of a job, read once a process.

    Raises:
        BundleError: it is not the one the job began with.
    """
    from shelfwise.bundle import Bundle

    if bundle_digest(path) != digest:
        raise BundleError(f"{path}: was changed while it was answering; run again")
    return Bundle.load(path)


def schema_of(bundle: Path) -> Schema:
    """Return how a bundle reads tables, without loading what it learnt.

    Raises:
        BundleError: no bundle.
    """
    if not (bundle / INDEX).is_file():
        from shelfwise.manifest import read_index

        read_index(bundle)  # says why not
    index = read_json(bundle / INDEX)
    try:
        roles, layout = Roles.from_table(index["roles"]), Layout.from_table(index["layout"])
        return Schema(Taxonomy.load(bundle / "taxonomy.json"), roles, layout, tuple(index["missing"]))
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{bundle}: not a bundle this version can read: {error}") from error


def work(job: Job, shard: Shard, earlier: tuple[Path, ...]) -> Done:
    """Answer a shard, carry over what is known, and put its file in its place.

    Args:
        job: what to do.
        shard: which rows.
        earlier: files of answers of earlier runs, as ``carried.write_keys`` was given them.
    """
    begun, used = time.perf_counter(), time.process_time()
    frame = numbered(job.cut.read(shard), job.roles, shard.first)
    at, old = _carried(frame, job, earlier)
    rest = np.setdiff1d(np.arange(shard.rows), at)
    if len(rest) or not shard.rows:
        found = answer_rows(frame if len(rest) == shard.rows else frame[rest], job, (shard.first, rest))
        whole = found.frame
        if old is not None:
            order = np.argsort(np.concatenate([rest, at]), kind="stable")
            whole = pl.concat([whole, old], how="diagonal_relaxed")[order]
    else:
        found, whole = Found(_nothing(old)), _nothing(old)
    if job.options.log is not None:
        write_text(job.lines(shard.number), found.lines)
    taken = time.perf_counter() - begun, time.process_time() - used, _on_gpu()
    done = Done(shard.number, shard.rows, len(rest), int(whole[FAILED].sum()), *taken)
    with replacing(job.part(shard.number)) as temporary:
        _write_part(whole, {"done": asdict(done), **found.said}, temporary)
    return done


def _nothing(frame: pl.DataFrame | None) -> pl.DataFrame:
    """Return a frame that is there."""
    if frame is None:
        raise CatalogError("a shard without rows was to be answered")
    return frame


def numbered(frame: pl.DataFrame, roles: Roles, first: int) -> pl.DataFrame:
    """Return rows with an id column: where the table has none, their numbers in the whole table."""
    if roles.id is None or roles.id in frame.columns:
        return frame
    rows = pl.Series(roles.id, range(first + 1, first + frame.height + 1), dtype=pl.Int64)
    return frame.with_columns(rows.cast(pl.String))


@dataclass(frozen=True)
class Found:
    """The answers of rows.

    Attributes:
        frame: as the module says.
        said: notes, findings and their counts, for the user.
        lines: for the log, a JSON object each.
    """

    frame: pl.DataFrame
    said: Mapping[str, Any] = field(default_factory=dict)
    lines: str = ""


def _carried(
    frame: pl.DataFrame, job: Job, earlier: tuple[Path, ...]
) -> tuple[npt.NDArray[np.int64], pl.DataFrame | None]:
    """Find the rows of a shard that are as they were, and their answers."""
    if not earlier:
        return np.zeros(0, np.int64), None
    located = _located(frame, job)
    keys = row_keys(frame, job.roles, located, stated=job.options.keep_stated)
    at, old = _kept(job.folder / KEYS, earlier).find(keys)
    if old is None or not job.options.verify:
        return at, old
    before, now = old[CONTENT].to_list(), contents(located, at.tolist())
    same = np.array([a is not None and a == b for a, b in zip(before, now, strict=True)], np.bool_)
    return at[same], old.filter(pl.Series(same))


def answer_rows(frame: pl.DataFrame, job: Job, place: tuple[int, npt.NDArray[np.int64]]) -> Found:
    """Answer rows.

    Args:
        frame: the rows, every cell as text, with an id column.
        job: how they are answered.
        place: position in the table of the shard's first row, and the rows' positions in the shard; for messages
            and the log.
    """
    bundle, options = loaded(job.bundle, job.digest), job.options
    # Stated cells change no answer, unless they are copied.
    roles = job.roles if options.keep_stated else replace(job.roles, choices=(), numbers=())
    schema = replace(bundle.schema, roles=roles)
    folder, shown = _folder(job.images, job.folder), _shown(job.photos, roles.id, job.folder)
    catalog = Catalog.settled(frame, schema, folder, job.cut.source, None, shown).remembering()
    located = located_in(catalog)
    keys = row_keys(frame, job.roles, located, stated=options.keep_stated)
    if options.fetch:
        catalog, lost = with_fetched(catalog, job.folder / f"photos-{place[0]}", options)
        for row in lost:
            keys[row] = to_try_again(keys[row])
    machine = replace(job.machine, engines=_engines())
    answers = bundle.answer(
        catalog,
        precision=options.precision,
        confidence=options.confidence,
        over=options.over,
        every_cell=options.every_cell,
        keep_stated=options.keep_stated,
        machine=machine,
    )
    layout = answers.layout or schema.layout
    laid = answer_frame(answers, layout, filler=options.filler, explain=True)
    laid = laid.with_columns(pl.col(pl.Null).cast(pl.String)).with_columns(
        pl.Series(KEY, keys, pl.Binary),
        pl.Series(CONTENT, _content(located, len(frame), options), pl.Binary),
        _failed(answers),
        _wrong(answers),
        _near(bundle, catalog, options, machine),
    )
    rows = place[0] + place[1]
    said = {"notes": list(answers.notes)[:MOST_SAID], **_findings(catalog, rows)}
    lines = ""
    if options.log is not None:
        from shelfwise.batch.log import log_lines

        promised = options.precision is not None or bundle.run.decide.precision is not None
        promise = None
        if promised and not options.every_cell:
            promise = bundle.promise(options.precision, options.confidence, options.over)
        lines = log_lines(answers, promise, rows, job.digest)
    shutil.rmtree(job.folder / f"photos-{place[0]}", ignore_errors=True)
    return Found(laid, said, lines)


def _content(located: Located, count: int, options: BatchOptions) -> list[bytes | None]:
    return contents(located, range(count)) if options.verify else [None] * count


def _failed(answers: Answers) -> pl.Series:
    failed_N = np.zeros(len(answers), np.bool_)
    failed_N[list(answers.errors)] = True
    return pl.Series(FAILED, failed_N)


def _wrong(answers: Answers) -> pl.Series:
    """What is wrong with each row, a list."""
    told = answers.error_frame().select("row", pl.struct("field", "error").alias(WRONG))
    rows = pl.DataFrame({"row": pl.Series(range(1, len(answers) + 1), dtype=pl.Int64)})
    several = told.group_by("row", maintain_order=True).agg(WRONG)
    return rows.join(several, on="row", how="left", maintain_order="left")[WRONG].cast(BESIDE[WRONG])


def _near(bundle: "Bundle", catalog: Catalog, options: BatchOptions, machine: Machine) -> pl.Series:
    """The look-alikes of each row, a list."""
    cells: list[list[dict[str, Any]] | None] = [None] * len(catalog)
    if options.evidence:
        found = bundle.look_alikes(catalog, options.evidence, stating=options.stating, machine=machine)
        for row, _, rank, name, similarity, *stated in found.iter_rows():
            said = cells[row - 1] = cells[row - 1] or []
            item = {"rank": rank, "look_alike": name, "similarity": similarity}
            said.append(item | {"stated": stated[0] if stated else None})
    return pl.Series(NEAR, cells, BESIDE[NEAR])


def _findings(catalog: Catalog, rows: npt.NDArray[np.int64]) -> dict[str, Any]:
    """What reading noticed: the first findings in words, and how many there are of each kind."""
    # Ids are compared over the whole table, not here.
    found = [item for item in catalog.findings if item.kind not in ("duplicate_id", "empty_id")]
    first = [
        item if item.row is None else replace(item, row=int(rows[item.row - 1]) + 1)
        for item in found[:MOST_SAID]
    ]
    counts = Counter(item.kind for item in found)
    return {"findings": [str(item) for item in first], "counts": dict(counts)}


def with_fetched(catalog: Catalog, folder: Path, options: BatchOptions) -> tuple[Catalog, set[int]]:
    """Return a catalogue with the photos whose cells are addresses, fetched into a folder; and rows that lack one."""
    from shelfwise.data.download import download
    from shelfwise.data.terms import DownloadOptions

    column = catalog.schema.roles.image
    cells = catalog.frame[column].to_list() if column is not None else []
    rows = [row for row in catalog.image_errors if row < len(cells) and URL_CELL.match(cells[row] or "")]
    if not rows:
        return catalog, set()
    wanted = pl.DataFrame({"id": [str(row) for row in rows], "url": [cells[row] for row in rows]})
    terms = DownloadOptions(allow_private=options.allow_private, allow_stores=options.allow_stores)
    fetched = download(wanted, folder, photos=("url",), columns=Columns(id="id"), options=terms)
    place = ImageFolder(folder)
    located = locate_photos(wanted["url"].to_list(), wanted["id"].to_list(), place)
    lost = {
        int(id_): ImageError("not_an_image" if status == "not_an_image" else "missing", f"{url}: {detail}")
        for id_, url, status, detail in fetched.frame.select("id", "url", "status", "detail").iter_rows()
        if status != "ok"
    }
    images, errors, photos = list(catalog.images), dict(catalog.image_errors), dict(catalog.photos)
    for at, row in enumerate(rows):
        images[row] = located.first[at]
        error = located.errors.get(at)
        if error is None:
            del errors[row]
        else:
            errors[row] = lost.get(row, error)
        if at in located.photos:
            photos[row] = located.photos[at]
    whole = replace(catalog, images=tuple(images), image_errors=dict(sorted(errors.items())), photos=photos)
    return whole, set(lost)


def _located(frame: pl.DataFrame, job: Job) -> Located:
    ids = frame[job.roles.id].to_list() if job.roles.id is not None else []
    cells = frame[job.roles.image].to_list() if job.roles.image is not None else None
    shown = _shown(job.photos, job.roles.id, job.folder)
    return locate_photos(
        cells, ["" if id_ is None else id_ for id_ in ids], _folder(job.images, job.folder), shown
    )


def _write_part(frame: pl.DataFrame, said: Mapping[str, Any], path: Path) -> None:
    import pyarrow.parquet as pq

    table = frame.to_arrow()
    pq.write_table(table.replace_schema_metadata({SAID: json.dumps(said)}), path, compression="zstd")


def said_of(part: Path) -> dict[str, Any]:
    """Return what a file of answers says beside them: ``done``, and notes and findings where there are any."""
    import pyarrow.parquet as pq

    found: dict[str, Any] = json.loads((pq.read_schema(part).metadata or {})[SAID.encode()])
    return found


def _on_gpu() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


# What a process reads once: a listing of a million photos, a table of photos, the sorted keys.


@cache
def _engines() -> dict[Hashable, Any]:
    return {}


@lru_cache(maxsize=1)
def _folder(root: Path, run: Path) -> ImageFolder:
    return ImageFolder(root)


@lru_cache(maxsize=1)
def _shown(photos: Path | None, id_column: str | None, run: Path) -> Photos | None:
    return None if photos is None else read_photos(photos, id_column)


@lru_cache(maxsize=1)
def _kept(keys: Path, parts: tuple[Path, ...]) -> Kept:
    return Kept.open(keys, parts)
