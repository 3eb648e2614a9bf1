"""Ways to learn that are measured beside the package's recipes, and are not part of it.

Each is a recipe: options, ``fit`` and a predictor. They know catalogues and other recipes; how they are scored is
``approaches``. Legend: N rows, n of one category, D features, r components, A attributes, V values packed, B batch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from scipy import ndimage

from shelfwise.catalog import Catalog
from shelfwise.data.images import content_digest, open_image, read_bytes
from shelfwise.errors import ImageError
from shelfwise.files import cache_directory, replacing
from shelfwise.models.losses import Objective, value_counts
from shelfwise.predictions import Machine, Predictions, Predictor, Recipe, uniform
from shelfwise.recipes.features import features, seen
from shelfwise.recipes.probe import Probe
from shelfwise.recipes.routing import assemble, route
from shelfwise.recipes.space import Space, learn_space
from shelfwise.recipes.weights import write_arrays
from shelfwise.registry import REGISTRIES
from shelfwise.taxonomy import Taxonomy

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
#: A pixel is background if it is joined to the border by pixels this close to the border's colour (0 to 255).
CLOSE = 24.0
#: Share of the width and height that the view ``centre`` keeps.
MIDDLE = 0.8


@dataclass(frozen=True)
class Way:
    """What all of these have in common: a name, a table and whether fits may run side by side."""

    called: ClassVar[str] = ""
    concurrent: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """What the recipe is called."""
        return self.called

    def table(self) -> dict[str, Any]:
        """Return the options; those of a recipe inside as its own table."""
        found = {key: getattr(self, key) for key in self.__dataclass_fields__}
        inner = {key: v.table() for key, v in found.items() if isinstance(v, Recipe)}
        return {"name": self.name, **found, **inner}

    def load(self, directory: Path, taxonomy: Taxonomy) -> Predictor:
        """Say no: what is measured is not kept."""
        raise NotImplementedError(f"{self.name} is measured, not loaded")


@dataclass(eq=False)
class Answering:
    """A predictor made of a function from a catalogue to predictions, and of what is to be saved."""

    taxonomy: Taxonomy
    ask: Callable[[Catalog, Machine], Predictions]
    parts: tuple[Predictor, ...] = ()
    arrays: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def predict(self, catalog: Catalog, machine: Machine) -> Predictions:
        """Ask."""
        return self.ask(catalog, machine)

    def save(self, directory: Path) -> None:
        """Write the arrays, and each part into a folder of its own."""
        if self.arrays:
            write_arrays(directory, dict(self.arrays), {})
        for place, part in enumerate(self.parts):
            (directory / str(place)).mkdir()
            part.save(directory / str(place))


@dataclass(frozen=True)
class Majority(Way):
    """The shares of an attribute's values among the training labels, whatever the photo shows."""

    called: ClassVar[str] = "majority"
    concurrent: ClassVar[bool] = True

    def fit(self, train: Catalog, valid: Catalog | None, machine: Machine, seed: int) -> Answering:
        """Count."""
        shares: dict[str, Floats] = {}
        for category in train.present:
            count_V = value_counts(train, category).astype(np.float64)
            shares[category] = uniform(train.taxonomy, category, 1)[0]
            for part in train.taxonomy.slices(category):
                if count_V[part].sum():
                    shares[category][part] = count_V[part] / count_V[part].sum()

        def answer(category: str, rows: Ints) -> Floats:
            known = shares.get(category, uniform(train.taxonomy, category, 1)[0])
            return np.repeat(known[None], len(rows), axis=0)

        def ask(catalog: Catalog, machine: Machine) -> Predictions:
            routes = route(catalog, train.taxonomy, {}, _no_guess)
            return assemble(catalog, train.taxonomy, routes, answer)

        arrays = {str(at): shares[name] for at, name in enumerate(train.present)}
        return Answering(train.taxonomy, ask, arrays=arrays)


@dataclass(frozen=True)
class FrozenHeads(Way):
    """Registered heads on frozen features, trained by gradient steps (the probe solves its heads exactly).

    Attributes:
        heads: the kind of heads, and its options.
        backbone: of the features.
        components: of the probe's space.
        epochs, batch, rate, decay: of AdamW under one cycle of the rate.
        power: of the class weights.
    """

    called: ClassVar[str] = "frozen_heads"

    heads: str = "mlp"
    options: tuple[tuple[str, Any], ...] = (("hidden", 128), ("dropout", 0.3))
    backbone: str = "lite0"
    components: int = 512
    epochs: int = 12
    batch: int = 1024
    rate: float = 3e-3
    decay: float = 0.05
    power: float = 0.5

    def fit(self, train: Catalog, valid: Catalog | None, machine: Machine, seed: int) -> Answering:
        """Train on the rows with a readable picture, a category and a label."""
        backbone = REGISTRIES["backbone"].spec(self.backbone)
        vectors_ND = features(train, backbone, machine).vectors
        rows = np.flatnonzero(seen(vectors_ND) & train.labelled)
        part, taxonomy = train.select(rows), train.taxonomy
        space = learn_space(vectors_ND[rows], self.components)
        scaled_Nr = _spread(space, vectors_ND[rows])
        torch.manual_seed(seed)
        spec = REGISTRIES["heads"].spec(self.heads, **dict(self.options))
        heads = REGISTRIES["heads"].build(spec, taxonomy, scaled_Nr.shape[1])
        self._train(heads, part, scaled_Nr)
        heads.eval()

        def ask(catalog: Catalog, machine: Machine) -> Predictions:
            found = features(catalog, backbone, machine)

            def answer(category: str, rows: Ints) -> Floats:
                asked_nr = torch.from_numpy(_spread(space, found.vectors[rows]))
                code_n = torch.full((len(rows),), taxonomy.category_codes[category])
                with torch.inference_mode():
                    ((_, _, logits_nV),) = heads(asked_nr, code_n)
                parts = [logits_nV[:, piece].softmax(dim=1) for piece in taxonomy.slices(category)]
                out_nV: Floats = torch.cat(parts, dim=1).numpy()
                return out_nV

            routes = route(catalog, taxonomy, found.errors, _no_guess)
            return assemble(catalog, taxonomy, routes, answer)

        arrays = {"centre": space.centre, "scale": space.scale, "axes": space.axes}
        arrays |= {name: value.detach().numpy() for name, value in heads.named_parameters()}
        return Answering(taxonomy, ask, arrays=arrays)

    def _train(self, heads: torch.nn.Module, part: Catalog, scaled_Nr: Floats) -> None:
        taxonomy = part.taxonomy
        counts = {name: value_counts(part, name) for name in taxonomy.categories}
        spec = REGISTRIES["loss"].spec("cross_entropy")
        objective = Objective(taxonomy, spec, counts=counts, power=self.power)
        width = max(len(taxonomy.choices(name)) for name in taxonomy.categories)
        labels_NA = np.full((len(part), width), -1, np.int64)
        for name in part.present:
            labels_nA = part.labels(name)
            labels_NA[np.ix_(part.rows(name), np.arange(labels_nA.shape[1]))] = labels_nA
        inputs, codes = torch.from_numpy(scaled_Nr), torch.from_numpy(part.category.astype(np.int64))
        labels, steps = torch.from_numpy(labels_NA), self.epochs * -(-len(part) // self.batch)
        optimiser = torch.optim.AdamW(heads.parameters(), lr=self.rate, weight_decay=self.decay, fused=True)
        rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, self.rate, total_steps=steps)
        heads.train()
        for _ in range(self.epochs):
            order = torch.randperm(len(part))
            for start in range(0, len(part), self.batch):
                at_B = order[start : start + self.batch]
                optimiser.zero_grad(set_to_none=True)
                outputs = heads(inputs[at_B], codes[at_B])
                stated = [
                    (n, out, labels[at_B][rows, : len(taxonomy.choices(n))]) for n, rows, out in outputs
                ]
                objective(stated).backward()
                optimiser.step()
                rates.step()


def _spread(space: Space, vectors_ND: Floats) -> Floats:
    """Components with a mean variance of 1."""
    scaled_Nr: Floats = space.apply(vectors_ND)
    return scaled_Nr * np.float32(scaled_Nr.shape[1] ** 0.5)


def _no_guess(rows: Ints) -> tuple[Ints, Floats]:
    return np.zeros(len(rows), np.int64), np.zeros(len(rows), np.float32)


@dataclass(frozen=True)
class PerCategory(Way):
    """One model a category, each learnt from its own products."""

    called: ClassVar[str] = "per_category"

    recipe: Recipe = field(default_factory=Probe)

    def fit(self, train: Catalog, valid: Catalog | None, machine: Machine, seed: int) -> Answering:
        """Fit one model after the other."""
        models = {
            name: self.recipe.fit(train.select(train.rows(name)), None, machine, seed)
            for name in train.present
        }

        def ask(catalog: Catalog, machine: Machine) -> Predictions:
            parts = []
            for name in catalog.present:
                rows = catalog.rows(name)
                model = models.get(name, next(iter(models.values())))
                parts.append((rows, model.predict(catalog.select(rows), machine)))
            return Predictions.join(parts, catalog.ids)

        return Answering(train.taxonomy, ask, tuple(models.values()))


@dataclass(frozen=True)
class CompleteRows(Way):
    """A recipe that learns only from rows that state every attribute of their category."""

    called: ClassVar[str] = "complete_rows"
    concurrent: ClassVar[bool] = True

    recipe: Recipe = field(default_factory=Probe)

    def fit(self, train: Catalog, valid: Catalog | None, machine: Machine, seed: int) -> Predictor:
        """Drop the others."""
        whole = [train.rows(name)[(train.labels(name) >= 0).all(axis=1)] for name in train.present]
        return self.recipe.fit(train.select(np.sort(np.concatenate(whole))), None, machine, seed)


@dataclass(frozen=True)
class CutOut(Way):
    """A recipe that sees products cut out of their background, by the colour of the border."""

    called: ClassVar[str] = "cut_out"

    recipe: Recipe = field(default_factory=Probe)

    def fit(self, train: Catalog, valid: Catalog | None, machine: Machine, seed: int) -> Answering:
        """Cut the products out, then learn."""
        inner = self.recipe.fit(copied(train, "cut", machine), None, machine, seed)

        def ask(catalog: Catalog, machine: Machine) -> Predictions:
            return inner.predict(copied(catalog, "cut", machine), machine)

        return Answering(train.taxonomy, ask, (inner,))


@dataclass(frozen=True)
class Views(Way):
    """A recipe learnt from photos as they are, whose answers are means over views of the photo.

    Attributes:
        recipe: that learns.
        views: of ``CHANGES``, beside the photo itself.
    """

    called: ClassVar[str] = "views"

    recipe: Recipe = field(default_factory=Probe)
    views: tuple[str, ...] = ("mirror",)

    def fit(self, train: Catalog, valid: Catalog | None, machine: Machine, seed: int) -> Answering:
        """Fit the recipe."""
        inner = self.recipe.fit(train, None, machine, seed)

        def ask(catalog: Catalog, machine: Machine) -> Predictions:
            seen_as = [catalog, *(copied(catalog, view, machine) for view in self.views)]
            said = [inner.predict(view, machine) for view in seen_as]
            blocks = []
            for at, block in enumerate(said[0].blocks):
                each = [found.blocks[at] for found in said]
                opinions = zip(*(b.opinions for b in each), strict=True)
                kinds = tuple(_mean(pair) for pair in opinions)
                blocks.append(replace(block, probs=_mean([b.probs for b in each]), opinions=kinds))
            return replace(said[0], blocks=tuple(blocks))

        return Answering(train.taxonomy, ask, (inner,))


def _mean(parts: Sequence[Floats]) -> Floats:
    mean: npt.NDArray[np.float64] = np.mean(np.stack(parts), axis=0, dtype=np.float64)
    return mean.astype(np.float32)


def border_cut(picture: Image.Image) -> Image.Image:
    """Return the product on white: what is not joined to the border by pixels of the border's colour."""
    pixels_HWC = np.asarray(picture, dtype=np.float32)
    edge_PC = np.concatenate([pixels_HWC[0], pixels_HWC[-1], pixels_HWC[:, 0], pixels_HWC[:, -1]])
    away_HW = np.abs(pixels_HWC - np.median(edge_PC, axis=0)).max(axis=2)
    pieces_HW, _ = ndimage.label(away_HW < CLOSE)
    edges = (pieces_HW[0], pieces_HW[-1], pieces_HW[:, 0], pieces_HW[:, -1])
    outside = np.setdiff1d(np.concatenate(edges), [0])
    product_HW = ndimage.binary_opening(~np.isin(pieces_HW, outside))
    mask = Image.fromarray((255 * product_HW).astype(np.uint8))
    return Image.composite(picture, Image.new("RGB", picture.size, (255, 255, 255)), mask)


def centre(picture: Image.Image) -> Image.Image:
    """Return the middle of a picture, ``MIDDLE`` of its width and height."""
    wide, high = picture.size
    left, top = round(wide * (1 - MIDDLE) / 2), round(high * (1 - MIDDLE) / 2)
    return picture.crop((left, top, wide - left, high - top))


CHANGES: Mapping[str, Callable[[Image.Image], Image.Image]] = {
    "cut": border_cut,
    "mirror": ImageOps.mirror,
    "centre": centre,
}


def copied(catalog: Catalog, change: str, machine: Machine) -> Catalog:
    """Return the same rows with changed copies of their photos, which are kept in the cache."""
    folder = cache_directory(machine.cache) / "benchmarks" / "copies" / change
    folder.mkdir(parents=True, exist_ok=True)

    def copy(path: Path | None) -> Path | None:
        if path is None:
            return None
        try:
            data = read_bytes(path)
            kept = folder / f"{content_digest(data).hex()}.jpg"
            if not kept.exists():
                changed = CHANGES[change](open_image(data).image.convert("RGB"))
                with replacing(kept) as temporary, temporary.open("wb") as file:
                    changed.save(file, format="JPEG", quality=95)
        except ImageError:
            return path
        return kept

    return replace(catalog, images=tuple(copy(path) for path in catalog.images))
