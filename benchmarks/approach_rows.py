"""The rows that ``approaches`` measures: what each learns, what it is compared with, and a sentence of verdict.

They know recipes, not catalogues.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from label_ways import Doubted, PseudoLabels
from shelfwise.config import make_recipe
from shelfwise.files import cache_directory
from shelfwise.predictions import Recipe
from ways import CompleteRows, CutOut, FrozenHeads, Majority, PerCategory, Views

BOTH, FASHION = ("fashion", "myntra"), ("fashion",)


@dataclass(frozen=True)
class Mix:
    """Members' predictions combined: ``equal``, ``weighted``, ``pool``, ``ridge``, ``lightgbm`` or ``gate``."""

    members: tuple[str, ...]
    how: str
    metric: str = ""


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        name: what the table calls it.
        make: its recipe as a table, or as something that builds it; or a combination of other rows.
        group: the part of the table it belongs to.
        random: whether a random split is asked too.
        heavy: whether it is scored on one fold, and only when asked for.
        base: a row that it is compared with besides the reference.
        tables: the catalogues it says something about.
    """

    name: str
    make: Any
    group: str
    random: bool = True
    heavy: bool = False
    base: str = ""
    tables: tuple[str, ...] = BOTH

    @cached_property
    def what(self) -> Recipe | Mix:
        """The recipe, or the combination."""
        if isinstance(self.make, Mix):
            return self.make
        found: Recipe = make_recipe(self.make) if isinstance(self.make, Mapping) else self.make()
        return found

    @property
    def slug(self) -> str:
        """The name of its folder."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.name.lower())


def probe(**options: Any) -> dict[str, Any]:
    """Return the table of a probe."""
    return {"name": "probe", **options}


def votes(backbone: str, k: int) -> Row:
    """Return the row of the nearest products' votes."""
    table = {"name": "neighbours", "backbone": backbone, "k": k}
    word = "vote" if k == 1 else "votes"
    return Row(f"{backbone}, {k} {word}", table, "retrieval", tables=BOTH if backbone != "lite1" else FASHION)


def inner() -> Path:
    """Return where predictions inside the training rows are kept, which two rows share."""
    return cache_directory() / "benchmarks" / "approaches-told"


def _rows() -> list[Row]:
    tuned = {
        "name": "finetune",
        "backbone": {"name": "lite0", "size": 160},
        "dropout": 0.3,
        "test_flips": True,
        "choice_loss": {"name": "cross_entropy", "label_smoothing": 0.05},
        "augment": {
            "crop": {"scale": [0.5, 1.0], "ratio": [0.8, 1.25]},
            "flip": {"probability": 0.5},
            "colour": {"probability": 1.0, "brightness": 0.2, "contrast": 0.1, "saturation": 0.1},
        },
        "phases": [{"epochs": 6, "train": 11, "lr": {"backbone": 4e-4, "heads": 6e-4}}],
    }
    plain = {
        "name": "finetune",
        "backbone": {"name": "lite0", "size": 160},
        "phases": [{"epochs": 6, "train": 11, "lr": {"backbone": 4e-4, "heads": 6e-4}}],
    }
    own, own2, now = "lite0, own heads", "lite2, own and shared heads", "the default probe"
    both = (own, own2)
    return [
        Row("lite0, own heads and votes", probe(shared=False), "heads"),
        Row(now, probe(), "heads"),
        Row("majority", Majority, "floors"),
        Row("perceptual hash, 15 votes", {"name": "neighbours", "by": "hash"}, "floors"),
        *(votes("lite0", k) for k in (1, 5, 15, 50)),
        Row(own, probe(look_alikes=0.0, shared=False), "heads"),
        Row("lite0, own and shared heads", probe(look_alikes=0.0), "heads", base=own),
        Row(own2, probe(look_alikes=0.0, backbone="lite2"), "heads"),
        Row("lite0, MLP heads", FrozenHeads, "heads", base=own),
        Row("lite0 + lite2, equal", Mix(both, "equal"), "ensembles", base=own2),
        Row(
            "lite0 + lite2, weighted for log loss",
            Mix(both, "weighted", "log_loss"),
            "ensembles",
            base=own2,
        ),
        Row(
            "lite0 + lite2, weighted for the score",
            Mix(both, "weighted", "harmonic_f1"),
            "ensembles",
            base=own2,
        ),
        Row("lite0 + lite2, pooled by calibration", Mix(both, "pool"), "ensembles", base=own2),
        Row("lite0 + lite2, stacked by ridge", Mix(both, "ridge"), "ensembles", base=own2),
        Row("lite0 + lite2, stacked by trees", Mix(both, "lightgbm"), "ensembles", base=own2),
        Row("lite0 + lite2, gated", Mix(both, "gate"), "ensembles", base=own2),
        *(votes("lite2", k) for k in (1, 5, 15, 50)),
        Row(
            "one probe a category",
            lambda: PerCategory(make_recipe(probe(look_alikes=0.0, shared=False))),
            "sharing",
            base=own,
        ),
        Row(
            "shared MLP heads",
            lambda: FrozenHeads("shared", (("hidden", 128), ("dropout", 0.3))),
            "sharing",
            base="lite0, MLP heads",
        ),
        Row("the default, complete rows only", CompleteRows, "missing", base=now, tables=FASHION),
        Row(
            "the default, missing filled with the mode",
            {"name": "treated", "recipe": probe(), "treat": {"impute": "mode"}},
            "missing",
            base=now,
            tables=FASHION,
        ),
        Row(
            "lite0, last level",
            probe(backbone={"name": "lite0", "levels": "last"}),
            "views",
            random=False,
            base=now,
        ),
        Row("background cut out", CutOut, "views", base=now),
        Row("answers over the mirror image too", Views, "views", random=False, base=now),
        Row(
            "answers over mirror image and centre",
            lambda: Views(views=("mirror", "centre")),
            "views",
            random=False,
            base=now,
        ),
        Row(
            "doubtful labels weigh less",
            lambda: Doubted(folder=inner()),
            "labels",
            random=False,
            base=now,
            tables=FASHION,
        ),
        Row(
            "pseudo-labels from 0.95",
            lambda: PseudoLabels(folder=inner()),
            "labels",
            random=False,
            base=now,
            tables=FASHION,
        ),
        Row(
            "pseudo-labels from 0.8",
            lambda: PseudoLabels(sure=0.8, folder=inner()),
            "labels",
            random=False,
            base=now,
            tables=FASHION,
        ),
        *(votes("lite1", k) for k in (1, 5, 15, 50)),
        Row("lite1, own and shared heads", probe(look_alikes=0.0, backbone="lite1"), "heads", tables=FASHION),
        Row("fine-tuned lite0", plain, "tuned", heavy=True),
        Row("fine-tuned lite0, augmented", tuned, "tuned", heavy=True),
        Row(
            "fine-tuned lite0, cut out",
            lambda: CutOut(make_recipe(plain)),
            "tuned",
            heavy=True,
            base="fine-tuned lite0",
        ),
    ]


ROWS: Mapping[str, Row] = {row.name: row for row in _rows()}
#: What follows from a row, where more is to be said than by how much it is better or worse.
VERDICTS: Mapping[str, str] = {
    "lite0, own heads and votes": "The reference. A random split would have claimed 0.05 more on fashion.",
    "the default probe": "Own heads, shared heads and votes: each is worth its seconds.",
    "lite0, 1 vote": "One neighbour is as good as fifteen once answers are decided, and knows rare values by itself.",
    "lite0, 15 votes": "Deciding for the metric makes up for most of what a plain vote loses on rare values.",
    "lite0, 50 votes": "The more vote, the less a rare value is heard.",
    "lite0, MLP heads": "A hidden layer on frozen features brings nothing that linear heads do not have.",
    "one probe a category": "Axes of its own help a category a little; heads that are shared help more.",
    "shared MLP heads": "With a hidden layer there is nothing left for sharing to add.",
    "lite0, last level": "Averages of all stages cost nothing and see textures and edges.",
    "background cut out": "It takes away more than it clears, where photos have plain grounds already.",
    "answers over the mirror image too": "Twice the time a photo for nothing: off.",
    "answers over mirror image and centre": "Three times the time a photo for nothing: off.",
    "doubtful labels weigh less": "The labels of this catalogue are not what holds the score back: off.",
    "pseudo-labels from 0.95": "What is sure already teaches nothing new: off.",
    "pseudo-labels from 0.8": "Nor does what is less sure: off.",
    "perceptual hash, 15 votes": "It finds the same photo again and little else; above the majority all the same.",
    "lite2, own and shared heads": "A larger network and shared heads, without votes: twice the time a photo.",
    "lite0 + lite2, pooled by calibration": "The best of the combinations, and the cheapest to learn: the default one.",
    "lite0 + lite2, gated": "No better than the pool, at six times the fits.",
    "lite0 + lite2, weighted for log loss": "No better than the pool, at six times the fits.",
    "lite0 + lite2, weighted for the score": "The score of a few hundred labels is a rough thing to search for.",
    "lite0 + lite2, stacked by ridge": "Worse than its better member: too few labels an attribute for a second model.",
    "lite0 + lite2, stacked by trees": "Worse than its better member: too few labels an attribute for a second model.",
    "the default, complete rows only": "Most rows miss a label: to drop them is to drop the catalogue.",
    "the default, missing filled with the mode": "It teaches that nothing is rare; a mask costs nothing.",
}
