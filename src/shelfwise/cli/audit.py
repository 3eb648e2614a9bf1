"""The verb audit: where what is stated and the picture disagree.

It parses, calls one library function and prints.
"""

from pathlib import Path
from typing import Annotated

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
    Photos,
    Table,
    Text,
    app,
    columns_of,
    machine_of,
    say,
)
from shelfwise.errors import UsageError


@app.command()
def audit(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE")],
    table: Table,
    out: Out,
    images: Images = None,
    photos: Photos = None,
    weights: Annotated[
        str, typer.Option(metavar="ATTRIBUTE=NUMBER[,...]", help="What an error in an attribute weighs.")
    ] = "",
    evidence: Annotated[
        int, typer.Option(min=0, help="Name this many confirmed look-alikes beside each value.")
    ] = 0,
    html: Annotated[Path | None, typer.Option(help="Also write a page with pictures: .html.")] = None,
    explain: Annotated[
        int,
        typer.Option("--explain-image", min=0, help="On the page: heat maps beside this many mismatches."),
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
    """Judge every stated value, in cells and in words, by the picture; the most suspicious first."""
    from shelfwise.auditing import audit_table, check_paths, summary, weights_of, write_audit_page
    from shelfwise.bundle import load

    check_paths(out, html)
    if explain and html is None:
        raise UsageError("--explain-image puts heat maps on the page: name it with --html FILE")
    loaded, given = load(bundle), weights_of(weights)
    columns = columns_of(id, category, image, text, number, ignore)
    catalog = loaded.read(table, images=images, columns=columns, photos=photos)
    with machine_of(cache, jobs, device, engine) as machine:
        found = audit_table(loaded, catalog, weights=given, look_alikes=evidence, machine=machine)
        found.write(out)
        if html is not None:
            write_audit_page(html, found, catalog, loaded, out.name, explain, machine)
    say(catalog.findings)
    for line in summary(found, loaded):
        print(line)
    print(f"wrote {out}" + (f" and {html}" if html is not None else ""))
