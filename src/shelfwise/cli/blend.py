"""Verb that combines: blend.

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
    Out,
    Seed,
    app,
    check_page,
    columns_of,
    machine_of,
    say,
)


@app.command()
def blend(
    bundles: Annotated[list[Path], typer.Argument(metavar="A B ...", help="Bundles of one taxonomy.")],
    on: Annotated[Path, typer.Option("--on", metavar="TABLE", help="Products to weigh them on.")],
    out: Out,
    images: Images = None,
    html: Html = None,
    metric: Annotated[
        str, typer.Option(help="What answers and weights are best for; by default the first bundle's.")
    ] = "",
    id: Id = "",
    category: Category = "",
    image: Image = "",
    seed: Seed = None,
    jobs: Jobs = None,
    device: Device = "auto",
    engine: Engine = "auto",
    cache: Cache = None,
) -> None:
    """Search the weights of several bundles on a table; writes a bundle of bundles."""
    from shelfwise.blending import blend_bundles, members_text
    from shelfwise.manifest import check_target

    check_target(out)
    check_page(html)
    columns = columns_of(id, category, image, "", "", "")
    with machine_of(cache, jobs, device, engine) as machine:
        blended, catalog = blend_bundles(
            bundles,
            on,
            images=images,
            columns=columns,
            metric=metric or None,
            seed=seed or 0,
            machine=machine,
        )
        blended.save(out)
    say(catalog.findings)
    print(members_text(blended))
    print(blended.report)
    if html is not None:
        from shelfwise.pages import bundle_page, write_page

        write_page(html, bundle_page(blended))
        print(f"wrote {html}")
    print(f"wrote {out}; next: shelfwise predict {out} TABLE -o OUT.csv")
