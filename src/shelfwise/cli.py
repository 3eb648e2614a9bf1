"""Verbs: parse, call one library function, print.

It holds no logic of its own. Nothing heavy is imported before a verb runs, so ``--help`` is quick.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from shelfwise.errors import ShelfwiseError, UsageError

if TYPE_CHECKING:
    from shelfwise.bundle import Bundle
    from shelfwise.catalog import Catalog
    from shelfwise.findings import Findings
    from shelfwise.predictions import Answers, Machine, Predictions
    from shelfwise.roles import Columns

app = typer.Typer(
    name="shelfwise",
    help="Fill in a product catalogue from its photos and text, and say how sure.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Table = Annotated[Path, typer.Argument(metavar="TABLE", help="CSV, TSV, Parquet or xlsx of products.")]
Out = Annotated[Path, typer.Option("-o", "--out", help="Where to write.")]
Images = Annotated[Path | None, typer.Option(help="Image folder; by default the table's own.")]
Attributes = Annotated[
    Path | None, typer.Option(help="Each category's attributes, for columns attr_1, attr_2 ...")
]
Id = Annotated[str, typer.Option("--id", help="Id column.")]
Category = Annotated[str, typer.Option("--category", help="Category column.")]
Image = Annotated[str, typer.Option("--image", help="Image column.")]
Text = Annotated[str, typer.Option("--text", metavar="COLUMN[,COLUMN]", help="Columns of free text.")]
Number = Annotated[str, typer.Option("--number", metavar="COLUMN[,COLUMN]", help="Columns of numbers.")]
Ignore = Annotated[str, typer.Option("--ignore", metavar="COLUMN[,COLUMN]", help="Columns to leave out.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of folds and training.")]
Jobs = Annotated[
    int | None, typer.Option(min=1, help="Threads; by default one a core. Never changes an answer.")
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Engine = Annotated[str, typer.Option(help="auto, openvino, torch, torch-bf16 or cuda.")]
Cache = Annotated[
    Path | None, typer.Option(help="Cache folder; by default SHELFWISE_CACHE or ~/.cache/shelfwise.")
]
Metric = Annotated[str, typer.Option(help="The metric that leads; see: shelfwise list metrics.")]

#: Exit code after Ctrl-C, as shells have it; typer returns it instead of raising.
STOPPED = 130


def run() -> NoReturn:
    """Run the command line; the process edge, where every error becomes one readable message."""
    # Threads that wait without spinning: on a busy machine small products are several times faster.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # The click that typer uses, its own copy or the installed one.
    click_error: type[Any] = typer.BadParameter.mro()[2]
    try:
        code = app(standalone_mode=False)
        if code == STOPPED:
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except click_error as error:
        error.show()
        sys.exit(error.exit_code)
    except ShelfwiseError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        print("stopped; nothing is left half-written, run it again to go on", file=sys.stderr)
        sys.exit(STOPPED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


@contextlib.contextmanager
def _machine(cache: Path | None, jobs: int | None, device: str, engine: str) -> Iterator["Machine"]:
    """A machine that shows its progress: a bar on a terminal, plain lines elsewhere."""
    from shelfwise.predictions import Machine
    from shelfwise.progress import shown

    with shown() as progress:
        yield Machine(cache, jobs, device, engine, progress)


def _columns(id: str, category: str, image: str, text: str, number: str, ignore: str) -> "Columns":
    from shelfwise.roles import Columns

    def names(cell: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in cell.split(",") if part.strip())

    return Columns(id or None, category or None, image or None, names(text), names(number), (), names(ignore))


def _say(findings: "Findings", most: int = 12) -> None:
    """Print findings to stderr, the worst first, the rest counted."""
    for finding in list(findings)[:most]:
        print(finding, file=sys.stderr)
    if len(findings) > most:
        counted = ", ".join(f"{count} {kind}" for kind, count in findings.counts().items())
        print(f"... {len(findings)} findings in all: {counted}. See: shelfwise check", file=sys.stderr)


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

    with _machine(cache or directory / "cache", jobs, "auto", "auto") as machine:
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
    ignore: Ignore = "",
) -> None:
    """Settle the columns: writes taxonomy.json and a shelfwise.toml you then own."""
    from shelfwise.catalog import Catalog
    from shelfwise.start import init as run_init

    columns = _columns(id, category, image, text, number, ignore)
    catalog = Catalog.read(table, images=images, attributes=attributes, columns=columns)
    written = run_init(catalog, table, out, images=images, attributes=attributes, columns=columns)
    _say(catalog.findings)
    print(catalog.describe_roles())
    print(f"wrote {' and '.join(str(path) for path in written)}; next: shelfwise fit {written[0]} -o BUNDLE")


@app.command()
def check(
    run_file: Annotated[Path, typer.Argument(metavar="RUN.toml|TABLE", help="Run file, or a table.")],
    images: Images = None,
    attributes: Attributes = None,
    bundle: Annotated[Path | None, typer.Option(help="Check a table against this bundle's taxonomy.")] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Write the findings: .csv, .json or .parquet.")
    ] = None,
    id: Id = "",
    category: Category = "",
    image: Image = "",
    text: Text = "",
    number: Number = "",
    ignore: Ignore = "",
    jobs: Jobs = None,
    cache: Cache = None,
) -> None:
    """Check config, taxonomy and every image: all problems at once; exit code 1 where there are errors."""
    from shelfwise.start import check as run_check

    columns = _columns(id, category, image, text, number, ignore)
    with _machine(cache, jobs, "auto", "auto") as machine:
        findings, description = run_check(
            run_file, images=images, attributes=attributes, bundle=bundle, columns=columns, machine=machine
        )
    print(description)
    for finding in findings:
        print(finding)
    counted = ", ".join(f"{count} {kind}" for kind, count in findings.counts().items())
    print(f"{len(findings)} findings" + (f": {counted}" if counted else ""))
    if out is not None:
        findings.write(out)
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
    out: Annotated[Path, typer.Option("-o", "--out", help="The bundle to write.")] = Path("bundle"),
    images: Images = None,
    attributes: Attributes = None,
    id: Id = "",
    category: Category = "",
    image: Image = "",
    text: Text = "",
    number: Number = "",
    ignore: Ignore = "",
    seed: Seed = None,
    jobs: Jobs = None,
    device: Device = "auto",
    engine: Engine = "auto",
    cache: Cache = None,
) -> None:
    """Learn from a table; writes a bundle and prints what to expect on unseen products."""
    from shelfwise.bundle import check_target
    from shelfwise.start import fit_run, run_of

    check_target(out)
    columns = _columns(id, category, image, text, number, ignore)
    options = run_of(
        source, overrides or [], images=images, attributes=attributes, columns=columns, seed=seed
    )
    with _machine(cache, jobs, device, engine) as machine:
        bundle, catalog = fit_run(options, machine=machine)
        bundle.save(out)
    _say(catalog.findings)
    print(catalog.describe_roles())
    print(bundle.report)
    print(f"wrote {out}; next: shelfwise predict {out} TABLE -o OUT.csv")


@app.command()
def predict(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE")],
    table: Annotated[Path, typer.Argument(metavar="TABLE|PHOTO", help="A table of products, or one photo.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Ends in .csv or .parquet.")] = None,
    images: Images = None,
    category: Category = "",
    id: Id = "",
    image: Image = "",
    filler: Annotated[str | None, typer.Option(help="What unused and unanswered cells hold.")] = None,
    keep_stated: Annotated[
        bool, typer.Option("--keep-stated", help="Copy stated values, answer empty cells.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Add state, probability and runner-up columns.")
    ] = False,
    jobs: Jobs = None,
    device: Device = "auto",
    engine: Engine = "auto",
    cache: Cache = None,
) -> None:
    """Answer every product of a table, or one photo (then --category is its category)."""
    from shelfwise.bundle import load
    from shelfwise.roles import IMAGE_ENDINGS

    loaded = load(bundle)
    with _machine(cache, jobs, device, engine) as machine:
        if table.suffix.lower() in IMAGE_ENDINGS:
            one = loaded.answer_one(table, category=category or None, id=id or None, machine=machine)
            print(json.dumps(one, ensure_ascii=False, indent=1))
            raise typer.Exit(0 if one["error"] is None else 1)
        if out is None:
            raise UsageError("predicting a table needs -o OUT.csv or -o OUT.parquet")
        if out.suffix not in (".csv", ".parquet"):
            raise UsageError(
                f"answers are written to .csv or .parquet, not {out.suffix or 'no ending'!r}: {out}"
            )
        catalog = loaded.read(table, images=images, columns=_columns(id, category, image, "", "", ""))
        answers = loaded.answer(catalog, keep_stated=keep_stated, machine=machine)
        answers.write(out, filler=filler, explain=explain)
    _say(catalog.findings)
    for note in answers.notes:
        print(f"note: {note}", file=sys.stderr)
    print(
        f"wrote {out}: {len(answers):,} rows, {len(answers.errors):,} with errors, "
        f"{len(answers.guessed):,} with a predicted category; see {out.with_suffix('.errors.csv').name}"
    )


@app.command()
def evaluate(
    source: Annotated[Path, typer.Argument(metavar="BUNDLE|OUT", help="A bundle, or answers it wrote.")],
    table: Table,
    images: Images = None,
    attributes: Attributes = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Write the report: .json, .parquet, .csv, .txt.")
    ] = None,
    metric: Metric = "harmonic_f1",
    seed: Seed = 0,
    jobs: Jobs = None,
    device: Device = "auto",
    engine: Engine = "auto",
    cache: Cache = None,
) -> None:
    """Score a bundle or a file of answers on a table with the truth, with intervals."""
    from shelfwise.data.group import near_duplicates
    from shelfwise.evaluate import evaluate as run_evaluate
    from shelfwise.files import cache_directory

    with _machine(cache, jobs, device, engine) as machine:
        catalog, predictions = _scored(source, table, images, attributes, machine)
        groups = near_duplicates(catalog, cache=cache_directory(cache), jobs=jobs, progress=machine.progress)
        report = run_evaluate(predictions, catalog, groups=groups, metric=metric, seed=seed or 0)
    print(report)
    if out is not None:
        report.write(out)


def _scored(
    source: Path, table: Path, images: Path | None, attributes: Path | None, machine: "Machine"
) -> "tuple[Catalog, Predictions | Answers]":
    """Read the truth, and answer it with a bundle or read answers from a file."""
    from shelfwise.bundle import load
    from shelfwise.catalog import Catalog
    from shelfwise.layouts import read_answers

    if source.is_dir():
        bundle: Bundle = load(source)
        catalog = bundle.read(table, images=images)
        return catalog, bundle.predict(catalog, machine)
    catalog = Catalog.read(table, images=images, attributes=attributes)
    return catalog, read_answers(source, catalog)


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
    metric: Metric = "harmonic_f1",
    seed: Seed = 0,
    jobs: Jobs = None,
    device: Device = "auto",
    engine: Engine = "auto",
    cache: Cache = None,
) -> None:
    """Say whether a difference is real: paired, with intervals; all against the first."""
    from shelfwise.data.group import near_duplicates
    from shelfwise.evaluate import compare as run_compare
    from shelfwise.files import cache_directory

    if len(sources) < 3:
        raise UsageError("compare needs two or more bundles or answer files, then the table with the truth")
    *entries, table = sources
    with _machine(cache, jobs, device, engine) as machine:
        scored = [(str(entry), *_scored(entry, table, images, attributes, machine)) for entry in entries]
        catalog = scored[0][1]
        groups = near_duplicates(catalog, cache=cache_directory(cache), jobs=jobs, progress=machine.progress)
        named = [(name, predictions) for name, _, predictions in scored]
        comparison = run_compare(named, catalog, groups=groups, metric=metric, seed=seed or 0)
    print(comparison)
    if out is not None:
        comparison.write(out)


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
    ignore: Ignore = "",
    jobs: Jobs = None,
    cache: Cache = None,
) -> None:
    """Find duplicates, conflicting labels and bad images; writes findings, changes nothing."""
    from shelfwise.catalog import Catalog
    from shelfwise.data.clean import clean as run_clean
    from shelfwise.files import cache_directory

    columns = _columns(id, category, image, text, number, ignore)
    catalog = Catalog.read(table, images=images, attributes=attributes, columns=columns)
    with _machine(cache, jobs, "auto", "auto") as machine:
        findings = run_clean(catalog, cache=cache_directory(cache), jobs=jobs, progress=machine.progress)
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

    catalog = Catalog.read(table, images=images, columns=_columns(id, "", image, "", "", ""))
    spec = REGISTRIES["backbone"].spec(backbone)
    with _machine(cache, jobs, device, engine) as machine:
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
        str, typer.Argument(help="backbones, heads, losses, metrics or recipes; all if left out.")
    ] = "",
) -> None:
    """List what is registered, with its options."""
    from shelfwise.start import registered

    print(registered(kind), end="")


@app.command()
def show(bundle: Annotated[Path, typer.Argument(metavar="BUNDLE")]) -> None:
    """Show what a bundle is: its recipe, taxonomy and expected score."""
    from shelfwise.bundle import load, run_table
    from shelfwise.config import to_toml

    loaded = load(bundle)
    for key, value in loaded.summary.items():
        print(f"{key}: {_plain(value)}")
    print()
    print(to_toml(run_table(loaded.run)))
    print(loaded.report)


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


if __name__ == "__main__":
    run()
