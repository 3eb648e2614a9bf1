"""Verbs that score: evaluate, compare.

They parse, call one library function and print.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shelfwise.cli.options import (
    Attributes,
    Cache,
    Device,
    Engine,
    Html,
    Images,
    Jobs,
    Metric,
    Photos,
    Seed,
    Table,
    app,
    check_page,
    machine_of,
)
from shelfwise.errors import UsageError

if TYPE_CHECKING:
    from shelfwise.answers import Answers
    from shelfwise.predictions import Predictions


@app.command()
def evaluate(
    source: Annotated[Path, typer.Argument(metavar="BUNDLE|OUT", help="A bundle, or answers it wrote.")],
    table: Table,
    images: Images = None,
    attributes: Attributes = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Write the report: .json, .parquet, .csv, .txt.")
    ] = None,
    html: Html = None,
    photos: Photos = None,
    by: Annotated[
        Path | None,
        typer.Option("--bundle", help="Of a file of answers: the bundle it is from; TABLE is read as by it."),
    ] = None,
    max_ms: Annotated[
        float | None,
        typer.Option(
            "--max-ms", min=0, metavar="MS", help="Fail where one photo by itself takes the bundle longer."
        ),
    ] = None,
    metric: Metric = "harmonic_f1",
    seed: Seed = 0,
    jobs: Jobs = None,
    device: Device = "auto",
    engine: Engine = "auto",
    cache: Cache = None,
) -> None:
    """Score a bundle or a file of answers on a table with the truth, with intervals.

    Products that the bundle has learnt from are judged by what was said of them out of fold.
    """
    from shelfwise.data.group import near_duplicates
    from shelfwise.evaluate import evaluate as run_evaluate
    from shelfwise.files import cache_directory
    from shelfwise.photo_gain import photo_gain
    from shelfwise.scored import Scored, judgeable
    from shelfwise.speed import milliseconds_each
    from shelfwise.unseen import predict_unseen

    check_page(html)
    if max_ms is not None and not source.is_dir():
        raise UsageError(f"--max-ms is how fast a bundle may be; {source} is a file of answers")
    with machine_of(cache, jobs, device, engine) as machine:
        read = Scored.read(source, table, machine, images=images, attributes=attributes, photos=photos, by=by)
        (scored,) = judgeable([read])
        catalog, bundle, predictions = scored.catalog, scored.bundle, scored.answer(machine)
        groups = near_duplicates(catalog, cache=cache_directory(cache), jobs=jobs, progress=machine.progress)
        report = run_evaluate(predictions, catalog, groups=groups, metric=metric, seed=seed or 0)
        report = report.with_notes(*scored.notes)
        sure: Predictions | Answers = predictions
        gain = ""
        if html is not None and bundle is not None and scored.learnt is not None:
            sure = predict_unseen(bundle, catalog, scored.learnt, machine)
        if bundle is not None and catalog.photos:
            voted, first = (
                bundle.answer(each, every_cell=True, machine=machine)
                for each in (catalog, catalog.first_photos())
            )
            gain = photo_gain(first, voted, catalog, groups=groups, metric=metric)
        took = (
            None if bundle is None or max_ms is None else milliseconds_each(bundle, catalog, machine=machine)
        )
    print(report)
    if gain:
        print(gain)
    if out is not None:
        report.write(out)
    if html is not None:
        from shelfwise.amounts import Aim
        from shelfwise.pages import evaluation_page, measured_on, write_page

        aim = Aim() if bundle is None else bundle.run.decide.aim
        measured = measured_on(sure, catalog, groups, aim)
        write_page(html, evaluation_page(report, measured, source=table.name))
        print(f"wrote {html}")
    if took is not None and max_ms is not None:
        late = took > max_ms
        said = f"one photo by itself takes {took:.1f} ms, the median; the limit is {max_ms:g} ms"
        print(f"error: {said}" if late else said, file=sys.stderr if late else sys.stdout)
        raise typer.Exit(int(late))


@app.command()
def compare(
    sources: Annotated[
        list[Path], typer.Argument(metavar="A B ... TABLE", help="Bundles or answers, then the table.")
    ],
    images: Images = None,
    attributes: Attributes = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Write the comparison: .json, .csv, .parquet.")
    ] = None,
    html: Html = None,
    metric: Metric = "harmonic_f1",
    seed: Seed = 0,
    jobs: Jobs = None,
    device: Device = "auto",
    engine: Engine = "auto",
    cache: Cache = None,
) -> None:
    """Say whether a difference is real: paired, with intervals; all against the first.

    Products that a bundle has learnt from are judged by what was said of them out of fold.
    """
    from shelfwise.data.group import near_duplicates
    from shelfwise.evaluate import compare as run_compare
    from shelfwise.files import cache_directory
    from shelfwise.scored import Scored, judgeable

    check_page(html)
    if len(sources) < 3:
        raise UsageError("compare needs two or more bundles or answer files, then the table with the truth")
    *entries, table = sources
    with machine_of(cache, jobs, device, engine) as machine:
        read = [Scored.read(entry, table, machine, images=images, attributes=attributes) for entry in entries]
        scored = judgeable(read)
        catalog = scored[0].catalog
        groups = near_duplicates(catalog, cache=cache_directory(cache), jobs=jobs, progress=machine.progress)
        named = [(each.name, each.answer(machine)) for each in scored]
        comparison = run_compare(named, catalog, groups=groups, metric=metric, seed=seed or 0)
    notes = (note for each in scored for note in each.notes)
    comparison = replace(comparison, notes=(*comparison.notes, *notes))
    print(comparison)
    if out is not None:
        comparison.write(out)
    if html is not None:
        from shelfwise.pages import compare_page, write_page

        write_page(html, compare_page(comparison, source=table.name))
        print(f"wrote {html}")
