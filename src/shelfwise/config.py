"""TOML <-> typed options; overrides; every problem in one message.

It does not know what a recipe does with its options. A run file is plain TOML: no interpolation,
includes or import paths. Unknown keys are errors with a suggestion.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from shelfwise.errors import ConfigError, UsageError, suggest
from shelfwise.registry import REGISTRIES, Spec
from shelfwise.roles import MISSING, Columns


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
HeadsSpec = Annotated[Spec, _parse_spec("heads"), PlainSerializer(filled)]
LossSpec = Annotated[Spec, _parse_spec("loss"), PlainSerializer(filled)]


class DataOptions(Options):
    """The ``[data]`` table: where the products are and how to read them.

    Attributes:
        catalog: the table of products.
        images: the image folder; by default the table's own.
        attributes: the list of each category's attributes, for columns called ``attr_1`` ...
        evidence: grouped folds (2 or more), or a share held out (below 1).
        missing: cell texts that mean nothing is stated.
        not_applicable: cell texts that say an attribute does not apply; case does not matter.
        id, category, image, text, number, choice, ignore: columns whose role is not inferred.
        aliases: per attribute, other spellings of its values.
        attribute_aliases: other spellings of attribute names.
    """

    catalog: Path
    images: Path | None = None
    attributes: Path | None = None
    evidence: Annotated[int, Field(ge=2, le=20)] | Annotated[float, Field(gt=0, lt=1)] = 5
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
    """

    metric: Literal["harmonic_f1", "macro_f1", "micro_f1", "accuracy", "weighted_f1"] = "harmonic_f1"
    cost: Path | None = None
    precision: float | None = Field(default=None, gt=0, lt=1)
    confidence: float = Field(default=0.9, gt=0, lt=1)
    over: Literal["attribute", "attribute-alone", "catalogue"] = "attribute"
    alarm: float = Field(default=0.01, ge=0, lt=1)


class RunOptions(Options):
    """A whole run file.

    Attributes:
        seed: of folds, initial weights and everything else that is drawn.
        data: the products.
        recipe: the recipe's table, its name included.
        decide: the metric that counts.
    """

    seed: int = Field(default=0, ge=0)
    data: DataOptions
    recipe: dict[str, Any] = {"name": "probe"}
    decide: DecideOptions = DecideOptions()


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
        for key in ("catalog", "images", "attributes"):
            if isinstance(data.get(key), str):
                data[key] = str(path.parent / data[key])
    decide = table.get("decide")
    if isinstance(decide, dict) and isinstance(decide.get("cost"), str):
        decide["cost"] = str(path.parent / decide["cost"])
    return run_options(override(table, overrides), str(path))


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
    recipe = table.get("recipe", {"name": "probe"})
    if isinstance(recipe, Mapping):
        try:
            make_recipe(recipe)
        except ConfigError as error:
            problems += str(error).split("\n")
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
        raise ConfigError("\n".join(_problems(error, model, "recipe."))) from error


def _problems(error: ValidationError, model: Any, prefix: str) -> list[str]:
    lines = []
    for item in error.errors():
        path = ".".join(str(part) for part in item["loc"] if not str(part).startswith("constrained-"))
        if item["type"] == "extra_forbidden":
            known = _keys(model, item["loc"][:-1])
            hint = suggest(str(item["loc"][-1]), known) or f"Known: {', '.join(sorted(known))}."
            lines.append(f"  {prefix}{path}: unknown key. {hint}")
        elif item["type"] == "missing":
            lines.append(f"  {prefix}{path}: is missing")
        else:
            message = item["msg"].removeprefix("Value error, ")
            lines.append(f"  {prefix}{path}: {message} (got {item['input']!r})")
    return list(dict.fromkeys(lines))


def _keys(model: Any, loc: Sequence[Any]) -> list[str]:
    for part in loc:
        field = model.model_fields.get(part)
        inner = field.annotation if field is not None else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)


def override(table: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Apply ``a.b.c=value`` overrides to a table, in place, and return it.

    Raises:
        ConfigError: one without ``=``, or a path through something that is not a table.
    """
    for text in overrides:
        key, sign, raw = text.partition("=")
        if not sign or not key.strip():
            raise ConfigError(f"an override is key=value, not {text!r}")
        *parents, last = key.strip().split(".")
        at: Any = table
        for parent in parents:
            at = at.setdefault(parent, {})
            if isinstance(at, str) and parent in ("backbone", "heads", "loss", "choice_loss"):
                raise ConfigError(
                    f"{key}: {parent} is the name {at!r}; give it as a table to set its options"
                )
            if not isinstance(at, dict):
                raise ConfigError(f"{key}: {parent} is not a table")
        at[last] = _literal(raw)
    return table


def _literal(raw: str) -> Any:
    try:
        return tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        return raw


def to_toml(table: Mapping[str, Any]) -> str:
    """Write nested tables as TOML: plain keys first, then one ``[table]`` for each nested table."""
    lines: list[str] = []
    _write_table(table, "", lines)
    return "\n".join(lines).strip() + "\n"


def _write_table(table: Mapping[str, Any], prefix: str, lines: list[str]) -> None:
    nested = {key: value for key, value in table.items() if isinstance(value, Mapping) and not _inline(key)}
    for key, value in table.items():
        if key not in nested and value is not None:
            lines.append(f"{_key(key)} = {_value(value)}")
    for key, value in nested.items():
        if value or prefix == "":
            lines.extend(["", f"[{prefix}{_key(key)}]"])
            _write_table(value, f"{prefix}{_key(key)}.", lines)


def _inline(key: str) -> bool:
    """Specs read best on one line."""
    return key.endswith("loss") or (key in REGISTRIES and key != "recipe")


def _key(key: str) -> str:
    plain = key.replace("-", "_").isidentifier() and key.isascii()
    return key if plain else _text(key)


def _text(text: str) -> str:
    """A basic TOML string: as in JSON, but DEL is escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        return _text(str(value))
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None) + " }"
    if isinstance(value, Sequence):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    raise ConfigError(f"cannot be written as TOML: {value!r}")
