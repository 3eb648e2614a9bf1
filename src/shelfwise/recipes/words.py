"""Words: the texts of a catalogue as the tokens that a network reads.

They know no network. A product whose columns say nothing has no text, which is not the same as an empty one.
Legend: N products, T tokens.
"""

from dataclasses import dataclass

import numpy as np

from shelfwise.catalog import Catalog
from shelfwise.data.beside import Tokens
from shelfwise.data.text import TextOptions, encoder_text, read_listings
from shelfwise.models.text_encoders import Tokenizer, readable


@dataclass(frozen=True, eq=False)
class Words:
    """How a product's text becomes tokens.

    Attributes:
        tokenizer: of the network.
        options: how listings are read.
    """

    tokenizer: Tokenizer
    options: TextOptions

    def rows(self, catalog: Catalog) -> list[list[int] | None]:
        """Return the token ids of every product, ``None`` where there is no text; each depends on its row alone."""
        texts = readable([encoder_text(listing) for listing in read_listings(catalog, self.options)])
        there = [text for text in texts if text]
        said = iter(self.tokenizer.rows(there) if there else ())
        return [next(said) if text else None for text in texts]

    def tokens(self, catalog: Catalog) -> Tokens:
        """Return the tokens of all products side by side."""
        rows = self.rows(catalog)
        ids_NT, mask_NT = self.tokenizer.filled([row or [self.tokenizer.pad] for row in rows])
        mask_NT[[at for at, row in enumerate(rows) if row is None]] = False
        return Tokens(ids_NT.astype(np.int32), mask_NT, self.tokenizer.fixed)
