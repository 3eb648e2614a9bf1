"""Options: the flags that verbs share, the app they register on, and what they print alike.

It knows no verb. Nothing heavy is imported here, so ``--help`` is quick.
"""

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shelfwise.errors import UsageError

if TYPE_CHECKING:
    from shelfwise.findings import Finding, Findings
    from shelfwise.predictions import Machine
    from shelfwise.roles import Columns

app = typer.Typer(
    name="shelfwise",
    help="Fill in a product catalogue from its photos and text, and say how sure.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"shelfwise {version('shelfwise')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Fill in a product catalogue from its photos and text, and say how sure."""


def writable(out: Path | None) -> Path | None:
    """Refuse a place where nothing can be written before anything is computed; what is there stays as it is."""
    if out is None:
        return None
    folder = Path(os.path.abspath(out)).parent
    while not os.path.lexists(folder):
        folder = folder.parent
    if not os.path.isdir(folder):
        raise UsageError(f"{out} cannot be written: {folder} is no folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(
            f"{out} cannot be written: nothing may be written in {folder}. Name another place, or mend its permissions"
        )
    return out


Table = Annotated[Path, typer.Argument(metavar="TABLE", help="CSV, TSV, Parquet or xlsx of products.")]
Out = Annotated[Path, typer.Option("-o", "--out", callback=writable, help="Where to write.")]
Images = Annotated[Path | None, typer.Option(help="Image folder; by default the table's own.")]
Attributes = Annotated[
    Path | None, typer.Option(help="Each category's attributes, for columns attr_1, attr_2 ...")
]
Photos = Annotated[
    Path | None, typer.Option(help="All photos of products that have several: a table id, image[, role].")
]
Id = Annotated[str, typer.Option("--id", help="Id column.")]
Category = Annotated[str, typer.Option("--category", help="Category column.")]
Image = Annotated[str, typer.Option("--image", help="Image column.")]
Text = Annotated[str, typer.Option("--text", metavar="COLUMN[,COLUMN]", help="Columns of free text.")]
Number = Annotated[str, typer.Option("--number", metavar="COLUMN[,COLUMN]", help="Columns of numbers.")]
Choice = Annotated[
    str, typer.Option("--choice", metavar="COLUMN[,COLUMN]", help="Columns of attributes to learn.")
]
Ignore = Annotated[str, typer.Option("--ignore", metavar="COLUMN[,COLUMN]", help="Columns to leave out.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of folds and training.")]
Jobs = Annotated[
    int | None, typer.Option(min=1, help="Threads; by default one a core. Never changes an answer.")
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Engine = Annotated[
    str,
    typer.Option(help="auto, openvino, torch, torch-bf16, cuda; exported: onnxruntime, openvino-int8."),
]
Cache = Annotated[
    Path | None, typer.Option(help="Cache folder; by default SHELFWISE_CACHE or ~/.cache/shelfwise.")
]
Runs = Annotated[
    Path | None,
    typer.Option(help="Folder of checkpoints and logs of trainings; by default inside the cache."),
]
Html = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", callback=writable, help="Also write the page: .html."),
]
Metric = Annotated[str, typer.Option(help="The metric that leads; see: shelfwise list metrics.")]


@contextlib.contextmanager
def machine_of(
    cache: Path | None, jobs: int | None, device: str, engine: str, runs: Path | None = None
) -> Iterator["Machine"]:
    """A machine that shows its progress: a bar on a terminal, plain lines elsewhere."""
    from shelfwise.predictions import Machine
    from shelfwise.progress import shown

    with shown() as progress:
        yield Machine(cache, jobs, device, engine, progress, runs=runs)


def columns_of(
    id: str, category: str, image: str, text: str, number: str, ignore: str, choice: str = ""
) -> "Columns":
    """The columns that the flags settle; several names are parted by commas."""
    from shelfwise.roles import Columns

    def names(cell: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in cell.split(",") if part.strip())

    lists = (names(text), names(number), names(choice), names(ignore))
    return Columns(id or None, category or None, image or None, *lists)


def check_page(html: Path | None) -> None:
    """Refuse a page's path before anything is computed."""
    if html is not None:
        from shelfwise.pages.parts import check_ending

        check_ending(html)


def few(findings: "Findings", most: int) -> "list[Finding]":
    """The first ``most`` findings of every kind: one mistake that concerns every row does not hide the others."""
    met: Counter[str] = Counter()
    shown = []
    for finding in findings:
        met[finding.kind] += 1
        if met[finding.kind] <= most or finding.kind == "reading":
            shown.append(finding)
    return shown


def say(findings: "Findings", most: int = 12) -> None:
    """Print findings to stderr, the worst first, three of a kind at most, the rest counted."""
    for finding in few(findings, 3)[:most]:
        print(finding, file=sys.stderr)
    if len(findings) > most:
        counted = ", ".join(f"{count} {kind}" for kind, count in findings.counts().items())
        print(f"... {len(findings)} findings in all: {counted}. See: shelfwise check", file=sys.stderr)


ExplainImage = Annotated[
    Path | None,
    typer.Option(
        "--explain-image", metavar="DIR", help="Also draw where in its photo each answer comes from."
    ),
]
ExplainOnly = Annotated[
    str,
    typer.Option(
        "--explain-only",
        metavar="ATTRIBUTES",
        help="Of --explain-image: attributes, unsure or mismatch, by commas.",
    ),
]
ExplainMost = Annotated[int, typer.Option("--explain-most", min=1, help="Of --explain-image: maps at most.")]
ExplainBeside = Annotated[
    Path | None,
    typer.Option(
        "--explain-beside",
        metavar="TABLE",
        help="Of --explain-image: products that answers are compared with, by default those asked about.",
    ),
]
