"""Fine-tune: backbone and heads trained together, in phases, on pictures, or on pictures and texts.

These are the options and nothing more: how a network learns from them is in ``training``, how it answers in
``tuned``.
"""

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from shelfwise.catalog import Catalog
from shelfwise.config import BackboneSpec, HeadsSpec, LossSpec, NumberLossSpec, Options
from shelfwise.data.augment import Augment, Mixing
from shelfwise.data.pixels import MOST_BYTES, Mode
from shelfwise.data.text import TextOptions
from shelfwise.errors import UsageError
from shelfwise.models.adversary import Adversary
from shelfwise.models.mmd import MMD
from shelfwise.models.number_heads import NumberOptions
from shelfwise.models.pair import pair_specs
from shelfwise.predictions import Machine, Predictor
from shelfwise.registry import REGISTRIES, register
from shelfwise.taxonomy import Taxonomy
from shelfwise.train.optim import Optimiser, Phase, Rates

Share = Annotated[float, Field(ge=0, lt=1)]


class Distil(Options):
    """What is learnt from a teacher.

    Attributes:
        temperature: of both sides (Hinton, Vinyals and Dean 2015).
        weight: the share of the loss that is the teacher's where a cell has both a label and a teacher.
    """

    temperature: float = Field(default=2.0, gt=0)
    weight: float = Field(default=0.5, ge=0, le=1)


class Lora(Options):
    """Low-rank adapters that are trained instead of the backbone's own weights (Hu et al. 2021).

    Attributes:
        rank: of each adapter; 0 for none.
        alpha: an adapter's output is scaled by ``alpha / rank``.
        targets: last parts of the names of layers; left out, every linear layer.
    """

    rank: int = Field(default=0, ge=0)
    alpha: float = Field(default=16.0, gt=0)
    targets: tuple[str, ...] = ()


@register.recipe("finetune")
class FineTune(Options):
    """A backbone and its heads, trained on the pictures; with the backbone ``pair`` on the texts as well.

    Attributes:
        backbone: what is tuned; the size it is tuned and answers at is its own option.
        heads: on its features.
        numbers: ``learn`` Numbers such as a price, ``leave`` them to another recipe, or ``auto``: learn them where the
            backbone reads texts, or where there is nothing else to learn. Numbers are learnt from picture and text
            together; a product that lacks one is answered by the other, one that lacks both by its category.
        number_heads: how features become numbers.
        number_loss: per stated number.
        number_weight: how many labelled cells a stated number counts as.
        choice_inputs: what Choice attributes are read off: ``image``, or ``image`` and ``text``.
        text: how listing texts are read; the quantity comes first, then name, brand, bullets and description.
        start: of the heads: ``probe``, the optimum on the features before they are tuned (linear heads on standardised
            features only); ``random``; ``kept``, those of ``start_from``, which has the same taxonomy and heads; or
            ``auto``, the first where it can be.
        start_from: a bundle of a fine-tune, or one with such a member: the backbone begins with that network's weights
            instead of its published ones. But for ``start = "kept"`` the taxonomy may be another one; size and levels
            of the backbone may differ, its layers may not.
        start_l2: strength of the penalty of that optimum.
        standardise: bring features to mean 0 and variance 1 before heads that take a vector.
        dropout: of what heads take.
        choice_loss: per labelled cell.
        class_weight: power p of the class weights ``count ** -p``, mean 1: 0 none, 1 balanced.
        logit_adjustment: tau of Menon et al. 2021; 0 for none.
        sampler: ``shuffle`` shows each product once an epoch; ``weighted`` shows those with rare labels more often.
        sampler_power: of ``weighted``: a product's weight is the mean over its labels of ``count ** -power``, each
            attribute's scaled to a mean of 1.
        augment: how training pictures are changed; evaluation never changes any.
        mixing: which training pictures are mixed.
        adversary: moves training pictures towards what the network gets wrong.
        mmd: draws features of training pictures and of ``unlabelled`` together.
        unlabelled: a table of products without labels, for ``mmd``.
        unlabelled_images: its image folder; by default the table's own.
        teacher: saved Predictions (``.parquet``) or a bundle whose answers are learnt from as well. Of products that it
            has learnt from, a bundle says what its evidence says out of fold.
        distil: how the teacher is learnt from.
        phases: what is trained, for how long, at which rate; one after another.
        optimiser: how weights follow gradients.
        batch: products in a step, over all processes.
        precision: of products and convolutions in training.
        fold_batch_norm: fold the norms of a convolutional network into its convolutions, their statistics as they
            are: a fifth faster on a CPU.
        lora: adapters instead of the backbone's own weights.
        checkpointing: compute activations twice instead of keeping them, where memory is short.
        per_category: one network per category, each trained on its own products, over one split.
        validation: the share of products, in near-duplicate groups, that epochs are scored on; 0 for none, and the
            last epoch is kept.
        metric: what they are scored by.
        test_flips: answers are averages over a picture and its mirror image; half the speed.
        margin: how much larger than the network's size training pictures are kept, to be cropped.
        pixels: ``keep`` decoded training pictures on disk, or ``decode`` them in every epoch.
        pixel_bytes: of all kept pictures; beyond it, they are decoded.
        save_minutes: between checkpoints inside an epoch; the end of an epoch is one too, unless epochs are short.
    """

    concurrent: ClassVar[bool] = False

    backbone: BackboneSpec = Field(
        default_factory=lambda: REGISTRIES["backbone"].spec("lite0", size=160), validate_default=True
    )
    heads: HeadsSpec = Field(
        default_factory=lambda: REGISTRIES["heads"].spec("linear"), validate_default=True
    )
    numbers: Literal["auto", "learn", "leave"] = "auto"
    number_heads: NumberOptions = NumberOptions()
    number_loss: NumberLossSpec = Field(
        default_factory=lambda: REGISTRIES["number_loss"].spec("laplace"), validate_default=True
    )
    number_weight: float = Field(default=1.0, gt=0)
    choice_inputs: tuple[Literal["image", "text"], ...] = ("image",)
    text: TextOptions = TextOptions()
    start: Literal["auto", "probe", "random", "kept"] = "auto"
    start_from: Path | None = None
    start_l2: float = Field(default=0.3, gt=0)
    standardise: bool = True
    dropout: Share = 0.3
    choice_loss: LossSpec = Field(
        default_factory=lambda: REGISTRIES["loss"].spec("cross_entropy"), validate_default=True
    )
    class_weight: float = Field(default=0.5, ge=0, le=1)
    logit_adjustment: float = Field(default=0.0, ge=0)
    sampler: Literal["shuffle", "weighted"] = "shuffle"
    sampler_power: float = Field(default=0.5, ge=0, le=1)
    augment: Augment = Augment()
    mixing: Mixing = Mixing()
    adversary: Adversary = Adversary()
    mmd: MMD = MMD()
    unlabelled: Path | None = None
    unlabelled_images: Path | None = None
    teacher: Path | None = None
    distil: Distil = Distil()
    phases: tuple[Phase, ...] = Field(
        default=(Phase(epochs=6, lr=Rates(backbone=4e-4, heads=6e-4)),), min_length=1
    )
    optimiser: Optimiser = Optimiser(
        weight_decay=0.05, layer_decay=0.92, clip=5.0, warm_up=0.1, floor=0.04, ema=0.995
    )
    batch: int = Field(default=32, ge=1)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    fold_batch_norm: bool = True
    lora: Lora = Lora()
    checkpointing: bool = False
    per_category: bool = False
    validation: Share = 0.0
    metric: Literal["harmonic_f1", "macro_f1", "micro_f1", "accuracy", "weighted_f1"] = "harmonic_f1"
    test_flips: bool = False
    margin: float = Field(default=1.1, ge=1, le=2)
    pixels: Mode = "keep"
    pixel_bytes: int = Field(default=MOST_BYTES, ge=0)
    save_minutes: float = Field(default=5.0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> "FineTune":
        if self.choice_inputs not in (("image",), ("image", "text")):
            raise ValueError("choice_inputs is ['image'] or ['image', 'text']")
        if self.start == "kept" and self.start_from is None:
            raise ValueError(
                "start = 'kept' keeps the heads of the bundle that start_from names, and it names none"
            )
        if not self.reads:
            if "text" in self.choice_inputs:
                raise ValueError("choice_inputs: only the backbone 'pair' reads texts")
            return self
        try:
            pair_specs(self.backbone.table())
        except UsageError as error:
            raise ValueError(f"backbone: {error}") from error
        if self.mmd.weight or self.lora.rank:
            raise ValueError("mmd and lora are for a backbone that looks at pictures alone, not for 'pair'")
        return self

    @property
    def name(self) -> str:
        """The registered name."""
        return "finetune"

    @property
    def reads(self) -> bool:
        """Whether texts are read."""
        return self.backbone.name == "pair"

    def learns_numbers(self, taxonomy: Taxonomy) -> bool:
        """Whether the Numbers of a taxonomy are learnt."""
        nothing_else = not any(taxonomy.choices(name) for name in taxonomy.categories)
        wanted = self.numbers == "learn" or (self.numbers == "auto" and (self.reads or nothing_else))
        return wanted and bool(taxonomy.number_names)

    def __hash__(self) -> int:
        """Return the same for equal recipes; tables among the options have no hash of their own."""
        return hash(json.dumps(self.table(), sort_keys=True, default=str))

    def table(self) -> dict[str, Any]:
        """Return the TOML table with every default written out."""
        return {"name": self.name, **super().table()}

    def fit(self, train: Catalog, valid: Catalog | None, machine: Machine, seed: int) -> Predictor:
        """Train on the rows with a readable picture, a category and a label; see ``training.learn``.

        A training that was interrupted goes on from its last checkpoint, and one that is finished is not repeated:
        both are found by what they depend on, in ``machine.runs``.

        Raises:
            CatalogError: no such row.
        """
        from shelfwise.recipes.training import learn

        return learn(self, train, valid, machine, seed)

    def load(self, directory: Path, taxonomy: Taxonomy) -> Predictor:
        """Read what ``TunedPredictor.save`` wrote."""
        from shelfwise.recipes.tuned import load_tuned

        return load_tuned(self, directory, taxonomy)
