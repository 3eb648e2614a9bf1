"""Products as the service is asked about them, and what is said of them.

It does not know HTTP. Photos are looked at in memory and never lie on the disk; answers hold no path of this machine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from shelfwise.auditing import audit_table
from shelfwise.bundle import Bundle
from shelfwise.catalog import Catalog
from shelfwise.cells import clean_cells, encode_labels
from shelfwise.data.images import HeldPhoto
from shelfwise.errors import ImageError, UsageError, listing, suggest
from shelfwise.photos import Photo
from shelfwise.predictions import Machine
from shelfwise.roles import Columns, fit_roles
from shelfwise.single import text_cells

#: The tables that are made here, and their column of photos.
SOURCE, IMAGE = "the products asked about", "image"
NO_PHOTO = ImageError("missing", "no image is named")


@dataclass(frozen=True)
class Product:
    """One product.

    Attributes:
        id: as the client calls it; ``None`` where it does not.
        category: ``None`` to have it predicted.
        text: what is written of it: by text column, or one text.
        photos: the content of image files.
        stated: values and numbers that somebody states, by attribute, to be audited.
        lost: why it has no photo although one was named.
    """

    id: str | None = None
    category: str | None = None
    text: str | Mapping[str, str] | None = None
    photos: tuple[bytes, ...] = ()
    stated: Mapping[str, str] = field(default_factory=dict)
    lost: str | None = None


def check_product(product: Product, bundle: Bundle) -> None:
    """Make sure that a bundle can be asked about a product.

    Raises:
        TaxonomyError: an unknown category.
        UsageError: a text column or an attribute that there is not.
    """
    if product.category is not None:
        bundle.taxonomy.attributes(product.category)
    text_cells(product.text, bundle.schema.roles)
    if product.stated:
        _stated_cells(product, bundle)


def answers_of(
    products: Sequence[Product], bundle: Bundle, machine: Machine, precision: float | None
) -> list[dict[str, Any]]:
    """Answer products, one for one: ``{id, category, looks_like, answers, error}``, as ``Bundle.answer_one`` does."""
    answers = bundle.answer(_catalog(products, bundle), precision=precision, machine=machine)
    names = bundle.taxonomy.categories
    category = {row: block.category for block in answers.blocks for row in block.rows.tolist()}
    found = []
    for row, (product, cells) in enumerate(zip(products, answers.each(range(len(products))), strict=True)):
        error = answers.errors.get(row)
        likelier = -1 if answers.likelier is None else int(answers.likelier[row])
        said = None if error is None else error.message.replace(f"{row}/", "")
        found.append(
            {
                "id": product.id,
                "category": category.get(row, product.category),
                "looks_like": names[likelier] if likelier >= 0 else None,
                "answers": cells,
                "error": product.lost if said is not None and product.lost is not None else said,
            }
        )
    return found


def audit_of(product: Product, bundle: Bundle, machine: Machine) -> dict[str, Any]:
    """Judge what one product states: ``{id, category, values, error}``, the likeliest error first.

    It is judged by itself, so that what is said of it does not depend on what else is asked about.
    """
    catalog = _catalog([product], bundle)
    found = audit_table(bundle, catalog, machine=machine)
    judged = list(zip(found.values().iter_rows(named=True), found.suspect.tolist(), strict=True))
    for item in found.numbers:
        numbers = pl.DataFrame(item.columns(found.category_of), schema=found.values().schema)
        judged += zip(numbers.iter_rows(named=True), item.suspect.tolist(), strict=True)
    judged.sort(key=lambda each: -each[0]["odds"])
    values = [
        {name: row[name] for name in ("attribute", "stated", "seen", "p_stated", "p_seen", "odds")}
        | {"in_text": row["column"] in catalog.text_columns, "suspect": bool(suspect)}
        for row, suspect in judged
    ]
    error = None
    if found.unseen:
        reason = catalog.image_errors.get(0)
        error = product.lost or "no readable photo, or no category: what is stated is not judged"
        error = error if reason is None or product.lost else str(reason).replace("0/", "")
    return {"id": product.id, "category": product.category, "values": values, "error": error}


def _catalog(products: Sequence[Product], bundle: Bundle) -> Catalog:
    """Return products as a catalogue, their photos in memory."""
    layout = bundle.schema.layout
    rows: list[dict[str, str | None]] = []
    shown: list[tuple[Photo, ...]] = []
    for row, product in enumerate(products):
        photos = dict.fromkeys(product.photos)  # one that is sent twice has no two votes
        shown.append(
            tuple(Photo(HeldPhoto.of(f"{row}/photo-{n}", data)) for n, data in enumerate(photos, start=1))
        )
        rows.append(
            {
                layout.id: product.id,
                layout.category or "category": product.category,
                **text_cells(product.text, bundle.schema.roles),
                **_stated_cells(product, bundle),
                IMAGE: None,
            }
        )
    columns = dict.fromkeys(name for row in rows for name in row)
    frame = pl.DataFrame(
        {name: [row.get(name) for row in rows] for name in columns}, schema=dict.fromkeys(columns, pl.String)
    )
    known = replace(bundle.schema.roles, id=layout.id, image=IMAGE)
    schema = replace(bundle.schema, roles=fit_roles(frame, known, Columns(), SOURCE))
    cells = clean_cells(frame, schema.roles, schema.missing)
    category, codes = encode_labels(cells, schema.taxonomy, schema.roles, layout)
    return Catalog(
        frame,
        schema,
        tuple(product.id or "" for product in products),
        category,
        codes,
        tuple(photos[0].path if photos else None for photos in shown),
        {row: NO_PHOTO for row, photos in enumerate(shown) if not photos},
        source=SOURCE,
        photos={row: photos for row, photos in enumerate(shown) if len(photos) > 1},
    )


def _stated_cells(product: Product, bundle: Bundle) -> dict[str, str]:
    """Return what a product states, by the column that the training table has it in."""
    if not product.stated:
        return {}
    if product.category is None:
        raise UsageError("stated values are those of a category: name the category")
    taxonomy, layout = bundle.taxonomy, bundle.schema.layout
    choices = [choice.name for choice in taxonomy.choices(product.category)]
    numbers = [number.name for number in taxonomy.numbers(product.category)]
    cells = {}
    for name, value in product.stated.items():
        if name not in (*choices, *numbers):
            hint = suggest(name, (*choices, *numbers)) or f"It has: {listing((*choices, *numbers))}."
            raise UsageError(f"{product.category!r} has no attribute {name!r}. {hint}")
        by_place = layout.kind == "challenge" and name in choices
        cells[layout.columns[choices.index(name)] if by_place else name] = value
    return cells
