"""The verb that tries options: search.

It parses, runs the search and prints.
"""

from pathlib import Path
from typing import Annotated

import typer

from shelfwise.cli.options import Cache, Device, Engine, Jobs, app, machine_of, writable


@app.command()
def search(
    run_file: Annotated[Path, typer.Argument(metavar="RUN.toml", help="A run file with a [search] table.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[key=value]...", help="Override run options.")
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", callback=writable, help="A folder; gets trials.csv, best.toml and every trial."
        ),
    ] = Path("search"),
    jobs: Jobs = None,
    device: Device = "auto",
    engine: Engine = "auto",
    cache: Cache = None,
) -> None:
    """Try options of a run file on the same folds; writes a table of trials and the best run file."""
    from shelfwise.config import read_run
    from shelfwise.search import Search

    with machine_of(cache, jobs, device, engine) as machine:
        hunt = Search(read_run(run_file, overrides or []), out, machine)
        try:
            for trial in hunt.trials():
                print(hunt.result.line(trial), flush=True)
        except KeyboardInterrupt:
            print(f"\n{hunt.result}", end="")
            raise
    print(f"\n{hunt.result}", end="")
    print(f"wrote {' and '.join(str(path) for path in hunt.result.written)}; next: {hunt.result.next_step}")
