"""Verbs that learn: demo, init, check, fit.

They parse, call one library function and print.
"""

from pathlib import Path
from typing import Annotated

import typer

from shelfwise.cli.options import (
    Attributes,
    Cache,
    Category,
    Choice,
    Device,
    Engine,
    Html,
    Id,
    Ignore,
    Image,
    Images,
    Jobs,
    Number,
    Out,
    Runs,
    Seed,
    Table,
    Text,
    app,
    check_page,
    columns_of,
    few,
    machine_of,
    say,
    writable,
)

#: Findings of one kind that ``check`` prints.
SHOWN = 20


@app.command()
def demo(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    products: Annotated[int, typer.Option(min=200, help="How many products to draw.")] = 1500,
    seed: Seed = 0,
    jobs: Jobs = None,
    cache: Cache = None,
) -> None:
    """Render a small catalogue, then do everything on it: init, fit, evaluate, predict."""
    from shelfwise.demo import demo as run_demo

    with machine_of(cache or directory / "cache", jobs, "auto", "auto") as machine:
        run_demo(directory, products=products, seed=seed or 0, machine=machine, say=print)


@app.command()
def init(
    table: Table,
    out: Out,
    images: Images = None,
    attributes: Attributes = None,
    id: Id = "",
    category: Category = "",
    image: Image = "",
    text: Text = "",
    number: Number = "",
    choice: Choice = "",
    ignore: Ignore = "",
) -> None:
    """Settle the columns: writes taxonomy.json and a shelfwise.toml you then own."""
    from shelfwise.catalog import Catalog
    from shelfwise.start import init as run_init

    columns = columns_of(id, category, image, text, number, ignore, choice)
    catalog = Catalog.read(table, images=images, attributes=attributes, columns=columns)
    written = run_init(catalog, table, out, images=images, attributes=attributes, columns=columns)
    say(catalog.findings)
    print(catalog.describe_roles())
    print(f"wrote {' and '.join(str(path) for path in written)}; next: shelfwise fit {written[0]} -o BUNDLE")


@app.command()
def check(
    run_file: Annotated[Path, typer.Argument(metavar="RUN.toml|TABLE", help="Run file, or a table.")],
    images: Images = None,
    attributes: Attributes = None,
    bundle: Annotated[Path | None, typer.Option(help="Check a table against this bundle's taxonomy.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", callback=writable, help="Write the findings: .csv, .json or .parquet."),
    ] = None,
    html: Html = None,
    id: Id = "",
    category: Category = "",
    image: Image = "",
    text: Text = "",
    number: Number = "",
    choice: Choice = "",
    ignore: Ignore = "",
    jobs: Jobs = None,
    cache: Cache = None,
) -> None:
    """Check config, taxonomy and every image: all problems at once; exit code 1 where there are errors."""
    from shelfwise.start import check as run_check

    check_page(html)
    columns = columns_of(id, category, image, text, number, ignore, choice)
    with machine_of(cache, jobs, "auto", "auto") as machine:
        findings, description = run_check(
            run_file, images=images, attributes=attributes, bundle=bundle, columns=columns, machine=machine
        )
    print(description)
    shown = few(findings, SHOWN)
    for finding in shown:
        print(finding)
    counted = ", ".join(f"{count} {kind}" for kind, count in findings.counts().items())
    left = f"; {len(shown)} of them are above, -o FILE.csv has all" if len(shown) < len(findings) else ""
    print(f"{len(findings)} findings" + (f": {counted}{left}" if counted else ""))
    if out is not None:
        findings.write(out)
    if html is not None:
        from shelfwise.pages import data_page, write_page
        from shelfwise.start import catalog_of

        catalog = catalog_of(run_file, images=images, attributes=attributes, bundle=bundle, columns=columns)
        write_page(html, data_page(description, catalog, findings))
        print(f"wrote {html}")
    if findings.of(severity="error"):
        raise typer.Exit(1)


@app.command()
def fit(
    source: Annotated[
        Path, typer.Argument(metavar="TABLE|RUN.toml", help="A table of products, or a run file.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[key=value]...", help="Override run options.")
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", callback=writable, help="The bundle to write.")] = Path(
        "bundle"
    ),
    html: Html = None,
    images: Images = None,
    attributes: Attributes = None,
    id: Id = "",
    category: Category = "",
    image: Image = "",
    text: Text = "",
    number: Number = "",
    choice: Choice = "",
    ignore: Ignore = "",
    seed: Seed = None,
    jobs: Jobs = None,
    device: Device = "auto",
    engine: Engine = "auto",
    cache: Cache = None,
    runs: Runs = None,
) -> None:
    """Learn from a table; writes a bundle and prints what to expect on unseen products."""
    from shelfwise.manifest import check_target
    from shelfwise.start import fit_run, run_of

    check_target(out)
    check_page(html)
    columns = columns_of(id, category, image, text, number, ignore, choice)
    options = run_of(
        source, overrides or [], images=images, attributes=attributes, columns=columns, seed=seed
    )
    with machine_of(cache, jobs, device, engine, runs) as machine:
        bundle, catalog = fit_run(options, machine=machine)
        bundle.save(out)
    say(catalog.findings)
    print(catalog.describe_roles())
    print(bundle.report)
    if html is not None:
        from shelfwise.pages import bundle_page, write_page

        write_page(html, bundle_page(bundle))
        print(f"wrote {html}")
    print(f"wrote {out}; next: shelfwise predict {out} TABLE -o OUT.csv")
