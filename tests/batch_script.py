"""Answer a table as a job, with the toy backbone; run as a program, so that it and its workers can be killed.

``BUNDLE TABLE OUT CACHE ROWS WORKERS ON``, and ``kill`` to kill one worker when the first shard is done.
"""

import multiprocessing
import os
import signal
import sys
from importlib import import_module
from pathlib import Path

import shelfwise.testing  # noqa: F401  (registers the backbone "toy", in workers too)
from shelfwise.batch.jobs import BatchOptions
from shelfwise.batch.run import answer_table
from shelfwise.models.towers import one_thread
from shelfwise.predictions import Machine

CHILDREN: list[int] = []


def killing(what: str, done: int, total: int) -> None:
    """Kill one worker once."""
    if not CHILDREN and what.startswith("answering"):
        child = multiprocessing.active_children()[0]
        CHILDREN.append(child.pid or 0)
        os.kill(CHILDREN[0], signal.SIGKILL)


def register() -> None:
    """Give Ray's processes the toy backbone."""
    import_module("shelfwise.testing")


def main() -> None:
    bundle, table, out, cache, rows, workers, on, *kill = sys.argv[1:]
    machine = Machine(Path(cache), 1, engine="torch", progress=killing if kill else None)
    if on == "ray":
        import ray

        ray.init(
            num_cpus=int(workers),
            include_dashboard=False,
            log_to_driver=False,
            runtime_env={"worker_process_setup_hook": register},
        )
    options = BatchOptions(rows=int(rows), workers=int(workers), on="ray" if on == "ray" else "here")
    with one_thread():
        found = answer_table(bundle, table, out, options=options, machine=machine)
    print(found.rows, found.computed, found.failed)


if __name__ == "__main__":
    main()
