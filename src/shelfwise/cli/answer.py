"""The verb that answers: predict.

It parses, calls one library function and prints.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from shelfwise.cli.amounts import amount_text, range_text
from shelfwise.cli.options import (
    Cache,
    Category,
    Device,
    Engine,
    ExplainBeside,
    ExplainImage,
    ExplainMost,
    ExplainOnly,
    Id,
    Image,
    Images,
    Jobs,
    Photos,
    app,
    columns_of,
    machine_of,
    say,
    writable,
)
from shelfwise.errors import UsageError

if TYPE_CHECKING:
    from shelfwise.batch.jobs import BatchOptions
    from shelfwise.predictions import Machine
    from shelfwise.roles import Columns


@app.command()
def predict(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE")],
    table: Annotated[Path, typer.Argument(metavar="TABLE|PHOTO", help="A table of products, or one photo.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", callback=writable, help="Ends in .csv or .parquet.")
    ] = None,
    images: Images = None,
    photos: Photos = None,
    category: Category = "",
    id: Id = "",
    image: Image = "",
    filler: Annotated[str | None, typer.Option(help="What unused and unanswered cells hold.")] = None,
    keep_stated: Annotated[
        bool, typer.Option("--keep-stated", help="Copy stated values, answer empty cells.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Add state, probability, candidate and runner-up columns.")
    ] = False,
    precision: Annotated[
        float | None, typer.Option(help="Answer only what is right this often, such as 0.98.")
    ] = None,
    confidence: Annotated[
        float | None, typer.Option(help="How sure that is to be; 0.9 unless the run says otherwise.")
    ] = None,
    promise_over: Annotated[
        str, typer.Option("--promise-over", help="attribute, attribute-alone or catalogue.")
    ] = "",
    every_cell: Annotated[
        bool, typer.Option("--every-cell", help="Answer every cell, whatever promise and familiarity say.")
    ] = False,
    listing: Annotated[
        str | None,
        typer.Option("--listing", metavar="TEXT", help="What is written of the product in the one photo."),
    ] = None,
    evidence: Annotated[
        int,
        typer.Option("--evidence", min=0, help="Also write the K training products that look most alike."),
    ] = 0,
    stating: Annotated[
        str,
        typer.Option(
            metavar="NUMBER", help="Of --evidence: only products that state it, with what they state."
        ),
    ] = "",
    workers: Annotated[
        int, typer.Option("--workers", min=0, max=256, help="Processes that answer; 0 for this one.")
    ] = 0,
    on: Annotated[str, typer.Option("--on", help="here, or ray for a Ray cluster.")] = "here",
    address: Annotated[str, typer.Option("--address", help="Of the Ray cluster; else one here.")] = "",
    shard: Annotated[
        int | None, typer.Option("--shard", min=1, help="Rows answered together; 5,000 in a batch job.")
    ] = None,
    max_errors: Annotated[
        int | None, typer.Option("--max-errors", min=0, help="Stop when more rows than this failed.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare photos by content, not by size and time.")
    ] = False,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Fetch photos whose cells are addresses, shard by shard.")
    ] = False,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="With --fetch: private and loopback addresses too.")
    ] = False,
    allow_store: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-store", metavar="PREFIX", help="With --fetch: s3://photos/ and such. Repeatable."
        ),
    ] = None,
    log: Annotated[
        Path | None, typer.Option("--log", metavar="FILE", help="Append every answer as a JSON line.")
    ] = None,
    explain_image: ExplainImage = None,
    explain_only: ExplainOnly = "",
    explain_most: ExplainMost = 50,
    explain_beside: ExplainBeside = None,
    jobs: Jobs = None,
    device: Device = "auto",
    engine: Engine = "auto",
    cache: Cache = None,
) -> None:
    """Answer every product of a table, or one photo (then --category is its category, --listing its text)."""
    from shelfwise.roles import IMAGE_ENDINGS

    with machine_of(cache, jobs, device, engine) as machine:
        asked = None
        if explain_image is not None:
            from shelfwise.explaining import Explain

            asked = Explain(explain_image, explain_only, explain_most, explain_beside, images)
        if table.suffix.lower() in IMAGE_ENDINGS:
            if asked is not None:
                print(asked.photo(bundle, table, category or None, machine), file=sys.stderr)
            _predict_photo(bundle, table, listing, category, id, precision, machine)
        if listing is not None:
            raise UsageError("--listing is what is written of one photo; a table has columns of text")
        if out is None:
            raise UsageError("predicting a table needs -o OUT.csv or -o OUT.parquet")
        if out.suffix not in (".csv", ".parquet"):
            raise UsageError(
                f"answers are written to .csv or .parquet, not {out.suffix or 'no ending'!r}: {out}"
            )
        if on not in ("here", "ray"):
            raise UsageError(f"--on is here or ray, not {on!r}")
        from shelfwise.batch.jobs import ROWS, BatchOptions
        from shelfwise.batch.run import needs_job

        options = BatchOptions(
            precision=precision,
            confidence=confidence,
            over=promise_over or None,
            every_cell=every_cell,
            keep_stated=keep_stated,
            filler=filler,
            explain=explain,
            evidence=evidence,
            stating=stating or None,
            rows=shard or ROWS,
            workers=workers,
            on="ray" if on == "ray" else "here",
            address=address or None,
            max_errors=max_errors,
            verify=verify,
            fetch=fetch,
            allow_private=allow_private,
            allow_stores=tuple(allow_store or ()),
            log=log,
        )
        columns = columns_of(id, category, image, "", "", "")
        if shard is not None or needs_job(table, out, options):
            if asked is not None:
                raise UsageError(
                    "--explain-image is for a table that is answered at once: explain a part of it"
                )
            _predict_job(bundle, table, out, images, photos, columns, options, machine)
        else:
            _predict_table(bundle, table, out, images, photos, columns, options, machine)
        if asked is not None:
            print(asked.table(bundle, table, columns, machine))


def _predict_photo(
    bundle: Path,
    photo: Path,
    listing: str | None,
    category: str,
    id: str,
    precision: float | None,
    machine: "Machine",
) -> NoReturn:
    from shelfwise.bundle import load

    loaded = load(bundle)
    one = loaded.answer_one(
        photo,
        text=listing,
        category=category or None,
        id=id or None,
        precision=precision,
        machine=machine,
    )
    print(json.dumps(one, ensure_ascii=False, indent=1))
    for name in loaded.taxonomy.number_names:
        print(range_text(name, loaded.taxonomy.number(name).unit, one["answers"]), file=sys.stderr)
    raise typer.Exit(0 if one["error"] is None else 1)


def _predict_job(
    bundle: Path,
    table: Path,
    out: Path,
    images: Path | None,
    photos: Path | None,
    columns: "Columns",
    options: "BatchOptions",
    machine: "Machine",
) -> None:
    """Answer a table shard by shard."""
    from shelfwise.batch.run import answer_table

    found = answer_table(
        bundle, table, out, images=images, photos=photos, columns=columns, options=options, machine=machine
    )
    for line in found.findings:
        print(line, file=sys.stderr)
    if sum(found.counts.values()) > len(found.findings):
        counted = ", ".join(f"{count:,} {kind}" for kind, count in found.counts.items())
        print(f"... {sum(found.counts.values()):,} findings in all: {counted}", file=sys.stderr)
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    print(found)
    _check_any(found.failed, found.rows)


def _check_any(failed: int, rows: int) -> None:
    """End with 1 where no row at all was answered: most likely the photos are elsewhere."""
    if rows and failed == rows:
        print("no row could be answered: see the table of errors, and --images", file=sys.stderr)
        raise typer.Exit(1)


def _predict_table(
    bundle: Path,
    table: Path,
    out: Path,
    images: Path | None,
    photos: Path | None,
    columns: "Columns",
    options: "BatchOptions",
    machine: "Machine",
) -> None:
    """Answer a table at once."""
    from shelfwise.bundle import load
    from shelfwise.tables import write_frame

    loaded = load(bundle)
    catalog = loaded.read(table, images=images, columns=columns, photos=photos)
    promised = options.precision is not None or loaded.run.decide.precision is not None
    told = ""
    if promised and not options.every_cell:
        promise = loaded.promise(options.precision, options.confidence, options.over)
        told = str(promise)
        print(promise.table_text(), file=sys.stderr)
    answers = loaded.answer(
        catalog,
        precision=options.precision,
        confidence=options.confidence,
        over=options.over,
        every_cell=options.every_cell,
        keep_stated=options.keep_stated,
        machine=machine,
    )
    answers.write(out, filler=options.filler, explain=options.explain)
    if options.evidence:
        near = out.with_suffix(".evidence.csv")
        found = loaded.look_alikes(catalog, options.evidence, stating=options.stating, machine=machine)
        write_frame(found, near, escape=("id", "look_alike"))
        print(f"wrote {near}")
    say(catalog.findings)
    for note in answers.notes:
        if note != told:
            print(f"note: {note}", file=sys.stderr)
    print(
        f"wrote {out}: {len(answers):,} rows, {len(answers.errors):,} with errors, "
        f"{len(answers.guessed):,} with a predicted category; see {out.with_suffix('.errors.csv').name}\n"
        f"cells: {', '.join(f'{count:,} {state}' for state, count in answers.counts().items() if state != 'error')}"
    )
    for item in answers.amounts:
        print(amount_text(item))
    if not answers.amounts:
        _check_any(len(answers.errors), len(answers))
