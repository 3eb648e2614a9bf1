"""Start: from a table or a run file to a checked run: init, check, fit.

It joins reading, checking and fitting as the verbs need them; it decides nothing about learning.
"""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from shelfwise.bundle import Bundle, load
from shelfwise.catalog import Catalog
from shelfwise.config import DataOptions, RunOptions, make_recipe, override, read_run, run_options, to_toml
from shelfwise.data.clean import clean
from shelfwise.data.facts import facts_of
from shelfwise.data.group import groups_of, text_keys
from shelfwise.describe import Description, describe
from shelfwise.errors import ConfigError, UsageError, listing, suggest
from shelfwise.files import cache_directory, write_text
from shelfwise.findings import Finding, Findings
from shelfwise.fit import default_recipe, fit
from shelfwise.predictions import Machine
from shelfwise.registry import REGISTRIES
from shelfwise.roles import Columns
from shelfwise.tables import TABLE_ENDINGS

DEFAULT_RECIPE = "probe"


def run_of(
    source: Path,
    overrides: Sequence[str] = (),
    *,
    images: Path | None = None,
    attributes: Path | None = None,
    columns: Columns | None = None,
    seed: int | None = None,
) -> RunOptions:
    """Return the run that a run file, or a table with options, stands for.

    Args:
        source: ``.toml`` for a run file, anything else is a table.
        overrides: ``key=value``.
        images, attributes, columns, seed: as on the command line; they override a run file too.

    Raises:
        ConfigError: everything that is wrong, in one message.
    """
    given: dict[str, Any] = {"images": images, "attributes": attributes}
    if columns is not None:
        given |= {name: getattr(columns, name) for name in Columns.__dataclass_fields__}
    chosen = {key: _plain(value) for key, value in given.items() if value}
    if source.suffix.lower() == ".toml":
        options = read_run(source, overrides)
        table = options.table()
        table["data"] = {**table["data"], **chosen}
    else:
        table = override({"data": {"catalog": str(source), **chosen}}, overrides)
        if table.get("recipe"):  # options alone are those of the attributes' default
            table["recipe"] = {"name": DEFAULT_RECIPE, **table["recipe"]}
    if seed is not None:
        table["seed"] = seed
    return run_options(table, str(source))


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value


def read_data(data: DataOptions) -> Catalog:
    """Read the catalogue of a run.

    Raises:
        CatalogError, TaxonomyError: as ``Catalog.read``.
    """
    return Catalog.read(
        data.catalog,
        images=data.images,
        attributes=data.attributes,
        columns=data.columns(),
        missing=data.missing,
        not_applicable=data.not_applicable,
        aliases=data.aliases,
        attribute_aliases=data.attribute_aliases,
        units=data.units,
        photos=data.photos,
    )


def fit_run(options: RunOptions, *, machine: Machine) -> tuple[Bundle, Catalog]:
    """Fit what a run says; returns the bundle and the catalogue it was learnt from."""
    catalog = read_data(options.data)
    recipe = make_recipe(options.recipe) if options.recipe else default_recipe(catalog)
    options = options.model_copy(update={"recipe": recipe.table()})
    bundle = fit(
        catalog,
        recipe,
        evidence=options.data.evidence,
        decide=options.decide,
        seed=options.seed,
        machine=replace(machine, track=options.track),
        run=options,
    )
    return bundle, catalog


def init(
    catalog: Catalog,
    table: Path,
    out: Path,
    *,
    images: Path | None,
    attributes: Path | None,
    columns: Columns,
) -> tuple[Path, Path]:
    """Write ``shelfwise.toml`` and ``taxonomy.json`` for a table; files that are there are not replaced.

    Proposed aliases of values in several spellings are written into the run file, where they can be seen
    and struck out.

    Returns:
        The paths of the run file and the taxonomy.

    Raises:
        UsageError: a file is there already.
    """
    paths = out / "shelfwise.toml", out / "taxonomy.json"
    for path in paths:
        if path.exists():
            raise UsageError(
                f"{path} is there already; it is left as it is. Remove it, or name another folder with -o"
            )
    roles = catalog.schema.roles
    aliases: dict[str, dict[str, str]] = {}
    for finding in catalog.findings.of(kind="spelling"):
        aliases.setdefault(str(finding.field), {}).update(finding.evidence["alias"])
    data: dict[str, Any] = {"catalog": _relative(table, out)}
    if images is not None:
        data["images"] = _relative(images, out)
    if attributes is not None:
        data["attributes"] = _relative(attributes, out)
    data |= {"id": roles.id, "category": roles.category, "image": roles.image}
    data |= {"text": list(roles.texts), "number": list(roles.numbers)}
    data |= {"ignore": [name for name in roles.ignored if name != "len"], "evidence": 5}
    data |= {"missing": list(catalog.schema.missing)}
    if catalog.layout.kind == "named":
        data["choice"] = list(roles.choices)
    table_: dict[str, Any] = {
        "seed": 0,
        "data": {**{k: v for k, v in data.items() if v not in (None, [])}, "aliases": aliases},
        "recipe": default_recipe(catalog).table(),
        "decide": {"metric": "harmonic_f1"},
    }
    if not aliases:
        del table_["data"]["aliases"]
    write_text(paths[0], to_toml(table_))
    catalog.taxonomy.save(paths[1])
    return paths


def _relative(path: Path, out: Path) -> str:
    import os

    return os.path.relpath(path.resolve(), out.resolve())


def check(
    source: Path,
    *,
    images: Path | None = None,
    attributes: Path | None = None,
    bundle: Path | None = None,
    columns: Columns | None = None,
    machine: Machine,
) -> tuple[Findings, Description]:
    """Find everything that is wrong with a run file or a table: config, cells, every image, duplicates.

    Args:
        source: a run file or a table.
        images, attributes, columns: as for ``Catalog.read``.
        bundle: read the table against this bundle's taxonomy.
        machine: where to compute.
    """
    catalog, findings = _read(source, images, attributes, bundle, columns)
    cache = cache_directory(machine.cache)
    facts = facts_of(catalog.images, cache=cache, jobs=machine.jobs, progress=machine.progress)
    groups = groups_of(facts, text_keys(catalog), cache=cache)
    found = clean(catalog, cache=cache, jobs=machine.jobs)
    return _without_repeats(findings + catalog.findings + found), describe(catalog, facts, groups=groups)


def catalog_of(
    source: Path,
    *,
    images: Path | None = None,
    attributes: Path | None = None,
    bundle: Path | None = None,
    columns: Columns | None = None,
) -> Catalog:
    """Read the catalogue that ``check`` looks at; arguments as there."""
    return _read(source, images, attributes, bundle, columns)[0]


def _read(
    source: Path, images: Path | None, attributes: Path | None, bundle: Path | None, columns: Columns | None
) -> tuple[Catalog, Findings]:
    """Read a table or a run file's table, and what is wrong with the run file."""
    if source.suffix.lower() != ".toml" and source.suffix.lower() not in TABLE_ENDINGS:
        raise UsageError(f"{source}: check reads a run file (.toml) or a table ({', '.join(TABLE_ENDINGS)})")
    if bundle is not None:
        return load(bundle).read(source, images=images, columns=columns), Findings()
    findings = Findings()
    try:
        options = run_of(source, images=images, attributes=attributes, columns=columns)
    except ConfigError as error:
        options, findings = _readable_part(source, error)
    return read_data(options.data), findings


def _readable_part(source: Path, error: ConfigError) -> tuple[RunOptions, Findings]:
    """Go on with the data part of a run file whose other parts are wrong, so that all problems come together."""
    import tomllib

    try:
        data = tomllib.loads(source.read_text(encoding="utf-8")).get("data", {})
        for key in ("catalog", "images", "attributes", "photos"):
            if isinstance(data.get(key), str):
                data[key] = str(source.parent / data[key])
        known = {key: value for key, value in data.items() if key in DataOptions.model_fields}
        options = run_options({"data": known}, str(source))
    except (OSError, ValueError, ConfigError):
        raise error from None
    lines = [line.strip() for line in str(error).split("\n")[1:]]
    return options, Findings(
        tuple(Finding("config", line, severity="error", field=source.name) for line in lines)
    )


def _without_repeats(findings: Findings) -> Findings:
    """An image that cannot be found is noticed when reading and when measuring; say it once."""
    seen: set[tuple[Any, ...]] = set()
    kept = []
    for finding in findings:
        image = finding.kind.startswith("image_")
        key = (finding.kind, finding.row, "" if image else finding.field, "" if image else finding.message)
        if key not in seen:
            seen.add(key)
            kept.append(finding)
    return Findings(tuple(kept))


def registered(kind: str = "") -> str:
    """Return what is registered, one line each with its options and the first line of its docstring.

    Args:
        kind: ``backbones``, ``heads``, ``losses``, ``number_losses``, ``text_encoders``, ``metrics`` or ``recipes``;
            empty for all.

    Raises:
        UsageError: another word.
    """
    kinds = {
        "backbones": "backbone",
        "heads": "heads",
        "losses": "loss",
        "number_losses": "number_loss",
        "text_encoders": "text_encoder",
        "metrics": "metric",
        "recipes": "recipe",
    }
    if kind and kind not in kinds:
        raise UsageError(
            f"there is no list of {kind!r}. {suggest(kind, kinds) or 'Known: ' + listing(kinds)}"
        )
    lines = []
    for title in [kind] if kind else list(kinds):
        registry = REGISTRIES[kinds[title]]
        lines.append(f"{title}:")
        for name in registry.names():
            caption = (inspect.getdoc(registry.get(name)) or "").split("\n")[0]
            shown = ", ".join(
                key if p.default is inspect.Parameter.empty else f"{key}={_default(p.default)}"
                for key, p in registry.options(name).items()
            )
            lines.append(f"  {name}{f'({shown})' if shown else ''}: {caption}")
    return "\n".join(lines) + "\n"


def _default(value: Any) -> str:
    text = repr(value)
    return text if not text.startswith("<") else "..."
