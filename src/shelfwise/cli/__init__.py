"""Verbs: parse, call one library function, print.

It holds no logic of its own. Nothing heavy is imported before a verb runs, so ``--help`` is quick.
"""

import os
import sys
from typing import Any, NoReturn

import typer

# The order of the verbs in --help.
from shelfwise.cli import learn, search, answer, score, blend, audit, drift, inspect  # isort: skip
from shelfwise.cli import download, taxonomy, vqa, export, serve, labels  # isort: skip
from shelfwise.cli.options import app
from shelfwise.errors import ShelfwiseError

__all__ = [
    "answer",
    "app",
    "audit",
    "blend",
    "download",
    "drift",
    "export",
    "inspect",
    "labels",
    "learn",
    "run",
    "score",
    "search",
    "serve",
    "taxonomy",
    "vqa",
]

#: Packages of the extra ``train``, which everything but answering with an exported bundle needs.
LEARNING = ("torch", "torchvision", "timm", "sklearn", "accelerate", "matplotlib", "tensorboard", "openvino")
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
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in LEARNING:
            raise
        print(f"error: this needs the package {package!r}: pip install 'shelfwise[train]'", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        print("stopped; nothing is left half-written, run it again to go on", file=sys.stderr)
        sys.exit(STOPPED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        print(f"error: {_refused(error)}", file=sys.stderr)
        sys.exit(2)


def _refused(error: OSError) -> str:
    """What the file system refused, where, and what now."""
    place = error.filename2 or error.filename
    said = f"{place}: {error.strerror}" if place else str(error)
    now = "make room, mend the permissions or name another place, and run it again"
    return f"{said}. Nothing is left half-written: {now}"
