"""TOML <-> typed options; overrides; every problem in one message.

It does not know what a recipe does with its options. A run file is plain TOML: no interpolation,
includes or import paths. Unknown keys are errors with a suggestion.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    Strict,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from shelfwise.amounts import Aim
from shelfwise.errors import ConfigError, UsageError, listing, suggest
from shelfwise.registry import REGISTRIES, Spec
from shelfwise.roles import MISSING, Columns
from shelfwise.tomltext import override, to_toml

__all__ = [
    "DataOptions",
    "DecideOptions",
    "Options",
    "Range",
    "RunOptions",
    "SearchOptions",
    "TrackOptions",
    "filled",
    "make_recipe",
    "override",
    "read_run",
    "run_options",
    "to_toml",
]


class Options(BaseModel):
    """Frozen options: comparable, printable, equal to their TOML table."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    def table(self) -> dict[str, Any]:
        """Return the options as a TOML table with every default written out; absent options are left out."""
        return {key: value for key, value in self.model_dump(mode="python").items() if value is not None}


def _parse_spec(kind: str) -> BeforeValidator:
    def parse(value: Any) -> Spec:
        if isinstance(value, Spec):
            if value.kind != kind:
                raise ValueError(f"needs a {kind}, not the {value.kind} {value.name!r}")
            return value
        try:
            if isinstance(value, str):
                return REGISTRIES[kind].spec(value)
            if isinstance(value, Mapping) and isinstance(value.get("name"), str):
                return REGISTRIES[kind].spec(**value)
        except UsageError as error:
            raise ValueError(str(error)) from error
        raise ValueError(f"a {kind} is a name or a table with a name, not {value!r}")

    return BeforeValidator(parse)


def filled(spec: Spec) -> dict[str, Any]:
    """Return a spec as a table with the defaults of its other options written out."""
    registry = REGISTRIES[spec.kind]
    defaults = {key: p.default for key, p in registry.options(spec.name).items() if p.default is not None}
    return {"name": spec.name, **defaults, **{k: v for k, v in spec.table().items() if k != "name"}}


BackboneSpec = Annotated[Spec, _parse_spec("backbone"), PlainSerializer(filled)]
TextEncoderSpec = Annotated[Spec, _parse_spec("text_encoder"), PlainSerializer(filled)]
HeadsSpec = Annotated[Spec, _parse_spec("heads"), PlainSerializer(filled)]
LossSpec = Annotated[Spec, _parse_spec("loss"), PlainSerializer(filled)]
NumberLossSpec = Annotated[Spec, _parse_spec("number_loss"), PlainSerializer(filled)]


class DataOptions(Options):
    """The ``[data]`` table: where the products are and how to read them.

    Attributes:
        catalog: the table of products.
        images: the image folder; by default the table's own.
        attributes: the list of each category's attributes, for columns called ``attr_1`` ...
        photos: a table of all photos, ``id, image`` and, if known, ``role``.
        learn_photos: of a product with several: the ``first``, or ``all``; all of them vote either way.
        evidence: grouped folds (2 or more), or a share held out (below 1).
        learn_from: ``everything``: what answers has learnt from all products, once the evidence is gathered; or
            ``split``: with a share held out, what the evidence is of answers, and nothing is learnt twice.
        missing: cell texts that mean nothing is stated.
        not_applicable: cell texts that say an attribute does not apply; case does not matter.
        id, category, image, text, number, choice, ignore: columns whose role is not inferred.
        aliases: per attribute, other spellings of its values.
        attribute_aliases: other spellings of attribute names.
        units: the currency or unit of number columns.
    """

    catalog: Path
    images: Path | None = None
    attributes: Path | None = None
    photos: Path | None = None
    learn_photos: Literal["first", "all"] = "first"
    evidence: Annotated[int, Field(ge=2, le=20)] | Annotated[float, Field(gt=0, lt=1)] = 5
    learn_from: Literal["everything", "split"] = "everything"
    missing: tuple[str, ...] = MISSING
    not_applicable: tuple[str, ...] = ()
    id: str | None = None
    category: str | None = None
    image: str | None = None
    text: tuple[str, ...] = ()
    number: tuple[str, ...] = ()
    choice: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    aliases: dict[str, dict[str, str]] = {}
    attribute_aliases: dict[str, str] = {}
    units: dict[str, str] = {}

    @model_validator(mode="after")
    def _one_split(self) -> "DataOptions":
        if self.learn_from == "split" and self.evidence >= 2:
            raise ValueError('learn_from = "split" needs a share held out, such as evidence = 0.2')
        return self

    def columns(self) -> Columns:
        """Return the overridden column roles."""
        return Columns(self.id, self.category, self.image, self.text, self.number, self.choice, self.ignore)


class DecideOptions(Options):
    """The ``[decide]`` table: the metric that counts, and the promise to keep.

    Attributes:
        metric: what answers are best for where nothing is promised.
        cost: a table ``attribute, truth, answer, cost`` and optionally ``category``; its attributes are answered at
            the least expected cost instead.
        precision: answer only what is right this often; left out, every cell is answered.
        confidence: how sure the promise is to be.
        over: what keeps it: each ``attribute``, each ``attribute-alone`` by its own evidence, or the ``catalogue``.
        alarm: the share of good products that may be flagged as unfamiliar, and likewise as of another category.
        number_metric: what the answers of Numbers are best for: ``log`` is the exponential of the mean logarithm.
        coverage: the probability with which the range of a Number is to hold the truth.
        widest: a Number is ``unsure`` where the upper end of its range is more than so many times the lower one
            (for numbers of any sign: where the range is wider than this); left out, every number is answered.
    """

    metric: Literal["harmonic_f1", "macro_f1", "micro_f1", "accuracy", "weighted_f1"] = "harmonic_f1"
    cost: Path | None = None
    precision: float | None = Field(default=None, gt=0, lt=1)
    confidence: float = Field(default=0.9, gt=0, lt=1)
    over: Literal["attribute", "attribute-alone", "catalogue"] = "attribute"
    alarm: float = Field(default=0.01, ge=0, lt=1)
    number_metric: Literal["smape", "mae", "mape", "rmse", "log"] = "smape"
    coverage: float = Field(default=0.9, gt=0, lt=1)
    widest: float | None = Field(default=None, gt=0)

    @property
    def aim(self) -> Aim:
        """What the answers of Numbers are to be best for."""
        return Aim(self.number_metric, self.coverage, self.widest)


#: Words in an option's name that say it holds a secret, and where secrets belong.
_SECRET = ("key", "token", "password", "secret", "credential")
_IN_ENVIRONMENT = "set WANDB_API_KEY, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"


class TrackOptions(Options):
    """The ``[track]`` table: where loss, score and rate of a training go.

    Keys of services come from the environment; one in a file is refused, for files are shared.

    Attributes:
        to: ``console``, ``jsonl`` (in the folder of the run), ``tensorboard`` (there too), ``mlflow``, ``wandb``.
        experiment: under which MLflow files it.
        project: under which Weights & Biases files it.
    """

    to: tuple[Literal["console", "jsonl", "tensorboard", "mlflow", "wandb"], ...] = ("console", "jsonl")
    experiment: str = "shelfwise"
    project: str = "shelfwise"

    @model_validator(mode="before")
    @classmethod
    def _without_secrets(cls, given: Any) -> Any:
        for name in given if isinstance(given, Mapping) else ():
            if any(word in str(name).lower() for word in _SECRET):
                text = f"{name} does not belong in a file: {_IN_ENVIRONMENT} in the environment"
                raise PydanticCustomError("secret", "{text}", {"text": text})
        return given


_Real = Annotated[int, Strict()] | Annotated[float, Strict()]


class Range(Options):
    """The numbers between two ends that a search may try; whole numbers where both ends are whole.

    Attributes:
        low: the smallest.
        high: the largest.
        step: only ``low``, ``low + step`` ...; left out, every number between.
        log: draw evenly on a logarithmic scale.
    """

    low: _Real
    high: _Real
    step: _Real | None = None
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> "Range":
        if not self.low < self.high:
            raise ValueError("low must be below high")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError("step must be above 0 and at most high - low")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs a low above 0, and no step")
        return self


def _parse_values(value: Any) -> Any:
    if isinstance(value, list | tuple) and value:
        return tuple(value)
    if isinstance(value, Mapping):
        try:
            return Range.model_validate(value)
        except ValidationError as error:
            raise ValueError("; ".join(line.strip() for line in _problems(error, Range, ""))) from error
    if isinstance(value, Range):
        return value
    raise ValueError("is a list of values, or a range such as { low = 1e-3, high = 1.0, log = true }")


Values = Annotated[Range | tuple[Any, ...], BeforeValidator(_parse_values)]


class SearchOptions(Options):
    """The ``[search]`` table: which options of the run file a search tries.

    Attributes:
        method: ``grid`` (every combination, in an order that is drawn), ``random``, or ``tpe``, which learns from
            the trials before.
        trials: how many; left out, 20, or the whole grid.
        space: dotted option to a list of values or a range: ``"recipe.l2" = { low = 1e-3, high = 1.0, log = true }``.
    """

    method: Literal["grid", "random", "tpe"] = "tpe"
    trials: int | None = Field(default=None, ge=1)
    space: dict[str, Values] = Field(min_length=1)


class RunOptions(Options):
    """A whole run file.

    Attributes:
        seed: of folds, initial weights and everything else that is drawn.
        data: the products.
        recipe: the recipe's table, its name included; empty for what suits the catalogue (``fit.default_recipe``).
        decide: the metric that counts.
        track: where the steps of a training go.
        search: which options a search tries; ``fit`` takes no notice of it.
    """

    seed: int = Field(default=0, ge=0)
    data: DataOptions
    recipe: dict[str, Any] = {}
    decide: DecideOptions = DecideOptions()
    track: TrackOptions = TrackOptions()
    search: SearchOptions | None = None


def read_run(path: str | Path, overrides: Sequence[str] = ()) -> RunOptions:
    """Read a run file, its paths taken relative to it, and apply ``key=value`` overrides.

    Args:
        path: the TOML file.
        overrides: ``data.evidence=3``; a value that parses as TOML is that literal, else a string. Paths in
            overrides are relative to the current directory.

    Raises:
        ConfigError: no such file, not TOML, unknown keys or wrong values; all of them in one message.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read the run file {path}: {error}") from error
    data = table.get("data")
    if isinstance(data, dict):
        for key in ("catalog", "images", "attributes", "photos"):
            if isinstance(data.get(key), str):
                data[key] = str(path.parent / data[key])
    decide = table.get("decide")
    if isinstance(decide, dict) and isinstance(decide.get("cost"), str):
        decide["cost"] = str(path.parent / decide["cost"])
    recipe = table.get("recipe")
    if isinstance(recipe, dict):
        _from_folder(recipe, path.parent)
    return run_options(override(table, overrides), str(path))


def _from_folder(recipe: dict[str, Any], folder: Path) -> None:
    """Take a recipe's paths relative to a folder, in place: those of its options that are declared as paths."""
    try:
        model = REGISTRIES["recipe"].get(str(recipe.get("name", "probe")))
    except UsageError:  # said when the recipe is made
        return
    for key, option in getattr(model, "model_fields", {}).items():
        if isinstance(recipe.get(key), str) and option.annotation in (Path, Path | None):
            recipe[key] = str(folder / recipe[key])
    members: Any = recipe.get("members")
    for at, member in enumerate(members if isinstance(members, list) else ()):
        if isinstance(member, str):  # the path of a bundle
            members[at] = str(folder / member)
        elif isinstance(member, dict) and isinstance(member.get("bundle"), str):
            member["bundle"] = str(folder / member["bundle"])
        elif isinstance(member, dict):
            _from_folder(member, folder)
    if isinstance(recipe.get("recipe"), dict):
        _from_folder(recipe["recipe"], folder)


def run_options(table: Mapping[str, Any], source: str) -> RunOptions:
    """Check a whole table; the recipe's options included.

    Raises:
        ConfigError: every problem, one a line.
    """
    problems: list[str] = []
    options: RunOptions | None = None
    try:
        options = RunOptions.model_validate(dict(table))
    except ValidationError as error:
        problems += _problems(error, RunOptions, "")
    recipe = table.get("recipe")
    if isinstance(recipe, Mapping) and recipe:
        try:
            make_recipe(recipe)
        except ConfigError as error:
            problems += str(error).split("\n")
    if options is not None and options.search is not None and not problems:
        # A search is over the options of a recipe that is known before any table is read.
        options = options if options.recipe else options.model_copy(update={"recipe": {"name": "probe"}})
        from shelfwise.spaces import space_problems

        problems += space_problems(options)
    if problems or options is None:
        raise ConfigError(
            "\n".join([f"{source}: {len(problems)} problem" + "s" * (len(problems) != 1), *problems])
        )
    return options


def make_recipe(table: Mapping[str, Any]) -> Any:
    """Build a recipe from its table.

    Raises:
        ConfigError: no name, an unknown one, or wrong options; one problem a line.
    """
    name = table.get("name")
    if not isinstance(name, str):
        raise ConfigError('  recipe.name: is missing, for example name = "probe"')
    try:
        model = REGISTRIES["recipe"].get(name)
    except UsageError as error:
        raise ConfigError(f"  recipe.name: {error}") from error
    try:
        return model(**{key: value for key, value in table.items() if key != "name"})
    except ValidationError as error:
        raise ConfigError("\n".join(_problems(error, model, "recipe.", table))) from error


def _problems(
    error: ValidationError, model: Any, prefix: str, table: Mapping[str, Any] | None = None
) -> list[str]:
    """Say each problem in one line; what the kinds of value that an option may have each refuse is one problem."""
    items = error.errors()
    found: dict[tuple[str, str], list[str]] = {}
    for item in items:
        loc = item["loc"]
        if item["type"] == "too_short" and any(
            other["loc"][: len(loc)] == loc != other["loc"] for other in items
        ):
            continue  # nothing is left of a list whose items are wrong
        path = ".".join(part for part in map(str, loc) if not _is_kind(part, items, loc))
        if item["type"] == "secret":  # never shown
            found[path, item["msg"]] = []
        elif item["type"] == "extra_forbidden":
            known = _keys(model, loc[:-1])
            within = _within(str(loc[-1]), table or {}) if len(loc) == 1 else ""
            hint = f"There is {prefix}{within}." if within else suggest(str(loc[-1]), known)
            found[path, f"unknown key. {hint or f'Known: {listing(sorted(known))}.'}"] = []
        elif item["type"] == "missing":
            found[path, "is missing"] = []
        else:
            said = found.setdefault((path, f"(got {item['input']!r})"), [])
            said.append(item["msg"].removeprefix("Value error, "))
    return [
        f"  {prefix}{path}: " + " ".join([*["; or: ".join(dict.fromkeys(said))] * bool(said), end])
        for (path, end), said in found.items()
    ]


def _within(key: str, table: Mapping[str, Any]) -> str:
    """Return where a key of one of the recipes in a recipe is; empty where none has it."""
    recipes = REGISTRIES["recipe"]
    for name, inner in table.items():
        known = isinstance(inner, Mapping) and inner.get("name") in recipes.names()
        model: Any = recipes.get(inner["name"]) if known else None
        if model is not None and key in model.model_fields:
            return f"{name}.{key}"
    return ""


def _is_kind(part: str, items: Sequence[Any], loc: Sequence[Any]) -> bool:
    """Whether a part of a place is no key but one of several kinds of value: a type's name, beside others."""
    if "[" in part or part.startswith("constrained-"):
        return True
    beside = [other["loc"] for other in items if len(other["loc"]) >= len(loc) - 1 and other["loc"] != loc]
    return (
        part == loc[-1] and part[:1].isupper() and any(other[: len(loc) - 1] == loc[:-1] for other in beside)
    )


def _keys(model: Any, loc: Sequence[Any]) -> list[str]:
    for part in loc:
        if isinstance(part, int):  # an item of a list of tables; its options are already at hand
            continue
        field = model.model_fields.get(part)
        inner = field.annotation if field is not None else None
        found = [inner, *get_args(inner)]
        options = [kind for kind in found if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not options:
            return []
        model = options[0]
    return list(model.model_fields)
