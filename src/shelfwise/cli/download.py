"""The verb that fetches photos: download.

It parses, calls one library function and prints.
"""

from pathlib import Path
from typing import Annotated

import typer

from shelfwise.cli.options import Id, Table, app


@app.command()
def download(
    table: Table,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="The folder of the photos; gets manifest.csv too.")
    ],
    image: Annotated[
        str, typer.Option("--image", metavar="COLUMN[,COLUMN]", help="Columns of photo URLs; else inferred.")
    ] = "",
    id: Id = "",
    manifest: Annotated[
        Path | None, typer.Option(help="Also write the manifest here: .csv or .parquet.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=512, help="Requests at once.")] = 32,
    per_host: Annotated[int, typer.Option(min=1, max=512, help="Requests at once to one host.")] = 8,
    attempts: Annotated[int, typer.Option(min=1, max=100, help="Attempts for one photo.")] = 5,
    max_bytes: Annotated[int, typer.Option(min=1, max=200_000_000, help="Largest photo taken.")] = 20_000_000,
    idle: Annotated[
        float, typer.Option(min=0.01, max=86_400, help="Seconds without a byte that end an attempt.")
    ] = 15.0,
    total: Annotated[float, typer.Option(min=0.01, max=86_400, help="Seconds for one attempt.")] = 120.0,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Connect to private and loopback addresses too.")
    ] = False,
    allow_downgrade: Annotated[
        bool, typer.Option("--allow-downgrade", help="Follow redirects from https to http.")
    ] = False,
    allow_local: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Read file: addresses inside this folder.")
    ] = None,
    allow_store: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PREFIX", help="Read store addresses that begin so, as s3://photos/. Repeatable."
        ),
    ] = None,
) -> None:
    """Fetch the photos that a table names by URL; run again, it goes on, or tries again what failed."""
    from shelfwise.data.download import download as fetch
    from shelfwise.data.terms import DownloadOptions
    from shelfwise.progress import shown
    from shelfwise.roles import Columns

    options = DownloadOptions(
        workers=workers,
        per_host=per_host,
        attempts=attempts,
        max_bytes=max_bytes,
        idle=idle,
        total=total,
        allow_private=allow_private,
        allow_downgrade=allow_downgrade,
        allow_local=allow_local,
        allow_stores=tuple(allow_store or ()),
    )
    photos = tuple(part.strip() for part in image.split(",") if part.strip())
    with shown() as progress:
        found = fetch(
            table,
            out,
            photos=photos,
            columns=Columns(id=id or None),
            options=options,
            manifest=manifest,
            progress=progress,
        )
    print(found)
    print(f"wrote {out / 'manifest.csv'}; next, with the same table: --images {out}")
