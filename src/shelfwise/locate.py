"""Where each product's picture lies: by column or by id, never outside the image folder.

It opens no picture. A path is taken under the folder, then by its file name there; an id is looked
up as ``<id>.<ending>``, then by number whatever the zero-padding. Where a cell holds a URL, the picture is the one
that was downloaded for the id, else one with the URL's file name. Every result is resolved, links
included, and must still lie inside the folder.
"""

import hashlib
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from shelfwise.errors import CatalogError, ImageError
from shelfwise.roles import IMAGE_ENDINGS

#: The file that shows that a folder's pictures were downloaded and are called as their products.
LEDGER_NAME = "downloads.sqlite"
#: A cell with one URL or several, plain or as a list.
URL_CELL = re.compile(r"""^[\[\s"']*[A-Za-z][A-Za-z0-9+.-]*://""")
_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|%]|^\.|[. ]$')
#: Bytes of a file name without its ending; file systems take 255 with it.
LONGEST_STEM = 160


def file_stem(id_: str) -> str:
    """Return what the file of a product is called: its id, with what a file name cannot hold percent-encoded."""

    def encoded(found: re.Match[str]) -> str:
        return "".join(f"%{byte:02X}" for byte in found.group().encode())

    stem = _UNSAFE.sub(encoded, id_)
    if len(stem.encode()) <= LONGEST_STEM:
        return stem
    digest = hashlib.blake2b(id_.encode(), digest_size=16).hexdigest()
    return f"{stem.encode()[: LONGEST_STEM - 33].decode(errors='ignore')}~{digest}"


class ImageFolder:
    """The files of one image folder, listed once where a file is not where a cell says.

    Attributes:
        root: the resolved folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise CatalogError(
                f"the image folder {root} " + ("is not a folder" if root.exists() else "is not there")
            )
        self.root = root.resolve()
        self._root = str(self.root)
        self._parents: dict[str, Path | None] = {}

    @cached_property
    def _listing(self) -> "_Listing":
        return _Listing.of(self.root)

    def by_path(self, text: str) -> Path:
        """Return the file a cell names.

        Raises:
            ImageError: ``outside`` for a path that leaves the folder, ``missing`` for none there.
        """
        if "\x00" in text:
            raise ImageError("missing", f"the image path {text!r} holds a NUL byte")
        quick = self._plain(text)
        if quick is not None:
            return quick
        given = Path(text.replace("\\", "/") if "\\" in text and "/" not in text else text)
        if given.is_absolute():
            inside = self._inside(given)
            if inside is not None and inside.exists():
                return inside
            raise ImageError("outside", f"the image path {text!r} is absolute and outside the image folder")
        whole = self._inside(self.root / given)
        if whole is None:
            raise ImageError("outside", f"the image path {text!r} leads outside the image folder")
        if os.path.lexists(whole):
            return whole
        if given.name in self._listing.names:
            by_name = self._inside(self.root / given.name)
            if by_name is None:
                raise ImageError(
                    "outside", f"the image {given.name!r} is a link that leads outside the image folder"
                )
            return by_name
        raise ImageError("missing", f"there is no image {text!r} in the image folder")

    def by_id(self, id_: str) -> Path:
        """Return the file that is called as the product.

        Raises:
            ImageError: ``missing`` for none, or several that differ in zero-padding only; ``outside`` for a link
                that leaves the folder.
        """
        listing = self._listing
        name = listing.stems.get(file_stem(id_) if LEDGER_NAME in listing.names else id_)
        if name is None and id_.isascii() and id_.isdigit():
            number = int(id_)
            if number in listing.numbers:
                name = listing.numbers[number]
                if name is None:
                    raise ImageError(
                        "missing", f"several images are numbered {number} with different zero-padding"
                    )
        if name is None:
            raise ImageError("missing", f"there is no image called {id_!r} in the image folder")
        path = self._inside(self.root / name)
        if path is None:
            raise ImageError("outside", f"the image {name!r} is a link that leads outside the image folder")
        return path

    def by_url(self, cell: str, id_: str) -> Path:
        """Return the file of a product whose cell holds a URL.

        Raises:
            ImageError: as ``by_id``.
        """
        if LEDGER_NAME not in self._listing.names:
            try:
                return self.by_path(cell)
            except ImageError:
                pass
        return self.by_id(id_)

    def _plain(self, text: str) -> Path | None:
        """Return the file of a relative path that is no link, in a folder that was met before; else ``None``."""
        parent, _, name = f"{self._root}/{text}".rpartition("/")
        folder = self._parents.get(parent)
        if folder is None or name in ("", os.curdir, os.pardir) or "\\" in text or text.startswith("/"):
            return None
        try:
            return None if stat.S_ISLNK(os.lstat(f"{folder}/{name}").st_mode) else folder / name
        except (OSError, ValueError):
            return None

    def _inside(self, path: Path) -> Path | None:
        parent, name = os.path.split(path)
        try:
            # A file that is no link lies where its folder lies, and that is looked up once.
            if name in ("", os.curdir, os.pardir) or stat.S_ISLNK(os.lstat(path).st_mode):
                parent, name = os.path.split(os.path.realpath(path))
        except (OSError, ValueError):
            pass  # not there: where it would be
        if parent not in self._parents:
            self._parents[parent] = self._resolved(parent)
        folder = self._parents[parent]
        if folder is None:
            # The root itself, or outside.
            return self.root if os.path.join(parent, name) == str(self.root) else None
        return folder / name

    def _resolved(self, folder: str) -> Path | None:
        """Return where a folder really is, ``None`` outside the root."""
        try:
            found = Path(os.path.realpath(folder))
        except (OSError, ValueError):
            return None
        return found if found.is_relative_to(self.root) else None


@dataclass(frozen=True)
class _Listing:
    """The names in a folder: all; of pictures by stem; by number, ``None`` where several have it."""

    names: frozenset[str]
    stems: Mapping[str, str]
    numbers: Mapping[int, str | None]

    @classmethod
    def of(cls, root: Path) -> "_Listing":
        stems: dict[str, str] = {}
        numbers: dict[int, str | None] = {}
        with os.scandir(root) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            stem, ending = os.path.splitext(name)
            if ending.lower() not in IMAGE_ENDINGS:
                continue
            stems.setdefault(stem, name)
            if stem.isascii() and stem.isdigit():
                number = int(stem)
                numbers[number] = name if number not in numbers else None
        return cls(frozenset(names), stems, numbers)


def locate_images(
    cells: Sequence[str | None] | None, ids: Sequence[str], folder: ImageFolder
) -> tuple[tuple[Path | None, ...], Mapping[int, ImageError]]:
    """Find the picture of every product.

    Args:
        cells: the image column, or ``None`` to go by id.
        ids: the products' ids.
        folder: of the pictures.

    Returns:
        One resolved path per product, ``None`` where there is an error; the errors by row position.
    """
    paths: list[Path | None] = []
    errors: dict[int, ImageError] = {}
    met: dict[str, Path] = {}
    for position, id_ in enumerate(ids):
        cell = cells[position] if cells is not None else None
        known = met.get(cell) if cell is not None else None
        if known is not None:
            paths.append(known)
            continue
        try:
            if cells is None:
                paths.append(folder.by_id(id_))
            elif cell is None or not cell.strip():
                raise ImageError("missing", "no image is named")
            elif URL_CELL.match(cell):
                paths.append(folder.by_url(cell.strip(), id_))
            else:
                met[cell] = folder.by_path(cell.strip())
                paths.append(met[cell])
        except ImageError as error:
            paths.append(None)
            errors[position] = error
    return tuple(paths), errors
