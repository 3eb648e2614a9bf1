"""Fitted probes: what answers by heads on frozen vectors, of photos, of texts or of both.

It does not know how anything was learnt.
Legend: N rows, n of one category, D features, r components, C categories, V values packed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from shelfwise.answers import RowError
from shelfwise.catalog import Catalog
from shelfwise.errors import ImageError, listing
from shelfwise.models.text_encoders import FittedText, build_text_encoder
from shelfwise.predictions import Machine, Predictions, uniform
from shelfwise.recipes.experts import Expert, filled, pooled
from shelfwise.recipes.features import check_features, features, seen
from shelfwise.recipes.routing import assemble, route
from shelfwise.recipes.texts import product_texts, saying
from shelfwise.recipes.value_names import start_from_names
from shelfwise.recipes.weights import read_arrays, write_arrays
from shelfwise.taxonomy import Taxonomy

if TYPE_CHECKING:
    from shelfwise.recipes.probe import Probe

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
#: The folder of the text encoder, and what stands before the names of arrays, by expert.
TEXT, PREFIX = "text", {"image": "", "text": "text."}
NAMES = "names."


@dataclass(frozen=True, eq=False)
class _Given:
    """What an expert is given.

    Attributes:
        expert: who answers.
        there: bool [N], the rows it has a vector of.
        components: float32 [N, r].
    """

    expert: Expert
    there: npt.NDArray[np.bool_]
    components: Floats


@dataclass(frozen=True, eq=False)
class _Asked:
    """The rows of a catalogue as the experts see them.

    Attributes:
        given: by expert.
        photos: float32 [N, D], NaN where there is none; ``None`` where nobody looks at them.
        first: int64 [N], as ``Features`` has it; the row itself where texts are read too.
        errors: why photos cannot be read, by row.
        notes: for the user.
    """

    given: Mapping[str, _Given]
    photos: Floats | None
    first: Ints
    errors: Mapping[int, ImageError]
    notes: tuple[str, ...]


class ProbePredictor:
    """Softmax regressions ready to answer.

    Attributes:
        recipe: how they were learnt.
        taxonomy: what can be answered.
        experts: ``image``, ``text`` or both.
        encoder: of texts, where they are read.
        names: category to float32 [V, D], the vectors of the names of values nobody has labelled, NaN for others.
        learnt_on: the identity of the photos' vectors.
    """

    def __init__(
        self,
        recipe: "Probe",
        taxonomy: Taxonomy,
        experts: Mapping[str, Expert],
        encoder: FittedText | None,
        names: Mapping[str, Floats],
        learnt_on: Mapping[str, str],
    ) -> None:
        self.recipe, self.taxonomy, self.experts, self.encoder = recipe, taxonomy, experts, encoder
        self.names, self.learnt_on = names, learnt_on

    def predict(self, catalog: Catalog, machine: Machine) -> Predictions:
        """Return probabilities for every row; one without a readable photo carries the error, unless its text is read.

        A row with one of photo and text is answered from it alone; the notes name those without a photo.
        """
        asked = self._asked(catalog, machine)
        known_N = np.any([each.there for each in asked.given.values()], axis=0)
        silent: dict[int, ImageError | RowError] = {
            row: asked.errors.get(row) or self._unknown(catalog) for row in np.flatnonzero(~known_N).tolist()
        }

        def guess(rows: Ints) -> tuple[Ints, Floats]:
            logs_nC = np.zeros((len(rows), len(self.taxonomy.categories)))
            count_n = np.zeros(len(rows))
            for each in asked.given.values():
                at = np.flatnonzero(each.there[rows])
                logs_nC[at] += each.expert.log_categories(each.components[rows[at]])
                count_n[at] += 1
            probs_nC = softmax(logs_nC / count_n[:, None], axis=1)
            return probs_nC.argmax(axis=1), probs_nC.max(axis=1).astype(np.float32)

        def answer(category: str, rows: Ints) -> tuple[Floats, ...]:
            return self._answer(category, rows, asked)

        routes = route(catalog, self.taxonomy, silent, guess)
        blind = sorted(set(asked.errors) - set(routes.errors))
        notes = asked.notes
        if blind:
            names = listing((catalog.ids[row] for row in blind), most=5)
            notes += (
                f"{len(blind)} products without a readable photo are answered from their text alone: {names}",
            )
        return assemble(catalog, self.taxonomy, routes, answer, notes)

    def _asked(self, catalog: Catalog, machine: Machine) -> _Asked:
        """Compute the vectors of photos and texts."""
        given: dict[str, _Given] = {}
        photos, errors, notes = None, dict[int, ImageError](), tuple[str, ...]()
        row_N = first_N = np.arange(len(catalog))

        def add(name: str, vectors_ND: Floats, there_N: npt.NDArray[np.bool_], first_N: Ints = row_N) -> None:
            expert = self.experts.get(name)
            if expert is not None:
                once_N = first_N == row_N
                reduced_Nr = expert.components(vectors_ND, there_N & once_N)
                given[name] = _Given(expert, there_N, reduced_Nr if once_N.all() else reduced_Nr[first_N])

        if "image" in self.recipe.choice_inputs:
            found = features(catalog, self.recipe.backbone, machine)
            photos, errors, notes = found.vectors, dict(found.errors), check_features(self.learnt_on, found)
            add("image", photos, seen(photos), found.first)
            first_N = found.first if self.encoder is None else row_N
        if self.encoder is not None:
            vectors_ND = self.encoder.encode(product_texts(catalog), machine)
            add("text", vectors_ND, saying(vectors_ND))
        return _Asked(given, photos, first_N, errors, notes)

    def _unknown(self, catalog: Catalog) -> RowError:
        """Say why a row whose photo can be read, or is not looked at, has no answer."""
        column = next(iter(catalog.schema.roles.texts), "text")
        return RowError(column, "no text: nothing is written of the product in words that were learnt from")

    def _answer(self, category: str, rows: Ints, asked: _Asked) -> tuple[Floats, ...]:
        """Return float32 [n, V], the probabilities; and of several opinions their pool, then each.

        Rows that show the same file are answered once.
        """
        shown, back_n = np.unique(asked.first[rows], return_inverse=True)
        if len(shown) == len(rows):
            return self._said(category, rows, asked)
        return tuple(said_nV[back_n] for said_nV in self._said(category, shown, asked))

    def _said(self, category: str, rows: Ints, asked: _Asked) -> tuple[Floats, ...]:
        said: list[tuple[tuple[Floats, ...], npt.NDArray[np.bool_]]] = []
        for name in self.recipe.choice_inputs:
            each = asked.given.get(name)
            if each is None:
                said.append(((), np.zeros(len(rows), np.bool_)))
                continue
            there_n = each.there[rows]
            told = each.expert.opinions(self.taxonomy, category, each.components[rows[there_n]])
            said.append((told, there_n))
        opinions = filled(self.taxonomy, category, said)
        if opinions:
            weights = next(iter(self.experts.values())).weights
            pool_nV = pooled(self.taxonomy, category, opinions, weights)
        else:
            pool_nV = uniform(self.taxonomy, category, len(rows))
        if category in self.names and asked.photos is not None:
            for probs_nV in (pool_nV, *opinions):
                start_from_names(probs_nV, self.taxonomy, category, self.names[category], asked.photos[rows])
        return (pool_nV, *opinions) if len(opinions) > 1 else (pool_nV,)

    def save(self, directory: Path) -> None:
        """Write all arrays, and the text encoder into a folder of its own."""
        arrays: dict[str, npt.NDArray[Any]] = {}
        for name, expert in self.experts.items():
            found = expert.arrays(self.taxonomy)
            arrays |= {PREFIX[name] + key: array for key, array in found.items()}
        for category, names_VD in self.names.items():
            arrays[f"{NAMES}{self.taxonomy.category_codes[category]}"] = names_VD
        write_arrays(directory, arrays, self.learnt_on)
        if self.encoder is not None:
            (directory / TEXT).mkdir(exist_ok=True)
            self.encoder.save(directory / TEXT)


def load_probe(recipe: "Probe", directory: Path, taxonomy: Taxonomy) -> ProbePredictor:
    """Read what ``ProbePredictor.save`` wrote."""
    arrays, metadata = read_arrays(directory)
    experts: dict[str, Expert] = {}
    for name in recipe.choice_inputs:
        prefix = PREFIX[name]
        own = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
        if "centre" in own:
            experts[name] = Expert.of(own, taxonomy, recipe.look_alikes, plain=name == "text")
    encoder = None
    if "text" in recipe.choice_inputs:
        encoder = build_text_encoder(recipe.text_encoder).load(directory / TEXT)
    codes = {category: f"{NAMES}{code}" for category, code in taxonomy.category_codes.items()}
    names = {category: arrays[key] for category, key in codes.items() if key in arrays}
    return ProbePredictor(recipe, taxonomy, experts, encoder, names, metadata)
