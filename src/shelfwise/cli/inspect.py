"""Verbs that look at data and bundles: clean, embed, list, show.

They parse, call one library function and print.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shelfwise.cli.options import (
    Attributes,
    Cache,
    Category,
    Choice,
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
)

if TYPE_CHECKING:
    from shelfwise.bundle import Bundle


@app.command()
def clean(
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
    suspects: Annotated[
        bool, typer.Option("--suspects", help="Also list doubtful labels and claims; needs --bundle.")
    ] = False,
    bundle: Annotated[
        Path | None, typer.Option(help="Judges the labels, out of fold where it learnt from them.")
    ] = None,
    jobs: Jobs = None,
    cache: Cache = None,
) -> None:
    """Find duplicates, conflicting labels and bad images; writes findings, changes nothing."""
    from shelfwise.auditing import clean_table

    columns = columns_of(id, category, image, text, number, ignore, choice)
    with machine_of(cache, jobs, "auto", "auto") as machine:
        findings = clean_table(
            table,
            images=images,
            attributes=attributes,
            columns=columns,
            bundle=bundle,
            suspects=suspects,
            machine=machine,
        )
    findings.write(out)
    counted = ", ".join(f"{count} {kind}" for kind, count in findings.counts().items())
    print(f"wrote {out}: {len(findings)} findings" + (f": {counted}" if counted else ""))


@app.command()
def embed(
    table: Table,
    images: Images = None,
    backbone: Annotated[str, typer.Option(help="See: shelfwise list backbones.")] = "lite0",
    id: Id = "",
    image: Image = "",
    jobs: Jobs = None,
    device: Device = "auto",
    engine: Engine = "auto",
    cache: Cache = None,
) -> None:
    """Fill the embedding cache."""
    from shelfwise.catalog import Catalog
    from shelfwise.files import cache_directory
    from shelfwise.models.embed import embed as run_embed
    from shelfwise.registry import REGISTRIES

    catalog = Catalog.read(table, images=images, columns=columns_of(id, "", image, "", "", ""))
    spec = REGISTRIES["backbone"].spec(backbone)
    with machine_of(cache, jobs, device, engine) as machine:
        found = run_embed(
            catalog,
            spec,
            cache=cache_directory(cache),
            engine=engine,
            device=device,
            jobs=jobs,
            progress=machine.progress,
        )
    known = len(found) - len(found.errors) - found.computed
    print(
        f"{found.computed:,} photos embedded, {known:,} known before, {len(found.errors):,} with errors; {found.record}"
    )


@app.command("list")
def list_(
    kind: Annotated[
        str,
        typer.Argument(
            help="backbones, heads, losses, number_losses, text_encoders, metrics, recipes; all if left out."
        ),
    ] = "",
) -> None:
    """List what is registered, with its options."""
    from shelfwise.start import registered

    print(registered(kind), end="")


@app.command()
def show(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE")],
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Measure size, memory and speed on this machine; kept in the bundle and on its card.",
        ),
    ] = False,
    jobs: Jobs = None,
    device: Device = "auto",
    engine: Engine = "auto",
    cache: Cache = None,
) -> None:
    """Show what a bundle is: its recipe, taxonomy and expected score; the members and weights of an ensemble."""
    from shelfwise.blending import members_text
    from shelfwise.bundle import load, run_table
    from shelfwise.config import to_toml

    loaded = load(bundle)
    if measure:
        loaded = _measured(bundle, loaded, jobs, device, engine, cache)
    for key, value in loaded.summary.items():
        print(f"{key}: {_plain(value)}")
    speed = loaded.speed.lines() if loaded.speed is not None else [("speed", "not measured; see --measure")]
    for what, much in speed:
        print(f"{what}: {much}")
    for name in loaded.report.numbers:
        print(_number_text(loaded, name))
    print()
    members = members_text(loaded)
    if members:
        print(members)
    print(to_toml(run_table(loaded.run)))
    print(loaded.report)


def _measured(
    path: Path, bundle: "Bundle", jobs: int | None, device: str, engine: str, cache: Path | None
) -> "Bundle":
    """Measure a bundle, write down what was measured, and return the bundle with it."""
    from dataclasses import replace

    from shelfwise.speed import measure, write_speed

    with machine_of(cache, jobs, device, engine) as machine:
        speed = measure(bundle, path, machine=machine)
    write_speed(path, bundle, speed)
    return replace(bundle, speed=speed)


def _number_text(bundle: "Bundle", name: str) -> str:
    """What is to be expected of a Number, in one line."""
    unit = bundle.taxonomy.number(name).unit
    smape, mae, held = (bundle.report.number_line(each, name).score for each in ("smape", "mae", "coverage"))
    rule = bundle.rule.amounts.get(name) if bundle.rule is not None else None
    promised = f" of {rule.coverage:.0%}" if rule is not None else ""
    wide = f", unsure beyond {rule.widest:g}" if rule is not None and rule.widest is not None else ""
    return f"{name}: SMAPE {smape:.2f}, MAE {mae:,.2f}{unit and ' '}{unit}; ranges{promised} hold {held:.1%}{wide}"


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list):
        return (
            " to ".join(map(_plain, value))
            if all(isinstance(v, float) for v in value)
            else ", ".join(map(str, value)) or "none"
        )
    return str(value)
