"""A table answered shard by shard: the same answers as at once, each row once, and only what changed anew."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from conftest import Shell, Toy
from shelfwise.batch import answering
from shelfwise.batch.jobs import BatchOptions, Record, deciding_digest
from shelfwise.batch.run import Batch, answer_table, append, needs_job
from shelfwise.bundle import Bundle, load
from shelfwise.errors import BatchStopped, BundleError, CatalogError, ImageError, UsageError
from shelfwise.locate import ImageFolder
from shelfwise.manifest import amending
from shelfwise.predictions import Machine
from shelfwise.roles import Columns

Answer = Callable[..., Batch]
ROWS = 60


@pytest.fixture
def shop(toy: Toy, tmp_path: Path) -> Path:
    """A table of sixty products, its photos beside it; tests may change both."""
    shutil.copytree(toy.directory / "images", tmp_path / "images")
    frame = pl.read_csv(toy.table, infer_schema=False).head(ROWS)
    broken = tmp_path / "images" / "00004.png"
    broken.write_bytes(broken.read_bytes()[:60])
    column = pl.col("category")
    frame = frame.with_columns(
        pl.when(pl.col("id") == "00005").then(pl.lit("=Spaceships")).otherwise(column).alias("category")
    ).with_columns(pl.when(pl.col("id") == "00006").then(None).otherwise(column).alias("category_"))
    frame = frame.with_columns(
        pl.when(pl.col("id") == "00006").then(None).otherwise(pl.col("category")).alias("category")
    ).drop("category_")
    frame.write_csv(tmp_path / "shop.csv")
    return tmp_path / "shop.csv"


@pytest.fixture
def answer(saved: Path, shop: Path, machine: Machine, tmp_path: Path, one_thread: None) -> Answer:
    def run(
        out: str = "out.csv", table: Path = shop, columns: Columns | None = None, **options: Any
    ) -> Batch:
        given = BatchOptions(**{"rows": 13, **options})
        return answer_table(saved, table, tmp_path / out, columns=columns, options=given, machine=machine)

    return run


@pytest.fixture
def at_once(
    saved: Path, shop: Path, machine: Machine, tmp_path: Path, one_thread: None
) -> Callable[..., Path]:
    """The same answers, of all rows at once."""

    def run(out: str = "whole.csv", table: Path = shop, *, explain: bool = False, **options: Any) -> Path:
        bundle = load(saved)
        answers = bundle.answer(bundle.read(table), machine=machine, **options)
        answers.write(tmp_path / out, explain=explain)
        return tmp_path / out

    return run


def change(table: Path, edit: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    edit(pl.read_csv(table, infer_schema=False)).write_csv(table)


def same(one: Path, other: Path) -> bool:
    beside = [path.with_suffix(".errors.csv").read_bytes() for path in (one, other)]
    return one.read_bytes() == other.read_bytes() and beside[0] == beside[1]


@pytest.mark.parametrize("rows", [1, 13, 1000])
@pytest.mark.parametrize("explain", [False, True])
def test_shards_give_the_bytes_that_all_rows_give(
    rows: int, explain: bool, answer: Answer, at_once: Callable[..., Path], tmp_path: Path
) -> None:
    found = answer(rows=rows, explain=explain)
    assert same(tmp_path / "out.csv", at_once(explain=explain))
    assert (found.rows, found.computed, found.failed) == (ROWS, ROWS, 2)
    assert found.hours is not None
    assert "'=Spaceships" in (tmp_path / "out.csv").read_text(encoding="utf-8")


def test_parquet_and_copied_stated_cells_are_alike(
    answer: Answer, at_once: Callable[..., Path], tmp_path: Path
) -> None:
    answer("out.parquet", keep_stated=True)
    expected = pl.read_parquet(at_once("whole.parquet", keep_stated=True))
    found = pl.read_parquet(tmp_path / "out.parquet")
    assert found.schema == expected.schema
    assert found.equals(expected)
    assert (tmp_path / "out.stated.json").exists()
    answer("out.parquet")
    assert not (tmp_path / "out.stated.json").exists()


def test_nothing_changed_answers_nothing_and_loads_no_bundle(
    answer: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer()
    before = (tmp_path / "out.csv").read_bytes()
    (tmp_path / "out.csv").unlink()

    def refuse(*given: object) -> Bundle:
        raise AssertionError("the bundle was loaded")

    monkeypatch.setattr(answering, "loaded", refuse)
    again = answer(rows=7)
    assert (again.rows, again.computed, again.failed, again.hours) == (ROWS, 0, 2, None)
    assert (tmp_path / "out.csv").read_bytes() == before
    assert answer(explain=True).computed == 0
    assert b".probability" in (tmp_path / "out.csv").read_bytes()
    with pytest.raises(AssertionError, match="was loaded"):
        answer(every_cell=True)


def test_only_rows_that_changed_are_answered(
    answer: Answer, at_once: Callable[..., Path], shop: Path, tmp_path: Path
) -> None:
    answer()

    def edit(frame: pl.DataFrame) -> pl.DataFrame:
        new = frame.head(1).with_columns(pl.lit("new").alias("id"))
        id_ = pl.col("id")
        return pl.concat([new, frame.filter(id_ != "00020")]).with_columns(
            pl.when(id_ == "00030").then(pl.lit("Plates")).otherwise(pl.col("category")).alias("category"),
            pl.when(id_ == "00031").then(pl.lit("another")).otherwise(pl.col("title")).alias("title"),
            # A stated cell changes no answer.
            pl.when(id_ == "00032").then(pl.lit("red")).otherwise(pl.col("colour")).alias("colour"),
        )

    change(shop, edit)
    shutil.copyfile(tmp_path / "images" / "00050.png", tmp_path / "images" / "00040.png")
    (tmp_path / "images" / "00041.png").unlink()
    found = answer(rows=11)
    assert found.computed == len(["new", "00030", "00031", "00040", "00041"])
    assert found.rows == ROWS
    assert same(tmp_path / "out.csv", at_once())


def test_another_bundle_answers_everything_anew(
    saved: Path, shop: Path, machine: Machine, tmp_path: Path, one_thread: None
) -> None:
    bundle = tmp_path / "bundle"
    load(saved).save(bundle)
    options = BatchOptions(rows=30)
    answer_table(bundle, shop, tmp_path / "out.csv", options=options, machine=machine)
    noted = load(saved).with_notes("Another note.")
    noted.save(bundle)
    again = answer_table(bundle, shop, tmp_path / "out.csv", options=options, machine=machine)
    assert again.computed == 0, "a note answers nothing"
    assert noted.rule is not None
    replace(noted, rule=replace(noted.rule, metric="accuracy")).save(bundle)
    again = answer_table(bundle, shop, tmp_path / "out.csv", options=options, machine=machine)
    assert again.computed == ROWS
    shutil.rmtree(bundle)
    with pytest.raises(BundleError, match="there is no bundle"):
        answer_table(bundle, shop, tmp_path / "out.csv", options=options, machine=machine)


def test_verify_looks_at_the_content_of_photos(answer: Answer, tmp_path: Path) -> None:
    answer(verify=True)
    assert answer(verify=True).computed == 0
    photo = tmp_path / "images" / "00010.png"
    stat, content = photo.stat(), photo.read_bytes()
    other = bytearray(content)
    other[-13] ^= 1
    photo.write_bytes(other)
    os.utime(photo, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert answer().computed == 0, "size and time are as they were"
    assert answer(verify=True).computed == 1


class Stop(BaseException):
    """What stands for a kill."""


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the process stop before it can record its nth shard."""
    kept = Record.add

    def after(shards: int) -> None:
        left = [shards]

        def add(self: Record, *given: Any) -> None:
            if not left[0]:
                monkeypatch.setattr(Record, "add", kept)
                raise Stop
            left[0] -= 1
            kept(self, *given)

        monkeypatch.setattr(Record, "add", add)

    return after


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_killed_job_goes_on(
    after: int,
    answer: Answer,
    at_once: Callable[..., Path],
    killed: Callable[[int], None],
    tmp_path: Path,
) -> None:
    log = tmp_path / "answers.jsonl"
    log.write_text('{"id": "from before"}\n', encoding="utf-8")
    killed(after)
    with pytest.raises(Stop):
        answer(log=log)
    assert not (tmp_path / "out.csv").exists()
    with log.open("ab") as file:
        file.write(b'{"id": "half a li')
    found = answer(log=log)
    assert found.computed == ROWS - 13 * (after + 1), "a shard whose file is there is not answered again"
    assert same(tmp_path / "out.csv", at_once())
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    cells = [(line["row"], line["attribute"]) for line in lines[1:]]
    assert len(set(cells)) == len(cells) == found.cells["answered"]
    assert {"row", "id", "category", "attribute", "value", "probability", "threshold"} <= set(lines[1])
    assert {"bundle", "time"} <= set(lines[1])


def test_the_log_has_new_answers_only_and_begins_anew_with_a_new_file(
    answer: Answer, shop: Path, tmp_path: Path
) -> None:
    log = tmp_path / "answers.jsonl"
    answer(log=log, precision=0.6)
    first = log.read_bytes()
    assert json.loads(first.splitlines()[0])["threshold"] is not None
    assert answer(log=log, precision=0.6).computed == 0
    assert log.read_bytes() == first
    change(shop, lambda frame: frame.with_columns(pl.col("title").replace("Cup no. 2 by Toyware", "x")))
    answer(log=log, precision=0.6)
    assert log.read_bytes().startswith(first)
    log.unlink()
    assert answer(log=log, precision=0.6).computed == ROWS, "a log that is gone is written again, whole"
    assert len(log.read_bytes().splitlines()) == len(first.splitlines())


def test_what_was_appended_and_not_recorded_goes(tmp_path: Path) -> None:
    log = tmp_path / "new" / "log"
    assert append(log, b"one\n", 0) == 4
    assert append(log, b"two\n", 4) == 8
    assert append(log, b"three\n", 4) == 10
    assert log.read_bytes() == b"one\nthree\n"


def test_too_many_failed_rows_stop_the_job_and_nothing_is_lost(answer: Answer, tmp_path: Path) -> None:
    with pytest.raises(BatchStopped, match=r"2 rows could not be answered, more than 1\. The first is row 5"):
        answer(max_errors=1)
    assert not (tmp_path / "out.csv").exists()
    assert answer(max_errors=2).computed == ROWS - 13
    assert pl.read_csv(tmp_path / "out.errors.csv")["row"].to_list() == [5, 6, 7]


def test_one_process_at_a_time_answers_into_a_file(answer: Answer, tmp_path: Path) -> None:
    with (
        closing(Record(tmp_path / "out.csv.job")),
        pytest.raises(UsageError, match="another process answers into"),
    ):
        answer()
    (tmp_path / "out.csv.job" / "job.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(Exception, match=r"Delete .*out\.csv\.job to answer everything anew"):
        answer()


def test_ids_are_looked_at_over_the_whole_table(answer: Answer, shop: Path) -> None:
    change(shop, lambda frame: frame.with_columns(pl.col("id").replace({"00040": "00002", "00050": ""})))
    found = answer()
    assert found.counts["duplicate_id"] == found.counts["empty_id"] == 1
    assert any("the id '00002' is that of row 3 too" in line for line in found.findings)
    change(shop, lambda frame: frame.rename({"id": "sku"}))
    assert answer().counts["duplicate_id"] == 1
    with pytest.raises(CatalogError, match="there is no column 'nowhere'"):
        answer(columns=Columns(id="nowhere"))


def test_rows_without_ids_are_numbered_over_the_whole_table(
    answer: Answer, at_once: Callable[..., Path], shop: Path, tmp_path: Path
) -> None:
    change(shop, lambda frame: frame.drop("id"))
    answer()
    assert same(tmp_path / "out.csv", at_once())
    assert pl.read_csv(tmp_path / "out.csv")["id"].to_list() == list(range(1, ROWS + 1))


def test_a_table_without_rows_gives_one(answer: Answer, shop: Path, tmp_path: Path) -> None:
    change(shop, lambda frame: frame.head(0))
    assert answer().rows == 0
    assert (tmp_path / "out.csv").read_text(encoding="utf-8").startswith("id,category,colour")


def test_several_photos_and_look_alikes_come_along(
    answer: Answer, at_once: Callable[..., Path], saved: Path, shop: Path, machine: Machine, tmp_path: Path
) -> None:
    change(
        shop,
        lambda frame: frame.with_columns(
            pl.when(pl.col("id") == "00022")
            .then(pl.lit("images/00022.png|images/00023.png"))
            .otherwise(pl.col("image"))
            .alias("image")
        ),
    )
    answer(evidence=2, explain=True)
    assert same(tmp_path / "out.csv", at_once(explain=True))
    bundle = load(saved)
    near = pl.read_csv(tmp_path / "out.evidence.csv", infer_schema=False)
    expected = bundle.look_alikes(bundle.read(shop), 2, machine=machine)
    assert near.rows() == [tuple(str(cell) for cell in row) for row in expected.rows()]
    (tmp_path / "images" / "00023.png").touch()
    assert answer(evidence=2, explain=True).computed == 2, "every photo of a product counts"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    import threading
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *given: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_address[1]}"
        found.shutdown()


def test_photos_at_addresses_are_fetched_where_that_is_asked_for(
    answer: Answer, at_once: Callable[..., Path], shop: Path, tmp_path: Path, server: str
) -> None:
    whole = at_once().read_bytes()
    change(shop, lambda frame: frame.with_columns((f"{server}/" + pl.col("image")).alias("image")).head(20))
    (shop.parent / "elsewhere").mkdir()
    elsewhere = shop.rename(shop.parent / "elsewhere" / "shop.csv")
    assert answer("not.csv", elsewhere).failed == 20
    found = answer("out.csv", elsewhere, fetch=True, allow_private=True)
    assert found.failed == 2
    lines = (tmp_path / "out.csv").read_bytes().splitlines()
    assert lines == whole.splitlines()[: len(lines)]
    assert not list((tmp_path / "out.csv.job").rglob("*.png"))
    again = answer("out.csv", elsewhere, fetch=True, allow_private=True)
    assert again.computed == 1, "what could not be fetched is tried again, here a file that is no picture"
    assert answer("out.csv", elsewhere, fetch=True).failed == 20, (
        "what was allowed before is not carried over"
    )
    forbidden = answer("out2.csv", elsewhere, fetch=True)
    assert forbidden.failed == 20
    assert "loopback" in (tmp_path / "out2.errors.csv").read_text(encoding="utf-8")


def test_a_photo_that_could_not_be_fetched_is_tried_again(
    answer: Answer, shop: Path, tmp_path: Path, server: str
) -> None:
    change(shop, lambda frame: frame.with_columns((f"{server}/" + pl.col("image")).alias("image"))[8:20])
    (shop.parent / "elsewhere").mkdir()
    elsewhere = shop.rename(shop.parent / "elsewhere" / "shop.csv")
    photo = tmp_path / "images" / "00010.png"
    photo.rename(tmp_path / "away.png")
    assert answer("out.csv", elsewhere, fetch=True, allow_private=True).failed == 1
    (tmp_path / "away.png").rename(photo)
    found = answer("out.csv", elsewhere, fetch=True, allow_private=True)
    assert (found.computed, found.failed) == (1, 0)
    assert answer("out.csv", elsewhere, fetch=True, allow_private=True).computed == 0


def test_what_is_put_beside_a_bundle_changes_no_answer(saved: Path, tmp_path: Path) -> None:
    machine = Machine()
    by_export = replace(machine, engine="openvino")
    before = saved / "bundle.json", deciding_digest(saved, machine), deciding_digest(saved, by_export)
    other = tmp_path / "bundle"
    shutil.copytree(saved, other)
    with amending(other) as folder:
        (folder / "export" / "onnx").mkdir(parents=True)
        (folder / "export" / "onnx" / "model.onnx").write_bytes(b"x")
        (folder / "card.md").write_text("measured", encoding="utf-8")
    assert (other / "bundle.json").read_bytes() != before[0].read_bytes()
    assert deciding_digest(other, machine) == before[1]
    assert deciding_digest(other, by_export) != before[2]
    with amending(other) as folder:
        (folder / "decision.json").write_text("{}", encoding="utf-8")
    assert deciding_digest(other, machine) != before[1]


def test_a_list_of_photos_in_a_parquet_file_is_several_photos(
    answer: Answer, shop: Path, tmp_path: Path
) -> None:
    frame = pl.read_csv(shop, infer_schema=False).with_columns(
        pl.when(pl.col("id") == "00022")
        .then(pl.lit("images/00022.png|images/00023.png"))
        .otherwise(pl.col("image"))
        .alias("image")
    )
    frame.write_csv(shop)
    answer("text.csv")
    listed = frame.with_columns(pl.col("image").str.split("|"))
    listed.write_parquet(tmp_path / "shop.parquet")
    answer("listed.csv", tmp_path / "shop.parquet")
    assert same(tmp_path / "text.csv", tmp_path / "listed.csv")


def test_the_command_line_answers_long_tables_as_jobs(
    shell: Shell, saved: Path, shop: Path, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        "predict",
        saved,
        shop,
        "-o",
        tmp_path / "out.csv",
        "--cache",
        machine.cache,
        "--engine",
        "torch",
    ]
    ran = shell(*words)
    assert ran.code == 0, ran.err
    assert not (tmp_path / "out.csv.job").exists()
    before = (tmp_path / "out.csv").read_bytes()
    monkeypatch.setattr("shelfwise.batch.run.LONG", 50)
    ran = shell(*words)
    assert ran.code == 0, ran.err
    assert "60 rows, 60 answered now" in ran.out
    assert "CPU-hours per million rows" in ran.out
    assert (tmp_path / "out.csv").read_bytes() == before
    monkeypatch.undo()
    assert needs_job(shop, tmp_path / "out.csv", BatchOptions()), "it was a job before"
    assert "0 answered now" in shell(*words).out
    stopped = shell(*words, "--max-errors", 0, "--every-cell")
    assert (stopped.code, "stopped: 2 rows" in stopped.err) == (2, True)
    assert "--on is here or ray" in shell(*words, "--on", "moon").err


def test_what_leads_outside_stays_outside_once_folders_are_remembered(tmp_path: Path) -> None:
    root, other = tmp_path / "photos", tmp_path / "other"
    for folder in (root / "sub", other):
        folder.mkdir(parents=True)
        (folder / "a.jpg").write_bytes(b"x")
    (root / "link.jpg").symlink_to(other / "a.jpg")
    (root / "sub" / "inside.jpg").symlink_to(root / "sub" / "a.jpg")
    (root / "door").symlink_to(other)
    place = ImageFolder(root)
    for _ in range(2):
        assert place.by_path("sub/a.jpg") == place.by_path("./sub//a.jpg") == root / "sub" / "a.jpg"
        assert place.by_path("sub/inside.jpg") == root / "sub" / "a.jpg"
        for text in (
            "link.jpg",
            "door/a.jpg",
            "../other/a.jpg",
            "sub/../../other/a.jpg",
            str(other / "a.jpg"),
        ):
            with pytest.raises(ImageError, match="outside"):
                place.by_path(text)
