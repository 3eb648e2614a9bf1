"""A training run: one network, from products to weights; resumed where it was interrupted.

It does not know how a step is taken (``train``), how answers are given (``tuned``) or which networks a fit needs
(``training``). A run has a folder, named by a digest of everything that it depends on: its checkpoints while it goes
on, its log, and its weights once it is finished.
Legend: N products, B of one batch, A attributes (the most of any category), V values packed.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shelfwise.catalog import Catalog
from shelfwise.data.batches import Batch, Batches, Products
from shelfwise.data.beside import Tokens
from shelfwise.data.pixels import Pixels, read_pixels
from shelfwise.errors import CatalogError
from shelfwise.files import cache_directory, replacing_directory
from shelfwise.models.backbones import Backbone, Preprocess, build_backbone, version
from shelfwise.models.distil import Teacher
from shelfwise.models.engines import settle_device
from shelfwise.models.losses import Objective, Sums, value_counts
from shelfwise.models.network import checkpoint_activations
from shelfwise.models.number_losses import NumberObjective
from shelfwise.models.pair import PairBackbone
from shelfwise.models.pair_tower import PairTower
from shelfwise.models.weights import load_by_name
from shelfwise.predictions import Machine
from shelfwise.recipes.head_start import can_start, start_heads
from shelfwise.recipes.looking import read_texts
from shelfwise.recipes.products import products_of, shown_weights, usable_rows
from shelfwise.recipes.scoring import Scoring
from shelfwise.recipes.tuned import Tuned
from shelfwise.recipes.tuned_network import Standardise, TunedNetwork, assemble_network, head_parts
from shelfwise.recipes.weights import read_arrays, write_arrays
from shelfwise.recipes.words import Words
from shelfwise.taxonomy import Taxonomy
from shelfwise.train import checkpoint
from shelfwise.train.anatomy import Anatomy, trained
from shelfwise.train.events import Event
from shelfwise.train.loop import train as train_loop
from shelfwise.train.place import process
from shelfwise.train.track import Record, epochs_of, read_jsonl, record_of, tracker, write_epochs

if TYPE_CHECKING:
    from shelfwise.recipes.finetune import FineTune

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
#: Part of every run's name; raised when the same options come to mean another training.
REVISION = 1
#: Options that do not change what is learnt.
HARMLESS = ("pixels", "pixel_bytes", "save_minutes", "test_flips")
#: Between checkpoints at the ends of epochs: short ones are sooner repeated than saved.
SAVE_MINUTES = 0.5
CHECKPOINTS, FINISHED, EPOCHS = "checkpoints", "finished", "epochs.jsonl"


@dataclass(frozen=True, eq=False)
class Shared:
    """What all networks of one fit share."""

    recipe: "FineTune"
    machine: Machine
    seed: int
    unlabelled: Catalog | None
    teacher: Mapping[str, tuple[str, Floats]]
    begin: Mapping[str, Tensor] = field(default_factory=dict)

    def pixels(self, catalog: Catalog, preprocess: Preprocess) -> Pixels:
        """Return the pictures of a catalogue under a preprocess."""
        table = json.dumps([preprocess.table(), version("pillow")], sort_keys=True)
        return read_pixels(
            catalog.images,
            preprocess.array,
            preprocess.size,
            hashlib.sha256(table.encode()).hexdigest()[:32],
            errors=catalog.image_errors,
            cache=cache_directory(self.machine.cache),
            mode=self.recipe.pixels,
            most_bytes=self.recipe.pixel_bytes,
            jobs=self.machine.jobs,
            progress=self.machine.progress,
        )


def training_preprocess(recipe: "FineTune", backbone: Backbone) -> Preprocess:
    """Return how training pictures are kept: as for evaluation, with a margin where they are cropped."""
    given = backbone.train_preprocess
    if not recipe.augment.crop.probability:
        return given
    height, width = (round(side * recipe.margin) for side in given.size)
    return replace(given, size=(height, width))


class Run:
    """The training of one network.

    Attributes:
        counts: per category, the labels of each packed value.
        learnt: notes for the report.
        epochs: what each epoch came to, once it is trained.
    """

    def __init__(
        self, shared: Shared, name: str, taxonomy: Taxonomy, train: Catalog, valid: Catalog | None
    ) -> None:
        self.shared, self.recipe, self.name, self.taxonomy = shared, shared.recipe, name, taxonomy
        self.backbone = build_backbone(self.recipe.backbone)
        self.numbers = taxonomy.number_names if self.recipe.learns_numbers(taxonomy) else ()
        tokenizer = self.backbone.text.tokenizer if isinstance(self.backbone, PairBackbone) else None
        self.words = None if tokenizer is None else Words(tokenizer, self.recipe.text)
        preprocess = training_preprocess(self.recipe, self.backbone)
        pixels = shared.pixels(train, preprocess)
        readable = usable_rows(train, pixels, self.words, self.numbers)
        if not len(readable):
            raise CatalogError(f"{train.source}: no product that can be learnt from has a readable picture")
        self.learnt = list(pixels.notes)
        self.epochs: list[Record] = []
        if len(readable) < len(train):
            first = next(iter(pixels.errors))
            self.learnt.append(
                f"{len(train) - len(readable):,} of {len(train):,} products were left out of training: their pictures "
                f"cannot be read, the first is that of {train.ids[first]!r} ({pixels.errors[first]})"
            )
        self.digests = [pixels.digests[row] for row in readable.tolist()]
        self.train = train.select(readable)
        self.products = self._products(self.train, pixels, readable)
        seen = (
            self.train if self.products.shown is None else self.train.select(self.products.shown.nonzero()[0])
        )
        self.counts = {category: value_counts(seen, category) for category in taxonomy.categories}
        self.valid: Products | None = None
        if valid is not None:
            scored = shared.pixels(valid, self.backbone.preprocess)
            rows = usable_rows(valid, scored, self.words, self.numbers)
            self.valid = self._products(valid.select(rows), scored, rows) if len(rows) else None
        self.extra: Products | None = None
        if shared.unlabelled is not None:
            others = shared.pixels(shared.unlabelled, preprocess)
            rows = np.flatnonzero(others.readable)
            self.extra = self._products(shared.unlabelled.select(rows), others, rows)
            self.digests += [others.digests[row] for row in rows.tolist()]

    def _products(self, catalog: Catalog, pixels: Pixels, rows: Ints) -> Products:
        return products_of(catalog, pixels, rows, self.taxonomy, self.words, self.numbers)

    @cached_property
    def folder(self) -> Path:
        """The folder of this run, named by all that it depends on."""
        recipe, shared = self.recipe, self.shared
        table = {key: value for key, value in recipe.table().items() if key not in HARMLESS}
        parts: list[Any] = [REVISION, table, self.taxonomy.hash, shared.seed, self.backbone.fingerprint]
        parts += [version("torch"), version("timm"), self.name]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode())
        for products in (self.products, self.valid):
            if products is not None:
                digest.update("\x1f".join(products.ids).encode())
                digest.update(products.category.tobytes() + products.labels.tobytes())
                if products.numbers is not None:
                    digest.update(products.numbers.tobytes())
                if isinstance(products.texts, Tokens):
                    digest.update(products.texts.ids.tobytes() + products.texts.mask.tobytes())
        for content in self.digests:
            digest.update(content or b"")
        for id_ in self.products.ids if shared.teacher else ():
            category, probs_V = shared.teacher.get(id_, ("", np.zeros(0, np.float32)))
            digest.update(category.encode() + probs_V.tobytes())
        for key, value in sorted(shared.begin.items()):
            digest.update(key.encode() + value.numpy().tobytes())
        runs = shared.machine.runs or cache_directory(shared.machine.cache) / "runs"
        return runs / f"finetune-{digest.hexdigest()[:16]}"

    def network(self) -> Tuned:
        """Return the trained network; a finished run is read, an interrupted one goes on."""
        network = assemble_network(self.recipe, self.backbone, self.taxonomy, self.counts, self.shared.seed)
        finished = self.folder / FINISHED
        if finished.is_dir():
            arrays, _ = read_arrays(finished)
            weights = {key: torch.from_numpy(value) for key, value in arrays.items()}
            network.load_state_dict(weights, strict=True)
            self.epochs = read_jsonl(finished / EPOCHS)
        else:
            self._train(network)
            if process()[0] == 0:
                self._finish(network, finished)
        network.eval()
        return self._tuned(network, self.recipe.test_flips)

    def _tuned(self, network: TunedNetwork, flips: bool) -> Tuned:
        backbone = self.backbone
        return Tuned(
            network, self.taxonomy, self.counts, backbone.preprocess, backbone.family, flips, self.words
        )

    def _finish(self, network: TunedNetwork, finished: Path) -> None:
        """Keep the weights and what the epochs came to; the checkpoints have served."""
        with replacing_directory(finished) as folder:
            state = network.state_dict()
            write_arrays(folder, {key: value.numpy() for key, value in state.items()}, {})
            write_epochs(folder / EPOCHS, self.epochs)
        shutil.rmtree(self.folder / CHECKPOINTS, ignore_errors=True)
        (self.folder / EPOCHS).unlink(missing_ok=True)

    def _train(self, network: TunedNetwork) -> None:
        """Train in place, with checkpoints."""
        recipe, machine = self.recipe, self.shared.machine
        self._start(network)
        if recipe.checkpointing:
            checkpoint_activations(network)
        if recipe.lora.rank:
            from shelfwise.models.lora import add_lora

            lora, seed = recipe.lora, self.shared.seed
            add_lora(network, rank=lora.rank, alpha=lora.alpha, targets=lora.targets, seed=seed)
        device = settle_device(machine.device)
        objective = Objective(
            self.taxonomy,
            recipe.choice_loss,
            counts=self.counts,
            power=recipe.class_weight,
            logit_adjustment=recipe.logit_adjustment,
        ).to(device)
        numbers = None
        if self.numbers:
            numbers = NumberObjective(self.taxonomy, recipe.number_loss, recipe.number_weight).to(device)
        anatomy = self._anatomy(network, objective, numbers)
        self._read(network, anatomy)
        found = checkpoint.load_last(self.folder / CHECKPOINTS)
        self.learnt += found.notes
        self.epochs = self._epochs_until(0 if found.state is None else found.state.step)
        events = train_loop(
            network,
            self._step(network, objective, numbers),
            self._batches(device),
            recipe.phases,
            recipe.optimiser,
            seed=self.shared.seed,
            precision=recipe.precision,
            device=device,
            validate=None if self.valid is None else Scoring(recipe, self.taxonomy, self.valid),
            resume=found.state,
            anatomy=anatomy,
        )
        # Closed here, not some time later: closing puts weights and the state of all draws back into place.
        with closing(events), tracker(machine.track, self.folder, machine.progress) as track:
            saved = time.monotonic()
            for event in events:
                track(event)
                if event.main:
                    saved = self._keep(event, saved)
        network.cpu()
        if recipe.lora.rank:
            from shelfwise.models.lora import merge_lora

            merge_lora(network)

    def _read(self, network: TunedNetwork, anatomy: Anatomy) -> None:
        """Read every text once, where no phase trains the tower that reads them."""
        names = {name for phase in self.recipe.phases for name in trained(anatomy, phase)[0]}
        tower = network.tower
        if not isinstance(tower, PairTower) or any(name.startswith("tower.text.") for name in names):
            return
        for which, products in (("products", self.products), ("valid", self.valid)):
            if products is not None and isinstance(products.texts, Tokens):
                texts = read_texts(tower, products.texts, self.shared.machine)
                setattr(self, which, replace(products, texts=texts))

    def _start(self, network: TunedNetwork) -> None:
        """Give tower and heads their start; a run that goes on needs the same one, to know that it is the same run."""
        recipe, begin = self.recipe, self.shared.begin
        if begin:
            own = {
                name: value for name, value in network.state_dict().items() if not name.startswith("tower.")
            }
            load_by_name(network, begin if recipe.start == "kept" else {**own, **begin}, recipe.start_from)
        if recipe.start == "kept" and isinstance(network.norm, Standardise):
            network.norm.settled = True
        choices = any(counts_V.any() for counts_V in self.counts.values())
        if recipe.start in ("random", "kept") or (
            recipe.start == "auto" and not (can_start(network) and choices)
        ):
            return
        network.eval()
        untuned = self._tuned(network, False)
        start_heads(
            untuned, self.train, self.shared.machine, l2=recipe.start_l2, class_weight=recipe.class_weight
        )

    def _keep(self, event: Event, saved: float) -> float:
        """Write a checkpoint where it is time for one; return when the last one was written."""
        if event.kind == "epoch":
            self.epochs += epochs_of([record_of(event)])
            write_epochs(self.folder / EPOCHS, self.epochs)
        minutes = (
            self.recipe.save_minutes if event.kind == "step" else min(SAVE_MINUTES, self.recipe.save_minutes)
        )
        if event.kind != "phase" and time.monotonic() - saved < 60 * minutes:
            return saved
        checkpoint.save(self.folder / CHECKPOINTS, event.state())
        return time.monotonic()

    def _epochs_until(self, step: int) -> list[Record]:
        """What the epochs came to that a run which goes on from a step has behind it."""
        path = self.folder / EPOCHS
        return [record for record in read_jsonl(path) if record["step"] <= step] if path.is_file() else []

    def _batches(self, device: str) -> Batches:
        recipe, products = self.recipe, self.products
        if recipe.sampler == "weighted":
            weights_N = shown_weights(products, self.taxonomy, self.counts, recipe.sampler_power)
            products = replace(products, weights=weights_N)
        number, count = process()
        mixes = bool(recipe.mixing.mixup or recipe.mixing.cutmix)
        return Batches(
            products,
            self.taxonomy,
            self.backbone.preprocess.size,
            recipe.batch,
            self.shared.seed,
            recipe.augment,
            recipe.mixing if mixes else None,
            sum(phase.epochs for phase in recipe.phases),
            self.extra,
            number,
            count,
            finish_ahead=device != "cpu",
        )

    def _step(
        self, network: TunedNetwork, objective: Objective, numbers: NumberObjective | None
    ) -> Callable[[Batch], Sums]:
        """From a batch to its loss."""
        mmd, distil, adversary = self.recipe.mmd, self.recipe.distil, self.recipe.adversary
        probs_NV = self._taught()

        def labelled(images_BHWC: Tensor, batch: Batch) -> Sums:
            """Of the pictures with labels; those without are only seen."""
            given = (images_BHWC, batch.category_B, *(() if batch.beside is None else (batch.beside,)))
            outputs = network(*given)
            teacher = None
            if probs_NV is not None:
                rows_B = batch.rows_B.cpu()
                probs_BV = probs_NV[rows_B].to(images_BHWC.device)
                teacher = Teacher(probs_BV, distil.temperature, distil.weight)
            sums = objective.sums(outputs, batch.labels_BA, mixed=batch.mixed, teacher=teacher)
            if numbers is not None and network.said is not None and batch.numbers_BK is not None:
                sums = sums.beside(numbers.sums(network.said, batch.numbers_BK, batch.category_B))
            return sums

        def step(batch: Batch) -> Sums:
            images, count = batch.images_BHWC, len(batch.category_B)
            images = adversary.moved(images, lambda moved: labelled(moved, batch).loss)
            if batch.unlabelled_UHWC is not None:
                images = torch.cat([images, batch.unlabelled_UHWC.to(images.dtype)])
            sums = labelled(images, batch)
            if batch.unlabelled_UHWC is None or network.seen is None:
                return sums
            return sums.plus(mmd.loss(network.seen[:count], network.seen[count:]))

        return step

    def _taught(self) -> Tensor | None:
        """The teacher's packed probabilities float32 [N, most values of any category]; NaN where it says nothing."""
        if not self.shared.teacher:
            return None
        most = max(self.taxonomy.width(name) for name in self.taxonomy.categories)
        probs_NV = np.full((len(self.products), most), np.nan, np.float32)
        for row, (id_, code) in enumerate(
            zip(self.products.ids, self.products.category.tolist(), strict=True)
        ):
            category, probs_V = self.shared.teacher.get(id_, ("", np.zeros(0, np.float32)))
            if category == self.taxonomy.categories[code]:
                probs_NV[row, : len(probs_V)] = probs_V
        return torch.from_numpy(probs_NV)

    def _anatomy(
        self, network: TunedNetwork, objective: Objective, numbers: NumberObjective | None
    ) -> Anatomy:
        groups = network.layer_groups
        if self.recipe.lora.rank:
            groups = tuple(
                (name, names if name == "heads" else tuple(n for n in names if "lora_" in n))
                for name, names in groups
            )
        pairs = objective.pairs if numbers is None else (*objective.pairs, *numbers.pairs)
        return Anatomy(groups, pairs, head_parts(network, objective.pairs))
