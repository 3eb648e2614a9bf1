"""Photos: all pictures of a product, with their roles, where a table names several.

It opens no picture and does not know what is done with several. A cell holds several as a JSON list, or as paths
parted by ``|``; a table of photos has a row for each.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shelfwise.errors import CatalogError, ImageError, listing
from shelfwise.findings import Finding
from shelfwise.locate import LEDGER_NAME, URL_CELL, ImageFolder, file_stem, locate_images
from shelfwise.roles import ID_NAMES, IMAGE_NAMES
from shelfwise.tables import read_table

#: Paths and roles of pictures, by the product's id.
Photos = Mapping[str, Sequence[tuple[str, str]]]
#: What a column of roles is called in a table of photos.
ROLE_NAMES = ("role", "view", "photo_role")


@dataclass(frozen=True)
class Photo:
    """One picture of a product.

    Attributes:
        path: where it lies.
        role: what it shows, such as ``front``, ``back`` or ``detail``; empty where that is not known.
    """

    path: Path
    role: str = ""


@dataclass(frozen=True)
class Located:
    """Where the pictures of a table lie.

    Attributes:
        first: the path of each product's first picture that was found; ``None`` where there is an error.
        errors: what is wrong, by row position, where no picture of a product was found.
        photos: all pictures that were found of each product that has more than one, by row position, in the table's
            order.
        lost: row position and what is wrong with each picture that was not found of a product that has others.
    """

    first: tuple[Path | None, ...]
    errors: Mapping[int, ImageError]
    photos: Mapping[int, tuple[Photo, ...]] = field(default_factory=dict)
    lost: tuple[tuple[int, ImageError], ...] = ()

    def findings(self, ids: Sequence[str], column: str) -> list[Finding]:
        """Return what is wrong: an error where a product has no picture, a warning where it lacks one of several."""
        return [
            *(
                Finding(f"image_{error.kind}", str(error), row + 1, ids[row], column, "error")
                for row, error in self.errors.items()
            ),
            *(
                Finding(f"image_{error.kind}", str(error), row + 1, ids[row], column)
                for row, error in self.lost
            ),
        ]


def texts_of(text: str) -> list[str] | None:
    """Return the texts of a JSON list of texts, without the empty ones; ``None`` where a cell is no such list."""
    if not text.startswith("["):
        return None
    try:
        items = json.loads(text)
    except ValueError:
        return None
    if not (isinstance(items, list) and all(isinstance(item, str) for item in items)):
        return None
    return [item.strip() for item in items if item.strip()]


def split_photos(cell: str) -> list[str]:
    """Return the paths that a cell names: a JSON list of texts, paths parted by ``|``, or one path."""
    text = cell.strip()
    listed = texts_of(text)
    if listed is not None:
        return listed
    return [part.strip() for part in text.split("|") if part.strip()]


def read_photos(source: Any, id_column: str | None) -> dict[str, list[tuple[str, str]]]:
    """Read a table of photos: the path and the role of every picture, by the product's id.

    Args:
        source: a table with the columns ``id`` (or the products' own id column), ``image`` and, if known, ``role``.
        id_column: what the products' table calls the id.

    Raises:
        CatalogError: no table, or one without these columns, or a row that names no picture.
    """
    table = read_table(source)
    plain = {name.strip().casefold().replace(" ", "_"): name for name in reversed(table.frame.columns)}
    chosen = []
    for what, names in (("id", (id_column or "id", *ID_NAMES)), ("image", IMAGE_NAMES), ("role", ROLE_NAMES)):
        column = next((plain[n] for n in (name.casefold() for name in names) if n in plain), None)
        if column is None and what != "role":
            raise CatalogError(
                f"{table.source}: a table of photos needs a column {what!r}; it has: {listing(table.frame.columns)}"
            )
        chosen.append(column)
    ids, images = (table.frame[name].to_list() for name in chosen[:2] if name is not None)
    roles = table.frame[chosen[2]].to_list() if chosen[2] is not None else [None] * len(ids)
    found: dict[str, list[tuple[str, str]]] = {}
    for row, (id_, image, role) in enumerate(zip(ids, images, roles, strict=True), start=1):
        if id_ is None or image is None or not image.strip():
            raise CatalogError(
                f"{table.source}, row {row}: names no {'id' if id_ is None else 'picture'}; fill it in, or take it out"
            )
        found.setdefault(id_, []).append((image.strip(), (role or "").strip().casefold()))
    return found


def locate_photos(
    cells: Sequence[str | None] | None,
    ids: Sequence[str],
    folder: ImageFolder,
    named: Photos | None = None,
) -> Located:
    """Find every picture of every product.

    Args:
        cells: the image column, or ``None`` to go by id.
        ids: the products' ids.
        folder: of the pictures.
        named: paths and roles by id, from ``read_photos``; they go before a product's own cell.
    """
    wanted = _wanted(cells, ids, named or {})
    if not wanted:
        return Located(*locate_images(cells, ids, folder))
    levels: dict[int, ImageFolder | None] = {}
    whole = list(cells) if cells is not None else []
    for row in wanted if cells is not None else ():
        whole[row] = wanted[row].items[0][0]
    first, wrong = locate_images(whole if cells is not None else None, ids, folder)
    paths, errors, photos = list(first), dict(wrong), dict[int, tuple[Photo, ...]]()
    lost: list[tuple[int, ImageError]] = []
    for row, names in wanted.items():
        if names.addresses:
            found: list[Photo | ImageError] = [
                Photo(path) if (path := first[row]) is not None else wrong[row]
            ]
            found += _downloaded(folder.root, levels, ids[row], len(names.items))
        else:
            found = [_photo(folder, path, role) for path, role in names.items]
        shown = _distinct([photo for photo in found if isinstance(photo, Photo)])
        missing = [error for error in found if isinstance(error, ImageError)]
        paths[row] = shown[0].path if shown else None
        errors.pop(row, None)
        if not shown:
            errors[row] = _none_found(missing)
        else:
            lost += [(row, error) for error in missing]
        if len(shown) > 1:
            photos[row] = shown
    return Located(tuple(paths), errors, photos, tuple(lost))


@dataclass(frozen=True)
class _Wanted:
    """The pictures that a product names: paths and roles; or as many entries as its cell has addresses."""

    items: Sequence[tuple[str, str]]
    addresses: bool = False


def _wanted(cells: Sequence[str | None] | None, ids: Sequence[str], named: Photos) -> dict[int, _Wanted]:
    """Return the rows that name several pictures, or have some in a table of photos."""
    found: dict[int, _Wanted] = {}
    for row, id_ in enumerate(ids):
        cell = cells[row] if cells is not None else None
        if id_ in named:
            found[row] = _Wanted(named[id_])
        elif cell is not None and ("|" in cell or "[" in cell or cell.count("://") > 1):
            if URL_CELL.match(cell):
                found[row] = _Wanted([(cell, "")] * cell.count("://"), True)
            elif len(parts := split_photos(cell)) > 1 or cell.lstrip().startswith("["):
                found[row] = _Wanted([(part, "") for part in parts or [cell]])
    return found


def _photo(folder: ImageFolder, path: str, role: str) -> Photo | ImageError:
    try:
        return Photo(folder.by_path(path), role)
    except ImageError as error:
        return error


def _distinct(photos: Sequence[Photo]) -> tuple[Photo, ...]:
    """Return each file once: one that is named twice has no two votes."""
    role = {photo.path: photo.role for photo in sorted(photos, key=lambda photo: photo.role, reverse=True)}
    return tuple(Photo(path, role[path]) for path in dict.fromkeys(photo.path for photo in photos))


def _downloaded(root: Path, levels: dict[int, ImageFolder | None], id_: str, count: int) -> list[Photo]:
    """Return the second and further pictures that were downloaded for a product: ``2/<id>.jpg``, ``3/<id>.jpg`` ..."""
    if not (root / LEDGER_NAME).exists():
        return []
    found = []
    for number in range(2, count + 1):
        if number not in levels:
            place = root / str(number)
            levels[number] = ImageFolder(place) if place.is_dir() else None
        level = levels[number]
        try:
            if level is not None:
                found.append(Photo(level.by_id(file_stem(id_))))
        except ImageError:
            continue  # fewer pictures of it than the cell has addresses, such as one named twice
    return found


def _none_found(errors: Sequence[ImageError]) -> ImageError:
    """Return why a product has no picture at all, whatever the order of its pictures."""
    first = min(errors, key=str)
    if len(errors) == 1:
        return first
    return ImageError(first.kind, f"none of its {len(errors)} photos was found; {first}")
