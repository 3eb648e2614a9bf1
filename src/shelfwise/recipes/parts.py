"""Parts: one recipe for the Choice attributes and one for the Numbers, as one.

It knows neither's options. Each learns from the catalogue narrowed to its attributes, and answers for itself: a
product whose photo cannot be read has no attributes, and still a price.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from shelfwise.catalog import Catalog
from shelfwise.config import Options
from shelfwise.predictions import Machine, Predictions, Predictor, Recipe
from shelfwise.recipes.held import Member
from shelfwise.registry import register
from shelfwise.taxonomy import Choice, Number, Taxonomy

Kind = Literal["choices", "numbers"]


@register.recipe("parts")
class Parts(Options):
    """Two recipes, one for each kind of attribute.

    Attributes:
        choices: the recipe of Choice attributes: a table, or a fitted bundle that has just these.
        numbers: that of Numbers.
    """

    choices: Member = Field(default={"name": "probe"}, validate_default=True)
    numbers: Member = Field(default={"name": "boost"}, validate_default=True)

    @property
    def name(self) -> str:
        """The registered name."""
        return "parts"

    @property
    def concurrent(self) -> bool:
        """Whether several fits may run side by side: where both parts' may."""
        return bool(self.choices.concurrent and self.numbers.concurrent)

    @property
    def backbone(self) -> Any:
        """That of the Choice attributes' recipe, else of the Numbers'; ``None`` if neither has one."""
        return getattr(self.choices, "backbone", None) or getattr(self.numbers, "backbone", None)

    def table(self) -> dict[str, Any]:
        """Return the TOML table with every default written out."""
        return {"name": self.name, **super().table()}

    def fit(self, train: Catalog, valid: Catalog | None, machine: Machine, seed: int) -> "PartsPredictor":
        """Fit both parts, one after the other."""
        train = train.remembering()
        valid = valid.remembering() if valid is not None else None

        def part(recipe: Recipe, kind: Kind) -> Predictor:
            return recipe.fit(
                train.only(kind), valid.only(kind) if valid is not None else None, machine, seed
            )

        choices, numbers = part(self.choices, "choices"), part(self.numbers, "numbers")
        return PartsPredictor(train.taxonomy, choices, numbers)

    def load(self, directory: Path, taxonomy: Taxonomy) -> "PartsPredictor":
        """Read what ``PartsPredictor.save`` wrote."""
        choices = self.choices.load(directory / "choices", taxonomy.only(Choice))
        numbers = self.numbers.load(directory / "numbers", taxonomy.only(Number))
        return PartsPredictor(taxonomy, choices, numbers)


class PartsPredictor:
    """Two predictors, one for each kind of attribute.

    Attributes:
        taxonomy: of both kinds.
        choices: answers Choice attributes.
        numbers: answers Numbers.
    """

    def __init__(self, taxonomy: Taxonomy, choices: Predictor, numbers: Predictor) -> None:
        self.taxonomy, self.choices, self.numbers = taxonomy, choices, numbers

    @property
    def learnt(self) -> tuple[str, ...]:
        """What the parts did to their training rows."""
        return (*getattr(self.choices, "learnt", ()), *getattr(self.numbers, "learnt", ()))

    def predict(self, catalog: Catalog, machine: Machine) -> Predictions:
        """Return the probabilities of the one and the amounts of the other; errors are those of the former."""
        catalog = catalog.remembering()
        found = self.choices.predict(catalog.only("choices"), machine)
        amounts = self.numbers.predict(catalog.only("numbers"), machine)
        notes = tuple(dict.fromkeys((*found.notes, *amounts.notes)))
        return replace(found, taxonomy=self.taxonomy, amounts=amounts.amounts, notes=notes)

    def save(self, directory: Path) -> None:
        """Write each part into a folder of its own."""
        for name, part in (("choices", self.choices), ("numbers", self.numbers)):
            (directory / name).mkdir()
            part.save(directory / name)
