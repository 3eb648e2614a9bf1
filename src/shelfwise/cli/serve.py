"""Verbs of the service: serve, keys add, keys list, keys revoke.

They parse, call one library function and print.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from shelfwise.cli.options import Cache, Device, Engine, Jobs, app
from shelfwise.errors import UsageError, require

verbs = typer.Typer(help="Keys that the service is asked with.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(verbs, name="keys")

Keys = Annotated[
    Path | None,
    typer.Option("--keys", metavar="FILE", help="File of keys; by default SHELFWISE_KEYS or the user's own."),
]


@app.command()
def serve(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE")],
    host: Annotated[
        str, typer.Option(help="Where to listen; others than this machine's own need keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8000,
    keys: Keys = None,
    desk: Annotated[
        str, typer.Option(metavar="FILE|URL", help="Review desk; its pages are at /review.")
    ] = "",
    deadline: Annotated[
        float,
        typer.Option(min=0.001, max=3600, help="Seconds an answer may take where a request names no time."),
    ] = 10.0,
    queue: Annotated[int, typer.Option(min=1, help="Products that wait at most.")] = 256,
    batch: Annotated[int, typer.Option(min=1, help="Products answered together at most.")] = 32,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Requests a second of one key; by default no limit.")
    ] = None,
    max_body: Annotated[int, typer.Option("--max-body", min=1, help="Bytes of one request.")] = 64_000_000,
    max_image: Annotated[
        int, typer.Option("--max-image", min=1, max=200_000_000, help="Bytes of one photo.")
    ] = 20_000_000,
    drain: Annotated[
        float, typer.Option(min=1, max=3600, help="Seconds to finish what is under way at the end.")
    ] = 30.0,
    allow_urls: Annotated[
        bool, typer.Option("--allow-urls", help="Fetch photos that a JSON batch names by URL.")
    ] = False,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Of --allow-urls: from private addresses too.")
    ] = False,
    jobs: Jobs = None,
    device: Device = "auto",
    engine: Engine = "auto",
    cache: Cache = None,
) -> None:
    """Answer over HTTP: photos, texts and audits; metrics, health, and with --desk the review pages."""
    # Batches are small: more threads in one product of matrices cost more than they bring. Before numpy is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for module in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        require(module, extra="serve")
    from shelfwise.predictions import Machine
    from shelfwise.service.access import Access
    from shelfwise.service.app import make_app
    from shelfwise.service.keys import KeyRing, default_path
    from shelfwise.service.options import ServiceOptions
    from shelfwise.service.run import run
    from shelfwise.service.serving import Serving

    options = ServiceOptions(
        host=host,
        port=port,
        deadline=deadline,
        queue=queue,
        batch=batch,
        rate=rate,
        max_body=max_body,
        max_image=max_image,
        drain=drain,
        allow_urls=allow_urls,
        allow_private=allow_private,
    )
    ring = KeyRing(keys or default_path())
    if ring.empty:
        told = "no key exists: programs of this machine need none" if options.loopback else _NO_KEY
        print(f"note: {told}", file=sys.stderr)
    opened = None
    if desk:
        from shelfwise.service.desk import Desk

        opened = Desk.open(desk)
    serving = Serving(bundle, Machine(cache, jobs, device, engine))
    service = make_app(serving, Access(ring, options.loopback, options.rate), options, desk=opened)
    run(service, page="/review" if opened is not None else "")


_NO_KEY = "no key exists, so nothing but health is answered; add one: shelfwise keys add NAME --scope predict"


@verbs.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is; stands in logs.")],
    scope: Annotated[
        list[str] | None, typer.Option(help="predict, review or admin; repeatable. By default predict.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Requests a second; by default the service's own limit.")
    ] = None,
    keys: Keys = None,
) -> None:
    """Make a key and print its secret, which is told this once."""
    from shelfwise.service.keys import KeyRing, default_path

    ring = KeyRing(keys or default_path())
    first = ring.empty
    print(ring.add(name, scope or ["predict"], rate=rate))
    print(f"added {name!r} to {ring.path}; the secret is kept nowhere", file=sys.stderr)
    if first:
        print("from now on every request needs a key", file=sys.stderr)


@verbs.command("list")
def list_keys(keys: Keys = None) -> None:
    """List the keys, without their secrets."""
    from shelfwise.service.keys import KeyRing, default_path

    ring = KeyRing(keys or default_path())
    for key in ring.listed():
        print(key)
    if ring.empty:
        print(f"no keys in {ring.path}", file=sys.stderr)


@verbs.command()
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    keys: Keys = None,
) -> None:
    """Take a key's rights away, at once and for good."""
    from shelfwise.service.keys import KeyRing, default_path

    path = keys or default_path()
    if not path.is_file():
        raise UsageError(f"there is no file of keys {path}; name it with --keys")
    KeyRing(path).revoke(name)
    print(f"revoked {name!r}")
