"""Wanted: which photos a table asks for, under which address and which file name.

It asks for nothing. What it returns does not depend on the order of the table's rows.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl

from shelfwise.data.addresses import read_address, scheme_of
from shelfwise.data.stores import check_stored
from shelfwise.data.terms import STORE_SCHEMES, DownloadOptions, NotFetched
from shelfwise.errors import CatalogError, listing, suggest
from shelfwise.findings import Finding
from shelfwise.locate import URL_CELL, file_stem
from shelfwise.photos import texts_of
from shelfwise.roles import IMAGE_NAMES, MISSING, Columns, infer_roles
from shelfwise.tables import Table, unescape

#: Several addresses in one cell are parted by blanks, commas, semicolons or bars before the next scheme.
_BETWEEN = re.compile(r"""["']?[\s,;|]+["']?(?=[A-Za-z][A-Za-z0-9+.-]*://)""")
_PICTURE = re.compile(r"image|img|photo|picture|thumb", re.IGNORECASE)
#: Cells looked at to tell whether a column holds addresses.
SAMPLE = 1000


@dataclass(frozen=True, slots=True)
class Wanted:
    """One photo of one product.

    Attributes:
        id: the product's, verbatim.
        photo: 1 for its first photo, 2 for the second.
        url: as the table has it; empty where it has none.
        key: the one spelling of the address; empty where it is refused or there is none.
        host: what a limit per host counts; empty likewise.
        refused: why it is not asked for.
        name: the file's, under the folder, without its ending.
    """

    id: str
    photo: int
    url: str
    key: str
    host: str
    refused: NotFetched | None
    name: str


def wanted_photos(
    table: Table, columns: Columns, photos: Sequence[str], options: DownloadOptions
) -> tuple[tuple[Wanted, ...], tuple[Finding, ...]]:
    """Return the photos a table asks for, by id and number, and what is odd about it.

    Args:
        table: as read.
        columns: ``id`` names the id column.
        photos: columns of addresses, in the order of the photos; empty to infer them.
        options: what may be asked for.

    Raises:
        CatalogError: a column that is not there, or no column of addresses.
    """
    roles = infer_roles(table.frame, columns, MISSING, table.source)
    photos = tuple(photos) or url_columns(table)
    for name in photos:
        if name not in table.frame.columns:
            hint = suggest(name, table.frame.columns) or f"It has: {listing(table.frame.columns)}."
            raise CatalogError(f"{table.source}: there is no column {name!r}. {hint}")
    if roles.id is None:
        ids: Iterable[str] = map(str, range(1, table.frame.height + 1))
    else:
        ids = (cell or "" for cell in table.frame[roles.id].to_list())
    places: dict[str, dict[str, int]] = {}
    findings = [Finding("reading", note, severity="note") for note in table.notes]
    for row, (id_, *cells) in enumerate(
        zip(ids, *(table.frame[name].to_list() for name in photos), strict=True)
    ):
        urls = [url for cell in cells for url in split_cell(cell)]
        first = places.setdefault(id_, {})
        if first and set(urls) - set(first):
            message = "the id was there before with another photo; both are fetched, the catalogue sees one"
            findings.append(Finding("duplicate_id", message, row + 1, id_, roles.id))
        for place, url in enumerate(urls):
            first[url] = min(first.get(url, place), place)
    return tuple(_named(places, options)), tuple(findings)


def url_columns(table: Table) -> tuple[str, ...]:
    """Return the columns of photo addresses: those of addresses whose names say so, else the only one.

    Raises:
        CatalogError: none, or several and no name that tells which.
    """
    found = [name for name in table.frame.columns if _holds_urls(table.frame[name])]
    named = [name for name in found if name.strip().casefold() in IMAGE_NAMES or _PICTURE.search(name)]
    if named or len(found) == 1:
        return tuple(named or found)
    if found:
        raise CatalogError(
            f"{table.source}: which of the columns {listing(found)} holds the photos? Name it with --image"
        )
    raise CatalogError(
        f"{table.source}: no column holds addresses such as https://shop.example/1.jpg; it has "
        f"{listing(table.frame.columns)}. Name the column with --image"
    )


def split_cell(cell: str | None) -> list[str]:
    """Return the addresses of a cell: one, several with separators between, or a JSON list."""
    text = unescape(cell or "").strip()
    listed = texts_of(text)
    if listed is not None:
        return listed
    if text.startswith("["):
        text = text.strip("[]\"' ")
    if text.casefold() in {token.casefold() for token in MISSING}:
        return []
    return [part for part in (part.strip("\"' \t\r\n") for part in _BETWEEN.split(text)) if part]


def source_key(url: str, options: DownloadOptions) -> tuple[str, str]:
    """Return the one spelling of an address and its host.

    Raises:
        NotFetched: refused, with the reason.
    """
    scheme = scheme_of(url)
    if scheme == "file" or scheme in STORE_SCHEMES:
        plain = f"{scheme}{url[len(scheme) :]}"
        check_stored(plain, scheme, options)
        return plain, "/".join(plain.split("/", 3)[:3])
    address = read_address(url, allow_private=options.allow_private)
    return address.url, address.host


def _named(places: dict[str, dict[str, int]], options: DownloadOptions) -> Iterable[Wanted]:
    """Number the photos of each product and name their files."""
    for id_ in sorted(places):
        stem = file_stem(id_)
        urls = sorted(places[id_], key=lambda url: (places[id_][url], url))
        for photo, url in enumerate(urls or [""], start=1):
            name = stem if photo == 1 else f"{photo}/{stem}"
            key, host, refused = "", "", None
            try:
                if not url:
                    raise NotFetched("no_url", "no_url", "the table names no photo")
                if not id_:
                    raise NotFetched("failed", "no_id", "the row has no id to name the file by")
                key, host = source_key(url, options)
            except NotFetched as error:
                refused = error
            yield Wanted(id_, photo, url, key, host, refused, name)


def _holds_urls(series: pl.Series) -> bool:
    """Whether at least half of the first filled cells are addresses."""
    cells = [cell for cell in series.drop_nulls().head(SAMPLE).to_list() if cell.strip()]
    return bool(cells) and sum(bool(URL_CELL.match(unescape(cell))) for cell in cells) * 2 >= len(cells)
