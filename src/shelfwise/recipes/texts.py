"""Texts: what is written of a catalogue's products, read once, and where it has a vector.

It knows listings and text encoders, not what is learnt. Legend: N products, D features.
"""

import numpy as np
import numpy.typing as npt

from shelfwise.catalog import Catalog
from shelfwise.data.text import encoder_text, read_listings

Floats = npt.NDArray[np.float32]


def product_texts(catalog: Catalog) -> list[str]:
    """Return the text of every product for an encoder, empty where nothing is written; a memo's are not read again."""
    columns = [catalog.texts(name) for name in catalog.text_columns]
    cells = list(zip(*columns, strict=True)) if columns else [()] * len(catalog)
    known: dict[tuple[str | None, ...], str] = {}
    if catalog.memo is not None:
        known = catalog.memo.setdefault(("texts", catalog.text_columns), known)
    new = {cell: row for row, cell in enumerate(cells) if cell not in known}
    listings = read_listings(catalog.select(list(new.values()))) if new else ()
    known.update(zip(new, map(encoder_text, listings), strict=True))
    return [known[cell] for cell in cells]


def saying(vectors_ND: Floats) -> npt.NDArray[np.bool_]:
    """Return bool [N], which texts say anything: one that is empty or of unknown words alone does not."""
    said: npt.NDArray[np.bool_] = np.isfinite(vectors_ND).all(axis=1) & (vectors_ND != 0).any(axis=1)
    return said
