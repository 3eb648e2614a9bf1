"""The verb drift: what is different about a table since a bundle was fitted.

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
    Html,
    Id,
    Image,
    Images,
    Jobs,
    Table,
    app,
    check_page,
    columns_of,
    machine_of,
    say,
    writable,
)

#: Exit code where drift is found; 0 where none is.
DRIFTED = 3


@app.command()
def drift(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE")],
    table: Table,
    images: Images = None,
    by: Annotated[
        str, typer.Option("--by", metavar="COLUMN[,COLUMN]", help="Also cut the table by these columns.")
    ] = "",
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="TABLE", help="Of --by: the table learnt from, so that each slice has its own past."
        ),
    ] = None,
    rate: Annotated[
        float, typer.Option(help="How often anything may be reported where nothing changed.")
    ] = 0.01,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", callback=writable, help="Write every comparison: .json, .csv, .parquet."),
    ] = None,
    html: Html = None,
    id: Id = "",
    category: Category = "",
    image: Image = "",
    jobs: Jobs = None,
    device: Device = "auto",
    engine: Engine = "auto",
    cache: Cache = None,
) -> None:
    """Say what changed since the bundle was fitted, without labels; exit code 3 where something did."""
    from shelfwise.bundle import load
    from shelfwise.drift.compared import drift as compare
    from shelfwise.drift.report import check_ending

    check_page(html)
    if out is not None:
        check_ending(out)
    columns = columns_of(id, category, image, "", "", "")
    cut = [name.strip() for name in by.split(",") if name.strip()]
    loaded = load(bundle)
    catalog = loaded.read(table, images=images, columns=columns)
    learnt = None if reference is None else loaded.read(reference, images=images, columns=columns)
    with machine_of(cache, jobs, device, engine) as machine:
        found = compare(loaded, catalog, by=cut, reference=learnt, rate=rate, machine=machine)
    say(catalog.findings)
    print(found)
    if out is not None:
        found.write(out)
        print(f"wrote {out}")
    if html is not None:
        from shelfwise.pages import drift_page, write_page

        write_page(html, drift_page(found, source=table.name))
        print(f"wrote {html}")
    raise typer.Exit(DRIFTED if found.found else 0)
