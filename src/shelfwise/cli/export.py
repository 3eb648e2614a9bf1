"""The verb export: a bundle's networks for other engines than torch.

It parses, calls one library function and prints.
"""

from pathlib import Path
from typing import Annotated

import typer

from shelfwise.cli.options import Cache, Images, Jobs, app, machine_of


@app.command()
def export(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="It gets a folder export.")],
    to: Annotated[str, typer.Option("--to", help="onnx, openvino or openvino-int8.")],
    on: Annotated[
        Path | None,
        typer.Option("--on", metavar="TABLE", help="Products to compare on; by default those learnt from."),
    ] = None,
    images: Images = None,
    rows: Annotated[int, typer.Option(min=1, help="Products that are compared, at most.")] = 2000,
    pictures: Annotated[
        int, typer.Option(min=1, help="Photos of other products that int8 is measured on, at most.")
    ] = 300,
    largest: Annotated[
        float | None, typer.Option("--max-difference", help="Of one value's probability.")
    ] = None,
    mean: Annotated[
        float | None, typer.Option("--max-mean", help="Mean difference of the probabilities.")
    ] = None,
    unequal: Annotated[
        float | None, typer.Option("--max-unequal", help="Share of cells with another answer.")
    ] = None,
    loss: Annotated[
        float | None, typer.Option("--max-loss", help="Points of harmonic F1; int8 may lose 0.3.")
    ] = None,
    number: Annotated[
        float | None, typer.Option("--max-number", help="Mean relative difference of a Number.")
    ] = None,
    jobs: Jobs = None,
    cache: Cache = None,
) -> None:
    """Convert what a bundle runs in torch; written only if its answers agree, and then used with --engine."""
    from shelfwise.export import ExportOptions, export_bundle, limits_of

    given = {"largest": largest, "mean": mean, "unequal": unequal, "loss": loss, "number": number}
    limits = limits_of(to, {name: value for name, value in given.items() if value is not None})
    options = ExportOptions(rows=rows, pictures=pictures, limits=limits)
    with machine_of(cache, jobs, "cpu", "auto") as machine:
        done = export_bundle(bundle, to, table=on, images=images, options=options, machine=machine)
    print(done)
    print(f"wrote {bundle / 'export' / to}")
