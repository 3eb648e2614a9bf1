"""Texts: what is written of a catalogue's products, and where it has a vector.

It knows listings and text encoders, not what is learnt. Legend: N products, D features.
"""

import numpy as np
import numpy.typing as npt

from shelfwise.catalog import Catalog

Floats = npt.NDArray[np.float32]


def product_texts(catalog: Catalog) -> list[str]:
    """Return the text of every product for an encoder, empty where nothing is written."""
    from shelfwise.data.text import encoder_text, read_listings

    return [encoder_text(listing) for listing in read_listings(catalog)]


def saying(vectors_ND: Floats) -> npt.NDArray[np.bool_]:
    """Return bool [N], which texts say anything: one that is empty or of unknown words alone does not."""
    said: npt.NDArray[np.bool_] = np.isfinite(vectors_ND).all(axis=1) & (vectors_ND != 0).any(axis=1)
    return said
