"""Treated: any recipe, on training rows whose labels, and pictures, were treated first.

It knows no recipe's options. Labels are treated where the inner recipe learns, and only there; pictures are cut out of
their background where it learns and where it answers, for a network is to see what it was taught on.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, field_validator

from shelfwise.catalog import Catalog
from shelfwise.config import Options, make_recipe
from shelfwise.data.background import MODELS, without_background
from shelfwise.errors import ConfigError, listing, suggest
from shelfwise.files import cache_directory
from shelfwise.predictions import Machine, Predictions, Predictor, Recipe
from shelfwise.recipes.treatments import Treatments, treat
from shelfwise.registry import register
from shelfwise.taxonomy import Taxonomy


def _inner(value: Any) -> Any:
    """A recipe from its table; a recipe is left as it is."""
    if not isinstance(value, Mapping):
        if not isinstance(value, Recipe):
            raise ValueError(f"a recipe is a table with a name, not {value!r}")
        return value
    try:
        return make_recipe(value)
    except ConfigError as error:
        raise ValueError(str(error).strip().removeprefix("recipe.")) from error


InnerRecipe = Annotated[Any, BeforeValidator(_inner), PlainSerializer(lambda recipe: recipe.table())]


@register.recipe("treated")
class Treated(Options):
    """Another recipe, learnt from treated rows.

    Attributes:
        recipe: the other recipe.
        treat: what is done to the labels it learns from.
        background: ``none``, or the network that cuts products out of their photos (extra ``background``), in learning
            and in answering.
    """

    recipe: InnerRecipe = Field(default_factory=lambda: {"name": "probe"}, validate_default=True)
    treat: Treatments = Field(default_factory=Treatments)
    background: str = "none"

    @field_validator("background")
    @classmethod
    def _known(cls, value: str) -> str:
        if value != "none" and value not in MODELS:
            hint = suggest(value, ("none", *MODELS)) or f"Known: {listing(('none', *MODELS))}."
            raise ValueError(f"no network for backgrounds is allowed under this name. {hint}")
        return value

    @property
    def concurrent(self) -> bool:
        """Whether several fits may run side by side: as the other recipe."""
        return bool(self.recipe.concurrent)

    @property
    def backbone(self) -> Any:
        """The other recipe's, ``None`` where it has none."""
        return getattr(self.recipe, "backbone", None)

    @property
    def name(self) -> str:
        """The registered name."""
        return "treated"

    def table(self) -> dict[str, Any]:
        """Return the TOML table with every default written out."""
        return {"name": self.name, **super().table()}

    def fit(self, train: Catalog, valid: Catalog | None, machine: Machine, seed: int) -> "TreatedPredictor":
        """Treat the training rows, and fit the other recipe on them; ``valid`` keeps its labels.

        Raises:
            MissingExtra: pictures are to be cut out, and rembg is not installed.
        """
        treated = treat(train, self.treat, machine)
        valid = None if valid is None else self._pictures(valid, machine)
        predictor = self.recipe.fit(self._pictures(treated, machine), valid, machine, seed)
        return TreatedPredictor(self, predictor, tuple(finding.message for finding in treated.findings))

    def load(self, directory: Path, taxonomy: Taxonomy) -> "TreatedPredictor":
        """Read what ``TreatedPredictor.save`` wrote."""
        return TreatedPredictor(self, self.recipe.load(directory, taxonomy), ())

    def _pictures(self, catalog: Catalog, machine: Machine) -> Catalog:
        if self.background == "none":
            return catalog
        return without_background(
            catalog, model=self.background, cache=cache_directory(machine.cache), progress=machine.progress
        )


class TreatedPredictor:
    """Answers as the other recipe's predictor does.

    Attributes:
        learnt: what was treated, a sentence each; empty once loaded.
    """

    def __init__(self, recipe: Treated, predictor: Predictor, learnt: tuple[str, ...]) -> None:
        self.recipe, self.predictor, self.learnt = recipe, predictor, learnt
        self.taxonomy = predictor.taxonomy

    def predict(self, catalog: Catalog, machine: Machine) -> Predictions:
        """Return probabilities for every row."""
        return self.predictor.predict(self.recipe._pictures(catalog, machine), machine)

    def save(self, directory: Path) -> None:
        """Write what the other recipe's predictor writes."""
        self.predictor.save(directory)
