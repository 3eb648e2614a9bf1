"""Single: one product as a table of one row.

It does not know what is asked of the product.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from shelfwise.catalog import Catalog, Schema
from shelfwise.errors import UsageError, listing, suggest
from shelfwise.roles import TITLE_NAMES, Roles, plain


def one_product(
    schema: Schema,
    image: str | Path | Sequence[str | Path] | None,
    *,
    text: str | Mapping[str, str] | None = None,
    category: str | None = None,
    id: str | None = None,
) -> Catalog:
    """Return a product as a catalogue.

    Args:
        schema: that tables are read under.
        image: the file of its photo, or of several.
        text: what is written of it, by text column, or one text for the first of them.
        category: its category, if known.
        id: by default the first file's name without its ending.

    Raises:
        TaxonomyError: an unknown category.
        UsageError: a text for a column that is none.
    """
    given = () if image is None else (image,) if isinstance(image, str | Path) else tuple(image)
    photos = [Path(each).absolute() for each in given]
    if category is not None:
        schema.taxonomy.attributes(category)
    id_ = id if id is not None else photos[0].stem if photos else "1"
    roles, layout = schema.roles, schema.layout
    cells = {layout.id: id_, layout.category or "category": category, **text_cells(text, roles)}
    place = Path(os.path.commonpath([photo.parent for photo in photos])) if photos else None
    cells["image"] = json.dumps([str(photo.relative_to(place)) for photo in photos]) if place else None
    frame = pl.DataFrame(
        {name: [cell] for name, cell in cells.items()}, schema=dict.fromkeys(cells, pl.String)
    )
    return Catalog.read(
        frame, images=place, schema=replace(schema, roles=replace(roles, id=layout.id, image="image"))
    )


def text_cells(text: str | Mapping[str, str] | None, roles: Roles) -> dict[str, str]:
    """Return what is written of one product, by text column."""
    if text is None:
        return {}
    if not isinstance(text, str):
        for name in text:
            if name not in roles.texts:
                hint = suggest(name, roles.texts) or f"It had: {listing(roles.texts)}."
                raise UsageError(f"the training table had no text column {name!r}. {hint}")
        return dict(text)
    if not roles.texts:
        raise UsageError("the training table had no text column, so nothing was learnt about texts")
    titles = (name for name in roles.texts if plain(name) in TITLE_NAMES)
    return {next(titles, roles.texts[0]): text}
