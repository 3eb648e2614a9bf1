"""Stores: photos behind ``file:`` addresses and in stores of objects such as S3, where the user opened a door.

It knows no network: fsspec and the store's own package do, with the credentials of whoever runs this. A table from
somebody else could name any object these credentials reach, so only addresses that begin as ``allow_stores`` says are
read, and only local files inside the folder ``allow_local``.
"""

import io
import os
import unicodedata
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urlsplit

from shelfwise.data.images import read_bytes
from shelfwise.data.terms import STORE_SCHEMES, DownloadOptions, NotFetched
from shelfwise.data.wire import Body
from shelfwise.errors import ImageError, MissingExtra, require


def check_stored(url: str, scheme: str, options: DownloadOptions) -> None:
    """Check that a ``file:`` or store address may be read; nothing is opened.

    Raises:
        NotFetched: refused, with the reason.
    """
    if any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in url):
        raise NotFetched("refused", "bad_url", "the address holds a control character")
    if scheme == "file":
        _local_path(url, options)
        return
    steps = url.partition("://")[2].split("/")
    if "://" not in url or "::" in url or "\\" in url or "@" in steps[0] or {".", ".."} & set(steps):
        raise NotFetched("refused", "bad_url", "an address in a store is scheme://bucket/path, without '..'")
    if not any(url.startswith(prefix) for prefix in options.allow_stores):
        detail = "addresses in stores are read only where --allow-store names their beginning"
        raise NotFetched("refused", "store", detail)


def check_packages(schemes: Iterable[str]) -> None:
    """Check that what reads these stores is installed.

    Raises:
        MissingExtra: it is not.
    """
    for scheme in sorted(set(schemes) & set(STORE_SCHEMES)):
        fsspec = require("fsspec", extra="stores")
        try:
            fsspec.get_filesystem_class(scheme)
        except ImportError as error:
            raise MissingExtra(f"{scheme}:// needs another package: {error}") from error


class Stores:
    """Reads objects and local files; safe for many threads."""

    def __init__(self, options: DownloadOptions) -> None:
        """Keep to these terms."""
        self.options = options
        self._pool = ThreadPoolExecutor(options.workers, thread_name_prefix="stores")

    def get(self, url: str, scheme: str) -> Body:
        """Read an object or a local file that was checked before.

        Raises:
            NotFetched: with the reason.
        """
        return self._local(url) if scheme == "file" else self._object(url)

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _local(self, url: str) -> Body:
        try:
            return Body(
                io.BytesIO(read_bytes(_local_path(url, self.options), max_bytes=self.options.max_bytes)), True
            )
        except ImageError as error:
            # The message of an image error begins with the path, which the address says already.
            detail = str(error).partition(": ")[2]
            raise NotFetched("failed", error.kind, detail) from error

    def _object(self, url: str) -> Body:
        """Read an object in a thread of its own: packages of stores keep no time limit and share no error."""
        reading = self._pool.submit(_read_object, url, self.options.max_bytes)
        try:
            failure = reading.exception(timeout=self.options.total)
        except TimeoutError as error:
            raise NotFetched("failed", "too_slow", f"not there after {self.options.total:g} s") from error
        if isinstance(failure, FileNotFoundError):
            raise NotFetched("failed", "missing", "there is no such object") from failure
        if isinstance(failure, PermissionError):
            raise NotFetched(
                "failed", "denied", "the store does not let these credentials read it"
            ) from failure
        if failure is not None:
            said = (str(failure).splitlines() or [""])[0]
            raise NotFetched("failed", "store", f"{type(failure).__name__}: {said}", again=True) from failure
        data = reading.result()
        if len(data) > self.options.max_bytes:
            raise NotFetched("failed", "too_large", f"more than {self.options.max_bytes:,} bytes")
        return Body(io.BytesIO(data), True)


def _read_object(url: str, most: int) -> bytes:
    files, path = require("fsspec", extra="stores").core.url_to_fs(url)
    data: bytes = files.cat_file(path, start=0, end=most + 1)
    return data


def _local_path(url: str, options: DownloadOptions) -> Path:
    """The file a ``file:`` address names, links followed, inside the folder that is open."""
    if options.allow_local is None:
        raise NotFetched(
            "refused", "local_file", "local files are read only inside the folder of --allow-local"
        )
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise NotFetched("refused", "bad_url", str(error)) from error
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or "\0" in unquote(parts.path):
        raise NotFetched("refused", "bad_url", "the address of a local file is file:///folder/name")
    path = Path(os.path.realpath(unquote(parts.path)))
    if not path.is_relative_to(os.path.realpath(options.allow_local)):
        raise NotFetched("refused", "local_file", "the file lies outside the folder of --allow-local")
    return path
