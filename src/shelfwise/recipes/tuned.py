"""Tuned: networks that were fine-tuned, ready to answer, saved and loaded.

It does not know how they were trained. Features go through the ``embed`` machinery: the same engines, cache and
pixels as for every other recipe, one picture at a time; heads run in torch on one thread.
Legend: B pictures, N rows, n of one category, D features, F of picture and text, V values packed, K Numbers, Q quantile
levels, C categories, H height, W width.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shelfwise.amounts import LEVELS, Amounts
from shelfwise.catalog import Catalog
from shelfwise.cells import EMPTY
from shelfwise.errors import BundleError, ImageError, UsageError
from shelfwise.models.backbones import Backbone, Preprocess, make_backbone
from shelfwise.models.number_heads import laplace_quantiles
from shelfwise.models.pair import PairBackbone
from shelfwise.models.towers import one_thread
from shelfwise.predictions import Machine, Predictions, uniform
from shelfwise.recipes.features import computed
from shelfwise.recipes.looking import Looking
from shelfwise.recipes.routing import Routes, assemble, route
from shelfwise.recipes.tuned_network import Served, TunedNetwork, architecture, assemble_network
from shelfwise.recipes.weights import read_arrays, write_arrays
from shelfwise.recipes.words import Words
from shelfwise.taxonomy import Taxonomy
from shelfwise.train.track import FILE, Record, read_jsonl, write_epochs

if TYPE_CHECKING:
    from shelfwise.recipes.finetune import FineTune
    from shelfwise.recipes.space import Space

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
#: Part of what is written; raised when it comes to mean something else.
FORMAT = 1
#: The name of the only network, where there is one for all categories.
ALL = "all"
#: Rows that go through the heads at once.
ROWS = 1024


@dataclass(frozen=True, eq=False)
class Tuned:
    """A fine-tuned network with what it takes to run it.

    Attributes:
        network: in evaluation, on the CPU.
        taxonomy: whose categories it has heads for: the whole, or one category.
        counts: per category, the labels of each packed value that it learnt from.
        preprocess: how photos become its input.
        family: ``conv`` or ``transformer``.
        flips: whether answers are averages over the picture and its mirror image.
        words: how texts become its input, where it reads them.
    """

    network: TunedNetwork
    taxonomy: Taxonomy
    counts: Mapping[str, Ints]
    preprocess: Preprocess
    family: str
    flips: bool
    words: Words | None = None

    @cached_property
    def backbone(self) -> Backbone:
        """The tuned features, as every other backbone's."""
        module = Served(self.network, self.flips)
        return replace(make_backbone("tuned", module, self.preprocess), family=self.family)

    def vectors(self, catalog: Catalog, machine: Machine) -> tuple[Floats, Mapping[int, ImageError]]:
        """Return features float32 [N, D], NaN where there are none, and what is wrong with pictures.

        With a text there are features of a product without a picture too.
        """
        if self.words is not None:
            return Looking(self.network, self.words, self.preprocess, self.flips)(catalog, machine)
        found = computed(catalog, self.backbone, machine)
        return found.vectors, found.errors

    def views(self, vectors_nD: Floats) -> list[tuple[Floats, Floats]]:
        """Return, of the picture and of its mirror image, what the heads of Choice attributes and of Numbers take."""
        views = np.split(vectors_nD, 2, axis=1) if self.flips else [vectors_nD]
        if self.words is None or self.network.informed:
            return [(view, view) for view in views]
        fusion: Any = self.network.tower.fusion
        return [(view[:, : -fusion.dimension], view[:, -fusion.dimension :]) for view in views]

    def pooled(self, vectors_ND: Floats) -> Floats:
        """Return the vectors of the pictures themselves, maps averaged, for telling categories apart."""
        vectors_ND = self.views(vectors_ND)[0][0]
        if self.network.takes == "vector":
            return vectors_ND
        pooled_ND: Floats = vectors_ND.reshape(len(vectors_ND), self._map_shape[0], -1).mean(axis=2)
        return pooled_ND

    @cached_property
    def _map_shape(self) -> tuple[int, int, int]:
        black = torch.zeros((1, *self.preprocess.size, 3), dtype=torch.uint8)
        with one_thread(), torch.inference_mode():
            channels, height, width = self.network.features(black).shape[1:]
        return int(channels), int(height), int(width)

    def answer(self, category: str, vectors_nD: Floats) -> Floats:
        """Return probabilities float32 [n, V]; an attribute that had no labels has its values equally likely."""
        probs_nV = uniform(self.taxonomy, category, len(vectors_nD))
        counts_V = self.counts.get(category)
        parts = [
            part
            for part in self.taxonomy.slices(category)
            if counts_V is not None and counts_V[part].sum() > 0
        ]
        if not parts:
            return probs_nV
        views = [choices_nD for choices_nD, _ in self.views(vectors_nD)]
        with one_thread(), torch.inference_mode():
            for start in range(0, len(vectors_nD), ROWS):
                here = slice(start, start + ROWS)
                logits = [self._logits(category, view[here]) for view in views]
                for part in parts:
                    shares = [each[:, part].double().softmax(dim=1) for each in logits]
                    probs_nV[here, part] = torch.stack(shares).mean(dim=0).float().numpy()
        return probs_nV

    def amounts(self, vectors_nD: Floats, code_n: Ints) -> Floats:
        """Return float32 [n, K, 2], location and logarithm of the scale of every Number of the taxonomy.

        Args:
            vectors_nD: features.
            code_n: of categories in the network's taxonomy; below 0 where none is known.
        """
        found = np.zeros((len(vectors_nD), len(self.taxonomy.number_names), 2), np.float32)
        views = [numbers_nF for _, numbers_nF in self.views(vectors_nD)]
        with one_thread(), torch.inference_mode():
            for at in range(len(vectors_nD)):
                # One row a call: what a product gets does not depend, to the last bit, on those beside it.
                code = torch.from_numpy(code_n[at : at + 1])
                said = [self.network.amounts(self._features(view[at : at + 1]), code) for view in views]
                found[at] = torch.stack(said).mean(dim=0)[0].numpy()
        return found

    def _features(self, vectors_nD: Floats) -> Tensor:
        features = torch.from_numpy(np.ascontiguousarray(vectors_nD))
        if self.network.takes == "map" and (
            self.words is None or vectors_nD.shape[1] == np.prod(self._map_shape)
        ):
            return features.view(len(features), *self._map_shape)
        return features

    def _logits(self, category: str, vectors_nD: Floats) -> Tensor:
        features = self._features(vectors_nD)
        codes = torch.full((len(features),), self.taxonomy.category_codes[category])
        ((_, rows, logits_nV),) = self.network.answer(features, codes)
        ordered = torch.empty_like(logits_nV)
        ordered[rows] = logits_nV
        return ordered


@dataclass(frozen=True, eq=False)
class Guess:
    """How the category of a product without one is guessed: a discriminant on tuned features.

    Attributes:
        net: the name of the network whose features are used.
        space: from features to components; ``None`` where only one category was learnt.
        weight_rC, bias_C: of the discriminant; ``-inf`` for a category that was not learnt.
    """

    net: str
    space: "Space | None"
    weight_rC: Floats
    bias_C: Floats

    def __call__(self, vectors_nD: Floats) -> tuple[Ints, Floats]:
        """Return category codes [n] and the probability of each."""
        from scipy.special import softmax

        if self.space is None:
            code = int(self.bias_C.argmax())
            return np.full(len(vectors_nD), code, np.int64), np.ones(len(vectors_nD), np.float32)
        reduced_nr = self.space.apply(vectors_nD)
        probs_nC = softmax(
            reduced_nr.astype(np.float64) @ self.weight_rC.astype(np.float64) + self.bias_C, axis=1
        )
        return probs_nC.argmax(axis=1), probs_nC.max(axis=1).astype(np.float32)


@dataclass(eq=False)
class TunedPredictor:
    """Fine-tuned networks ready to answer.

    Attributes:
        recipe: the options they were learnt with.
        taxonomy: of the answers.
        nets: one network for all categories, named ``all``, or one for each, by the category's code.
        guess: how the category of a product without one is guessed.
        learnt: notes for the report, such as on what could not be learnt from.
        training: the epochs it was trained in, as trackers write them.
        priors: of each Number that was learnt, float32 [C + 1, Q]: what is said where nothing else is known.
    """

    recipe: "FineTune"
    taxonomy: Taxonomy
    nets: Mapping[str, Tuned]
    guess: Guess
    learnt: tuple[str, ...] = ()
    training: tuple[Record, ...] = ()
    priors: Mapping[str, Floats] = field(default_factory=dict)

    def predict(self, catalog: Catalog, machine: Machine) -> Predictions:
        """Return probabilities for every row; rows without a readable picture carry the error."""
        seen = _Seen(catalog, machine, self.nets)
        errors: dict[int, ImageError] = dict(catalog.image_errors)
        for code in sorted(set(catalog.category.tolist())):
            if code >= 0 or code == EMPTY or self.priors:
                name = (self._net(code) if code >= 0 else None) or self.guess.net
                errors |= seen.look(name, np.flatnonzero(catalog.category == code))

        def guess(rows: Ints) -> tuple[Ints, Floats]:
            net = self.nets[self.guess.net]
            return self.guess(net.pooled(seen.take(self.guess.net, rows)))

        def answer(category: str, rows: Ints) -> Floats:
            name = self._net(self.taxonomy.category_codes[category])
            if name is None:
                return uniform(self.taxonomy, category, len(rows))
            seen.look(name, rows)
            return self.nets[name].answer(category, seen.take(name, rows))

        routes = route(catalog, self.taxonomy, errors, guess)
        found = assemble(catalog, self.taxonomy, routes, answer)
        return replace(found, amounts=self._amounts(catalog, routes, seen)) if self.priors else found

    def _amounts(self, catalog: Catalog, routes: Routes, seen: "_Seen") -> tuple[Amounts, ...]:
        """Say what each Number is: off picture and text, or the one that is there, or as its category's are."""
        code_N = np.maximum(catalog.category.astype(np.int64), -1)
        for category, rows in routes.rows.items():
            code_N[rows] = self.taxonomy.category_codes[category]
        said: dict[str, dict[int, Floats]] = {name: {} for name in self.priors}
        for code in np.unique(code_N).tolist():
            name = (self._net(code) if code >= 0 else None) or self.guess.net
            net, rows = self.nets[name], np.flatnonzero(code_N == code)
            seen.look(name, rows)
            rows = rows[[int(row) in seen.found[name] for row in rows]]
            own = net.taxonomy.category_codes.get(self.taxonomy.categories[code], -1) if code >= 0 else -1
            found_nK2 = net.amounts(seen.take(name, rows), np.full(len(rows), own)) if len(rows) else None
            for at, number in enumerate(net.taxonomy.number_names):
                if found_nK2 is not None and number in said:
                    parts = found_nK2[:, at, 0], found_nK2[:, at, 1]
                    quantiles_nQ = laplace_quantiles(self.taxonomy.number(number), *parts)
                    said[number] |= dict(zip(rows.tolist(), quantiles_nQ, strict=True))
        amounts = []
        for number, prior_CQ in self.priors.items():
            rows = np.flatnonzero(catalog.having(number))
            cells = [said[number].get(row, prior_CQ[code_N[row]]) for row in rows.tolist()]
            amounts.append(Amounts(number, rows, np.array(cells, np.float32).reshape(-1, len(LEVELS))))
        return tuple(amounts)

    def _net(self, code: int) -> str | None:
        return ALL if ALL in self.nets else str(code) if str(code) in self.nets else None

    def save(self, directory: Path) -> None:
        """Write all arrays."""
        arrays: dict[str, npt.NDArray[Any]] = {}
        nets: dict[str, Any] = {}
        for name, net in self.nets.items():
            arrays |= {
                f"{name}/{key}": value.detach().cpu().contiguous().numpy()
                for key, value in net.network.state_dict().items()
            }
            arrays |= {
                f"{name}#{self.taxonomy.category_codes[category]}": counts_V
                for category, counts_V in net.counts.items()
            }
            nets[name] = {"preprocess": net.preprocess.table(), "family": net.family}
            if net.words is not None:
                nets[name]["tokens"] = net.words.tokenizer.fingerprint()
        arrays |= {f"prior.{at}": prior_CQ for at, prior_CQ in enumerate(self.priors.values())}
        arrays |= {"category.weight": self.guess.weight_rC, "category.bias": self.guess.bias_C}
        if self.guess.space is not None:
            for part in ("centre", "scale", "axes"):
                arrays[f"category.{part}"] = getattr(self.guess.space, part)
        texts = {"format": FORMAT, "nets": nets, "guess": self.guess.net, "learnt": list(self.learnt)}
        texts["priors"] = list(self.priors)
        write_arrays(directory, arrays, {key: json.dumps(value) for key, value in texts.items()})
        if self.training:
            write_epochs(directory / FILE, self.training)


def load_tuned(recipe: "FineTune", directory: Path, taxonomy: Taxonomy) -> TunedPredictor:
    """Read what ``TunedPredictor.save`` wrote.

    Raises:
        BundleError: the file is missing or broken, or does not fit the recipe or the taxonomy.
    """
    from shelfwise.recipes.space import Space

    arrays, texts = read_arrays(directory)
    try:
        told = {key: json.loads(value) for key, value in texts.items()}
        if told["format"] != FORMAT:
            raise ValueError(f"format {told['format']}, this version reads {FORMAT}")
        nets = {
            name: _load_net(recipe, taxonomy, name, arrays, about) for name, about in told["nets"].items()
        }
        space = None
        if "category.centre" in arrays:
            space = Space(arrays["category.centre"], arrays["category.scale"], arrays["category.axes"])
        guess = Guess(told["guess"], space, arrays["category.weight"], arrays["category.bias"])
        course = read_jsonl(directory / FILE) if (directory / FILE).exists() else []
        priors = {number: arrays[f"prior.{at}"] for at, number in enumerate(told.get("priors", ()))}
        return TunedPredictor(recipe, taxonomy, nets, guess, tuple(told["learnt"]), tuple(course), priors)
    except (KeyError, TypeError, ValueError, RuntimeError, UsageError) as error:
        raise BundleError(f"{directory}: not fine-tuned networks that can be read: {error}") from error


def _load_net(
    recipe: "FineTune", taxonomy: Taxonomy, name: str, arrays: Mapping[str, Any], about: Mapping[str, Any]
) -> Tuned:
    preprocess = Preprocess.from_table(about["preprocess"])
    own = taxonomy if name == ALL else part_of(taxonomy, taxonomy.categories[int(name)])
    counts = {
        category: arrays[f"{name}#{code}"]
        for category, code in taxonomy.category_codes.items()
        if f"{name}#{code}" in arrays
    }
    backbone = architecture(recipe.backbone, preprocess)
    words = None
    if isinstance(backbone, PairBackbone):
        words = Words(backbone.text.tokenizer, recipe.text)
        if words.tokenizer.fingerprint() != about["tokens"]:
            raise ValueError("the tokenizer is another one than it was trained with")
    network = assemble_network(recipe, backbone, own, counts, 0)
    weights = {
        key.removeprefix(f"{name}/"): torch.from_numpy(value.copy())
        for key, value in arrays.items()
        if key.startswith(f"{name}/")
    }
    network.load_state_dict(weights, strict=True)
    network.eval()
    return Tuned(network, own, counts, preprocess, about["family"], recipe.test_flips, words)


def part_of(taxonomy: Taxonomy, category: str) -> Taxonomy:
    """Return the taxonomy of one category; its code there is 0."""
    return replace(taxonomy, entries={category: taxonomy.entries[category]})


class _Seen:
    """Features of a catalogue's rows, each computed once per network."""

    def __init__(self, catalog: Catalog, machine: Machine, nets: Mapping[str, Tuned]) -> None:
        self.catalog, self.machine, self.nets = catalog, machine, nets
        self.found: dict[str, dict[int, Floats]] = {}

    def look(self, name: str, rows: Ints | Sequence[int]) -> dict[int, ImageError]:
        """Compute what is not there yet; return what cannot be read."""
        known = self.found.setdefault(name, {})
        new = [int(row) for row in rows if int(row) not in known]
        if not new:
            return {}
        vectors_nD, errors = self.nets[name].vectors(self.catalog.select(new), self.machine)
        known.update(
            {row: vectors_nD[at] for at, row in enumerate(new) if np.isfinite(vectors_nD[at, -1:]).any()}
        )
        return {new[at]: error for at, error in errors.items()}

    def take(self, name: str, rows: Ints) -> Floats:
        """Return features [n, D]."""
        return np.stack([self.found[name][int(row)] for row in rows])
