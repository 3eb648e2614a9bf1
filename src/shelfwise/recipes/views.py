"""Views: what is seen of products: terms and a vector of the text, a vector of the photo, facts, category, brand.

They know no number and no label. What is missing is NaN, or a row of no terms; it is never filled in.
Legend: N products, V terms, D features of a text, P of a photo, F facts.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shelfwise.catalog import Catalog
from shelfwise.data.brands import UNKNOWN, Brands, learn_brands
from shelfwise.data.text import Listing, TextOptions, encoder_text, read_listings
from shelfwise.errors import BundleError, ImageError
from shelfwise.files import write_text
from shelfwise.models.text_encoders import FittedText, build_text_encoder
from shelfwise.models.tfidf import Terms, learn_terms
from shelfwise.predictions import Machine
from shelfwise.recipes.features import check_features, features
from shelfwise.recipes.space import Space, learn_space
from shelfwise.recipes.weights import read_arrays, write_arrays
from shelfwise.registry import Spec

Floats = npt.NDArray[np.float32]
Float = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
#: The terms that texts are compared by. A term of one text counts: what is rare may be a brand or a model.
GRAMS = (("words", (1, 2)), ("characters", (4, 4)))
LEAST_TEXTS, MOST_TERMS = 1, 50_000
#: Principal components of photos that photos are compared by, and the steps of 1 that they are rounded to: what
#: differs by rounding only is the same for a tree, and half precision keeps it exactly.
COMPONENTS, STEPS = 256, 1024
#: Of these, how many trees see: they find little in more.
TREE_PHOTOS = 64
FILE = "views.json"
#: Facts of every product; those of units and flags that are known follow.
FACTS = (
    "value",
    "size",
    "pack",
    "name characters",
    "name words",
    "name digits",
    "name capitals",
    "size words",
    "bullets",
    "description characters",
    "digits",
    "has text",
    "has photo",
)


@dataclass(frozen=True)
class Sight:
    """What is looked at.

    Attributes:
        backbone: of photos; ``None`` for not at all.
        text: encoder of texts; ``None`` to read no text at all.
        terms: whether terms of texts are wanted.
        listing: how texts are read.
    """

    backbone: Spec | None
    text: Spec | None
    terms: bool
    listing: TextOptions

    def read(self, catalog: Catalog) -> tuple[Listing, ...]:
        """Return the listing of every product, empty ones where no text is read."""
        if self.text is None:
            return (Listing(),) * len(catalog)
        return read_listings(catalog, self.listing)


@dataclass(frozen=True, eq=False)
class Seen:
    """What is seen of N products.

    Attributes:
        terms: sparse float32 [N, V], rows of length 1; without terms where no text is.
        vectors: float32 [N, D], of the texts; NaN without text.
        photos: float32 [N, P], of length 1; NaN without photo.
        facts: float32 [N, F].
        category: int64 [N], -1 for none.
        brands: of each product, ``unknown`` for none.
        listings: of each product.
        has_text, has_photo: bool [N].
        errors: row position to what is wrong with its photo.
        notes: for the user.
    """

    terms: Any
    vectors: Floats
    photos: Floats
    facts: Floats
    category: Ints
    brands: tuple[str, ...]
    listings: tuple[Listing, ...]
    has_text: npt.NDArray[np.bool_]
    has_photo: npt.NDArray[np.bool_]
    errors: Mapping[int, ImageError]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.listings)

    def select(self, rows: Ints) -> "Seen":
        """Return these products, in this order; errors and notes aside."""
        return Seen(
            self.terms[rows],
            self.vectors[rows],
            self.photos[rows],
            self.facts[rows],
            self.category[rows],
            tuple(self.brands[i] for i in rows.tolist()),
            tuple(self.listings[i] for i in rows.tolist()),
            self.has_text[rows],
            self.has_photo[rows],
            {},
        )


@dataclass(frozen=True, eq=False)
class Views:
    """What it takes to look at products.

    Attributes:
        sight: what is looked at.
        terms: by kind; empty where none are wanted.
        encoder: of texts.
        space: from a backbone's vector to components; ``None`` without photos.
        spread: float64 [P], what the components are divided by.
        brands: that are known.
        units, flags: that are facts.
        learnt_on: the identity of the photos' vectors.
    """

    sight: Sight
    terms: tuple[Terms, ...]
    encoder: FittedText | None
    space: Space | None
    brands: Brands
    units: tuple[str, ...]
    flags: tuple[str, ...]
    learnt_on: Mapping[str, str]

    @classmethod
    def learn(cls, sight: Sight, train: Catalog, machine: Machine, seed: int) -> tuple["Views", Seen]:
        """Learn terms, brands and components of photos from products in the order given, and look at them."""
        listings = sight.read(train)
        texts = [encoder_text(listing) for listing in listings]
        said = [text for text in texts if text]
        terms: tuple[Terms, ...] = ()
        if sight.terms:
            learnt = (learn_terms(said, kind, grams, LEAST_TEXTS, MOST_TERMS) for kind, grams in GRAMS)
            terms = tuple(part for part, _ in learnt)
        encoder = build_text_encoder(sight.text).fit(texts, seed=seed) if sight.text is not None else None
        space, learnt_on = None, {}
        if sight.backbone is not None:
            found = features(train, sight.backbone, machine)
            learnt_on = found.identity()
            readable = np.isfinite(found.vectors).all(axis=1)
            if readable.any():
                space = learn_space(found.vectors[readable], COMPONENTS)
        brands = learn_brands([item.name for item in listings], [item.brand for item in listings])
        units = tuple(sorted({item.unit for item in listings} - {""}))
        flags = tuple(sorted({flag for item in listings for flag in item.flags}))
        views = cls(sight, terms, encoder, space, brands, units, flags, learnt_on)
        return views, views._see(train, listings, texts, machine)

    def see(self, catalog: Catalog, machine: Machine) -> Seen:
        """Look at products; a row depends on its product alone.

        Raises:
            PredictionError: the backbone is not the one that was learnt with.
        """
        listings = self.sight.read(catalog)
        return self._see(catalog, listings, [encoder_text(listing) for listing in listings], machine)

    def _see(
        self, catalog: Catalog, listings: tuple[Listing, ...], texts: list[str], machine: Machine
    ) -> Seen:
        has_text = np.array([bool(text) for text in texts], bool)
        vectors_ND = np.zeros((len(texts), 0), np.float32)
        if self.encoder is not None:
            vectors_ND = self.encoder.encode(texts, machine)
        photos_NP, errors, notes = self._photos(catalog, machine)
        has_photo = np.isfinite(photos_NP).all(axis=1) & (photos_NP.shape[1] > 0)
        facts_NF = np.array([self._facts(listing) for listing in listings], np.float32)
        facts_NF = facts_NF.reshape(len(listings), len(FACTS) + len(self.units) + len(self.flags))
        facts_NF[:, FACTS.index("has text")] = has_text
        facts_NF[:, FACTS.index("has photo")] = has_photo
        return Seen(
            self._terms(texts),
            vectors_ND,
            photos_NP,
            facts_NF,
            np.maximum(catalog.category.astype(np.int64), -1),
            tuple(self.brands.find(item.name, item.brand) for item in listings),
            listings,
            has_text,
            has_photo,
            errors,
            notes,
        )

    def _terms(self, texts: list[str]) -> Any:
        """Sparse [N, V]: each kind of terms has half of a row's squared length."""
        from scipy.sparse import csr_matrix, hstack

        if not self.terms:
            return csr_matrix((len(texts), 0), dtype=np.float32)
        parts = hstack([part.weigh(texts) for part in self.terms], format="csr", dtype=np.float32)
        return parts * np.float32(1 / math.sqrt(len(self.terms)))

    def _photos(
        self, catalog: Catalog, machine: Machine
    ) -> tuple[Floats, Mapping[int, ImageError], tuple[str, ...]]:
        """Components of length 1, rounded."""
        if self.sight.backbone is None:
            return np.zeros((len(catalog), 0), np.float32), {}, ()
        found = features(catalog, self.sight.backbone, machine)
        notes = check_features(self.learnt_on, found)
        readable = np.isfinite(found.vectors).all(axis=1)
        width = self.space.axes.shape[1] if self.space is not None else 0
        photos_NP = np.full((len(catalog), width), np.nan, np.float32)
        if self.space is not None:
            reduced_nP = self.space.apply(found.vectors[readable]).astype(np.float64)
            lengths_n = np.maximum(np.linalg.norm(reduced_nP, axis=1), 1e-12)
            photos_NP[readable] = np.round(reduced_nP / lengths_n[:, None] * STEPS) / STEPS
        return photos_NP, found.errors, notes

    def _facts(self, listing: Listing) -> list[float]:
        name, description = listing.name, listing.description
        words, digits = name.split(), sum(map(str.isdigit, name))
        known = [
            math.log1p(listing.value) if listing.value >= 0 else math.nan,
            math.log1p(listing.size) if listing.size >= 0 else math.nan,
            math.log(max(listing.pack, 1)),
            len(name),
            len(words),
            digits,
            sum(map(str.isupper, words)),
            len(listing.size_words),
            len(listing.bullets),
            len(description),
            digits + sum(map(str.isdigit, description)),
            0.0,
            0.0,
        ]
        known += [float(listing.unit == unit) for unit in self.units]
        return known + [float(flag in listing.flags) for flag in self.flags]

    def save(self, directory: Path) -> None:
        """Write what was learnt."""
        arrays: dict[str, npt.NDArray[Any]] = {f"idf.{part.kind}": part.idf for part in self.terms}
        if self.space is not None:
            arrays |= {"centre": self.space.centre, "scale": self.space.scale, "axes": self.space.axes}
        write_arrays(directory, arrays, self.learnt_on)
        card = {
            "terms": {part.kind: list(part.terms) for part in self.terms},
            "brands": self.brands.table(),
            "units": self.units,
            "flags": self.flags,
        }
        write_text(directory / FILE, json.dumps(card, ensure_ascii=False, sort_keys=True) + "\n")
        if self.encoder is not None:
            (directory / "text").mkdir()
            self.encoder.save(directory / "text")

    @classmethod
    def load(cls, sight: Sight, directory: Path) -> "Views":
        """Read what ``save`` wrote.

        Raises:
            BundleError: it is missing or broken.
        """
        arrays, learnt_on = read_arrays(directory)
        try:
            card = json.loads((directory / FILE).read_text(encoding="utf-8"))
            terms = tuple(
                Terms(kind, grams, tuple(card["terms"][kind]), arrays[f"idf.{kind}"])
                for kind, grams in GRAMS
                if kind in card["terms"]
            )
            brands = Brands.from_table(card["brands"])
            units, flags = tuple(card["units"]), tuple(card["flags"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{directory / FILE}: cannot be read: {error}") from error
        encoder = build_text_encoder(sight.text).load(directory / "text") if sight.text is not None else None
        space = Space(arrays["centre"], arrays["scale"], arrays["axes"]) if "axes" in arrays else None
        return cls(sight, terms, encoder, space, brands, units, flags, learnt_on)


def brand_key(brand: str) -> str:
    """Return a brand as it is counted, empty for an unknown one."""
    return "" if brand == UNKNOWN else brand.casefold()
