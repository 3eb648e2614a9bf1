"""Verbs on labels: labels queue, next, export, import, verify.

They parse, call one library function and print.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from shelfwise.cli.options import (
    Cache,
    Category,
    Device,
    Engine,
    Id,
    Ignore,
    Image,
    Images,
    Jobs,
    Number,
    Out,
    Table,
    Text,
    app,
    columns_of,
    machine_of,
    say,
)
from shelfwise.errors import DeskError

verbs = typer.Typer(
    help="What people look at and label: the queue of a review desk, and labels out of it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(verbs, name="labels")

Bundled = Annotated[Path, typer.Argument(metavar="BUNDLE")]
Place = Annotated[str, typer.Argument(metavar="DESK", help="A desk's file, or postgresql://...")]
Weights = Annotated[
    str, typer.Option(metavar="ATTRIBUTE=NUMBER[,...]", help="What an error in an attribute weighs.")
]
Format = Annotated[Literal["table", "label-studio"], typer.Option("--format", help="table or label-studio.")]


@verbs.command()
def queue(
    bundle: Bundled,
    table: Table,
    desk: Annotated[str, typer.Option(help="The desk's file, made on first use, or postgresql://...")],
    images: Images = None,
    weights: Weights = "",
    reasons: Annotated[
        str, typer.Option(metavar="REASON=NUMBER[,...]", help="What an item weighs by why it is asked.")
    ] = "",
    worth: Annotated[
        str, typer.Option(metavar="COLUMN", help="A column of what each product weighs, such as its sales.")
    ] = "",
    supplier: Annotated[str, typer.Option(metavar="COLUMN", help="The column that names the supplier.")] = "",
    precision: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=0.999,
            help="Answers that do not keep it are asked; by default the bundle's, or 0.95.",
        ),
    ] = None,
    second: Annotated[
        float, typer.Option(min=0, max=1, help="The share of items that two reviewers look at.")
    ] = 0.05,
    look_alikes: Annotated[
        int, typer.Option(min=0, help="Name this many products learnt from beside each item.")
    ] = 3,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="TABLE",
            help="The table learnt from, for the photos of look-alikes that are not in TABLE.",
        ),
    ] = None,
    reference_images: Annotated[
        Path | None, typer.Option(help="The folder of its photos, where it is another one.")
    ] = None,
    explain: Annotated[
        int,
        typer.Option(
            "--explain-image", min=0, help="Draw for this many items where in the photo the value comes from."
        ),
    ] = 0,
    id: Id = "",
    category: Category = "",
    image: Image = "",
    text: Text = "",
    number: Number = "",
    ignore: Ignore = "",
    jobs: Jobs = None,
    device: Device = "auto",
    engine: Engine = "auto",
    cache: Cache = None,
) -> None:
    """Put what the bundle doubts in a table on a review desk; run again, only what is new is added."""
    from shelfwise.auditing import weights_of
    from shelfwise.batch.jobs import bundle_digest
    from shelfwise.bundle import load
    from shelfwise.service.desk import Desk
    from shelfwise.service.doubts import Weighing, explained, items_of

    weighing = Weighing(weights_of(weights), weights_of(reasons), worth or None, supplier or None)
    loaded, digest = load(bundle), bundle_digest(bundle)
    columns = columns_of(id, category, image, text, number, ignore)
    catalog = loaded.read(table, images=images, columns=columns)
    weighing.check(catalog)
    learnt = None
    if reference is not None:
        learnt = loaded.read(reference, images=reference_images or images, columns=columns)
    with Desk.open(desk) as opened:
        with machine_of(cache, jobs, device, engine) as machine:
            items = items_of(
                loaded,
                catalog,
                weighing,
                precision=precision,
                look_alikes=look_alikes,
                reference=learnt,
                machine=machine,
            )
            if explain:
                items = explained(items, explain, loaded, catalog, machine)
        layout = loaded.schema.layout
        new = opened.fill(items, bundle=digest, taxonomy=loaded.taxonomy, layout=layout, second=second)
        progress = opened.progress()
    say(catalog.findings)
    reasons = ", ".join(f"{tally.left:,} {tally.name}" for tally in progress.by_reason if tally.left)
    print(
        f"{len(items):,} items, {new:,} of them new; to look at: {progress.left:,}"
        + (f" ({reasons})" if reasons else "")
        + (f"; {sum(bool(item.heat) for item in items):,} with a heat map" if explain else "")
    )


@verbs.command()
def next(
    bundle: Bundled,
    table: Table,
    out: Out,
    count: Annotated[int, typer.Option("-k", "--count", min=1, help="How many products.")] = 100,
    images: Images = None,
    weights: Weights = "",
    id: Id = "",
    category: Category = "",
    image: Image = "",
    text: Text = "",
    number: Number = "",
    ignore: Ignore = "",
    jobs: Jobs = None,
    device: Device = "auto",
    engine: Engine = "auto",
    cache: Cache = None,
) -> None:
    """Choose the products to label next: uncertain ones, unlike each other, with rare values."""
    from shelfwise.auditing import weights_of
    from shelfwise.bundle import load
    from shelfwise.choosing import label_next
    from shelfwise.service.labels import check_path

    check_path(out)
    given, loaded = weights_of(weights), load(bundle)
    catalog = loaded.read(table, images=images, columns=columns_of(id, category, image, text, number, ignore))
    with machine_of(cache, jobs, device, engine) as machine:
        chosen = label_next(loaded, catalog, count, weights=given, machine=machine)
    chosen.write(out)
    say(catalog.findings)
    print(f"wrote {out}: {len(chosen):,} of {len(catalog):,} products, the one that teaches most first")


@verbs.command()
def export(
    desk: Place,
    out: Out,
    onto: Annotated[
        Path | None, typer.Option(metavar="TABLE", help="Write this table with its cells corrected.")
    ] = None,
    format: Format = "table",
    photos_url: Annotated[
        str,
        typer.Option(
            metavar="URL", help="For Label Studio: where the pictures are served, before their names."
        ),
    ] = "",
) -> None:
    """Write verdicts as training labels, with where each comes from beside them; or items for Label Studio."""
    from shelfwise.service.desk import Desk
    from shelfwise.service.label_studio import write_tasks
    from shelfwise.service.labels import check_path, labels_of

    if format == "table":
        check_path(out)
    with Desk.open(desk, new=False) as opened:
        if format == "label-studio":
            print(
                f"wrote {out} and {out.with_suffix('.xml')}: {write_tasks(opened, out, photos=photos_url):,} tasks"
            )
            return
        labels = labels_of(opened)
    lost = labels.write(out, onto=onto)
    counted = ", ".join(f"{state}: {count:,}" for state, count in labels.counts().items()) or "no verdicts"
    print(f"wrote {out} and {out.with_suffix('.provenance.csv')} (verdicts by state: {counted})")
    if lost:
        print(f"{len(lost):,} products with labels are not in {onto}, the first is {lost[0]!r}")


@verbs.command("import")
def import_(
    desk: Place,
    source: Annotated[Path, typer.Argument(metavar="FILE", help="JSON exported by Label Studio.")],
    format: Annotated[
        Literal["label-studio"], typer.Option("--format", help="label-studio.")
    ] = "label-studio",
    reviewer: Annotated[str, typer.Option(help="Who annotated, where the file does not say.")] = "",
) -> None:
    """Record the annotations of a Label Studio export as verdicts; run again, nothing is recorded twice."""
    from shelfwise.service.desk import Desk
    from shelfwise.service.label_studio import read_tasks

    with Desk.open(desk, new=False) as opened:
        new = read_tasks(opened, source, reviewer=reviewer)
        print(f"recorded {len(new):,} verdicts; {opened.progress().left:,} items are left")


@verbs.command()
def verify(
    desk: Place,
    head: Annotated[
        str, typer.Option(metavar="HASH", help="A hash noted before; it must be in the chain.")
    ] = "",
) -> None:
    """Check the chain of verdicts: exit 2 where a record was changed, taken out or put in between."""
    from shelfwise.service.desk import Desk

    with Desk.open(desk, new=False) as opened:
        faults, records = list(opened.verify()), opened.verdicts()
        agreement = opened.agreement()
    if head and not any(verdict.hash.startswith(head) for verdict in records):
        faults.append(f"no record has the hash {head}: the chain was cut off or begun anew")
    if faults:
        raise DeskError(f"{desk}: the verdicts cannot be trusted:\n" + "\n".join(faults))
    last = records[-1].hash if records else "none"
    print(f"{len(records):,} records, each holds the hash of the one before; the last hash is {last}")
    if agreement.share is not None:
        kappa = "" if agreement.kappa is None else f", Cohen's kappa {agreement.kappa:.2f}"
        items = f"{agreement.items:,} item{'s' if agreement.items != 1 else ''}"
        print(f"{items} had two reviewers, who agree on {agreement.share:.0%}{kappa}")
