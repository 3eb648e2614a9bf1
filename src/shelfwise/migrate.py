"""Migrate: a bundle, its evidence and a table of products, from one taxonomy to the next.

It does not know how anything was learnt, and learns nothing. What a bundle learnt stays as it is, to the bit;
``recipes.remapped`` says how it reads now, and everything that was never learnt is named.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from shelfwise.bundle import Bundle, load
from shelfwise.catalog import Schema
from shelfwise.changes.affected import Recoded
from shelfwise.changes.change import AttributeMap, CategoryMap, Changes
from shelfwise.changes.diff import diff
from shelfwise.changes.recode import recode
from shelfwise.changes.relayout import new_columns, schema_of
from shelfwise.changes.renames import Renames
from shelfwise.errors import PredictionError, TaxonomyError, UsageError
from shelfwise.manifest import INDEX
from shelfwise.plaintext import write_result
from shelfwise.recipes.index import TrainingIndex
from shelfwise.recipes.remapped import Carry, Remapped, untrained_notes
from shelfwise.report import Line, Report
from shelfwise.roles import Columns, fit_roles
from shelfwise.tables import read_table, write_frame
from shelfwise.taxonomy import Taxonomy
from shelfwise.trust.decide import Rule, decide
from shelfwise.trust.evidence import Evidence, EvidenceBlock


def migrate(bundle: Bundle, new: Taxonomy, renames: Renames | Mapping[str, Any] | None = None) -> Bundle:
    """Return a bundle that answers under another taxonomy with what it has learnt.

    Args:
        bundle: under the taxonomy before; itself unchanged.
        new: the taxonomy after.
        renames: what was renamed, merged, split or retired, where the taxonomies do not say it by aliases; as
            nested tables: ``{"values": {"colour": {"red": "crimson"}}}``.

    Raises:
        TaxonomyError: a declaration about a name that is not there.
    """
    return carry_over(bundle, diff(bundle.taxonomy, new, renames))


def carry_over(bundle: Bundle, changes: Changes) -> Bundle:
    """Return a bundle migrated by changes that are worked out already; see ``migrate``.

    Raises:
        TaxonomyError: the changes start from another taxonomy than the bundle's.
    """
    if bundle.taxonomy != changes.old:
        raise TaxonomyError(
            f"the bundle answers under the taxonomy {bundle.taxonomy.hash[:12]}, the old one given is "
            f"{changes.old.hash[:12]}: name the bundle itself as the old taxonomy"
        )
    if changes.new == changes.old:
        return bundle
    predictor = Remapped(bundle.predictor, Carry.of(changes))
    schema = new_columns(bundle.schema, changes)
    report = migrate_report(bundle.report, changes, bundle, predictor)
    # Made anew, not by ``replace``: what is fitted to the old taxonomy must not slip through unchanged.
    return refit_trust(bundle, Bundle(schema, bundle.recipe, predictor, report, bundle.run), changes)


def refit_trust(before: Bundle, migrated: Bundle, changes: Changes) -> Bundle:
    """Return the migrated bundle with what it knows about its own reliability, worked out anew.

    The place where the evidence (``migrate_evidence``), the rule fitted on it and the index of training
    products (``migrate_index``) are carried over.

    Args:
        before: the bundle under the old taxonomy.
        migrated: the bundle under the new one, without any of them.
        changes: from the old to the new one.
    """
    if before.evidence is None or before.rule is None:
        return migrated
    evidence = migrate_evidence(before.evidence, changes)
    rule = replace(
        migrate_rule(before.rule, decide(evidence, before.rule.metric, aim=before.run.decide.aim), changes),
        untrained=migrated.untrained,
        untrained_values=migrated.untrained_values,
    )
    index = migrate_index(before.index, changes) if before.index is not None else None
    kept = replace(migrated, evidence=evidence, rule=rule, index=index)
    lost = ["some costs of wrong answers"] if len(rule.costs) < len(before.rule.costs) else []
    lost += ["phrases read from texts"] if before.claims is not None else []
    if not lost:
        return kept
    return kept.with_notes(
        f"Not carried over to the new taxonomy, fit again to have them: {', '.join(lost)}."
    )


def migrate_evidence(evidence: Evidence, changes: Changes) -> Evidence:
    """Return evidence under the new taxonomy.

    Probabilities read exactly as the migrated bundle's do. Labels are mapped where one new value is certain;
    those of split and retired values are none, and added attributes have none. Rows of a category that was
    merged, split or retired have no evidence any more: nothing says how the new one is answered.

    Args:
        evidence: under the old taxonomy.
        changes: from that taxonomy to the new one.

    Raises:
        PredictionError: evidence of another taxonomy.
    """
    if evidence.taxonomy != changes.old:
        raise PredictionError("the evidence is of another taxonomy than the changes start from")
    carry = Carry.of(changes)
    blocks = []
    for category in changes.new.categories:
        source = carry.source.get(category)
        block = evidence.block(source.old) if source is not None else None
        if source is None or block is None or carry.onward.get(source.old) != category:
            continue
        probs, labels = carry.probs(category, block.probs), carry.labels(category, block.labels)
        opinions = tuple(carry.probs(category, opinion) for opinion in block.opinions)
        blocks.append(EvidenceBlock(category, block.rows, probs, labels, opinions))
    names, codes = (*changes.old.categories, ""), changes.new.category_codes
    code = np.array([codes.get(carry.onward.get(name, ""), -1) for name in names], np.int32)
    amounts = tuple(
        replace(item, name=carry.numbers[item.name], category=code[item.category])
        for item in evidence.amounts
        if item.name in carry.numbers
    )
    return replace(evidence, taxonomy=changes.new, blocks=tuple(blocks), amounts=amounts)


def migrate_rule(before: Rule, refitted: Rule, changes: Changes) -> Rule:
    """Return the rule of the new taxonomy: attributes whose values are the same ones keep theirs exactly.

    Args:
        before: of the old taxonomy.
        refitted: fitted on the migrated evidence; what holds for all other attributes.
        changes: from the old taxonomy to the new one.
    """
    old, new = before.calibration, refitted.calibration
    pairs, counts = dict(new.pairs), dict(new.counts)
    offsets, costs = dict(refitted.offsets), dict(refitted.costs)
    for source in Carry.of(changes).source.values():
        for item in source.attributes:
            name, was = (source.new, item.new), (source.old, item.old)
            order = _order(item, source, changes)
            if order is None:
                continue
            if was in old.pairs:
                pairs[name] = old.pairs[was]
            if was in old.counts:
                counts[name] = tuple(old.counts[was][code] for code in order)
            if was in before.offsets:
                offsets[name] = tuple(before.offsets[was][code] for code in order)
            if was in before.costs:
                table = before.costs[was]
                costs[name] = tuple(tuple(table[row][column] for column in order) for row in order)
    return replace(
        refitted, calibration=replace(new, pairs=pairs, counts=counts), offsets=offsets, costs=costs
    )


def _order(item: AttributeMap, source: CategoryMap, changes: Changes) -> tuple[int, ...] | None:
    """Each new value's code in the old attribute; ``None`` where the values are not the same ones, one for one."""
    if source.new not in changes.new.entries or len(source.into(item.new)) != 1:
        return None
    old, new = (
        next((choice for choice in taxonomy.choices(category) if choice.name == attribute), None)
        for taxonomy, category, attribute in (
            (changes.old, source.old, item.old),
            (changes.new, source.new, item.new),
        )
    )
    if old is None or new is None or any(len(names) != 1 for names in item.targets.values()):
        return None
    back = {names[0]: value for value, names in item.targets.items()}
    if len(back) != len(old.values) or set(back) != set(new.values):
        return None
    return tuple(old.codes[back[value]] for value in new.values)


def migrate_index(index: TrainingIndex, changes: Changes) -> TrainingIndex:
    """Return the index of training products under the new taxonomy, as if learnt under it.

    Products of a category that was split or retired are dropped: nothing says which new one they are of.

    Args:
        index: of the products learnt from, under the old taxonomy.
        changes: from that taxonomy to the new one.
    """
    onward = Carry.of(changes).onward
    return index.recategorised(changes.new, {name: onward.get(name, "") for name in changes.old.categories})


def migrate_report(report: Report, changes: Changes, before: Bundle, predictor: Remapped) -> Report:
    """Return the report of a migrated bundle: scores that still hold under new names, the others left out.

    Args:
        report: of the bundle before.
        changes: from its taxonomy to the new one.
        before: that bundle.
        predictor: the one carried over.
    """
    carry = Carry.of(changes)
    renamed = _renamed(changes, carry)
    lines = [line for old in report.lines if (line := _line(old, changes, carry, renamed)) is not None]
    stale = _notes(before.predictor) if isinstance(before.predictor, Remapped) else ()
    notes = [note for note in report.notes if note not in stale]
    result = replace(report, lines=tuple(lines))
    lost = len(report.of("attribute")) - len(result.of("attribute"))
    counted = ", ".join(f"{count} {kind}" for kind, count in changes.counts().items()) or "order only"
    notes.append(
        f"The taxonomy was changed after fitting ({counted}). The overall score is that under the old one; "
        f"Changed attributes without a score until the bundle is fitted again: {lost}."
    )
    return replace(result, notes=(*notes, *_notes(predictor)))


def _notes(predictor: Remapped) -> tuple[str, ...]:
    pairs = sorted(map("/".join, predictor.untrained))
    return untrained_notes(pairs, sorted(map("/".join, predictor.untrained_values)))


def _renamed(changes: Changes, carry: Carry) -> dict[tuple[str, str], dict[str, str]]:
    """Old (category, attribute) whose values are all there under one name each, and nothing else is."""
    found = {}
    for category, new in carry.onward.items():
        source = carry.source.get(new)
        for item in source.attributes if source is not None else ():
            names = {old: into[0] for old, into in item.targets.items() if len(into) == 1}
            alone = len(carry.maps_of(new, item.new)) == 1 and not changes.added_values(new, item.new)
            if alone and len(set(names.values())) == len(item.targets):
                found[category, item.old] = names
    return found


def _line(
    line: Line, changes: Changes, carry: Carry, renamed: dict[tuple[str, str], dict[str, str]]
) -> Line | None:
    """A line of the old report under new names, ``None`` where it does not hold any more."""
    if line.attribute in changes.old.number_names and line.level in ("overall", "category", "band"):
        name, new = carry.numbers.get(line.attribute), carry.onward.get(line.category or "")
        gone = name is None or (line.category is not None and new is None)
        return None if gone else line._replace(attribute=name, category=new)
    if line.category is None:
        return line
    new = carry.onward.get(line.category)
    source = carry.source.get(new) if new is not None else None
    if source is None:
        return None
    line = line._replace(category=new)
    if line.attribute is None:
        return line if _whole(source, changes, renamed) else None
    names = renamed.get((source.old, line.attribute))
    if names is None:
        return None
    attribute = next(item.new for item in source.attributes if item.old == line.attribute)
    value = None if line.value is None else names.get(line.value)
    return (
        line._replace(attribute=attribute, value=value) if (value is None) == (line.value is None) else None
    )


def _whole(source: CategoryMap, changes: Changes, renamed: dict[tuple[str, str], dict[str, str]]) -> bool:
    """Whether a category has the attributes it had, under whatever names."""
    old, new = changes.old.choices(source.old), changes.new.choices(source.new)
    return len(old) == len(new) and all((source.old, choice.name) in renamed for choice in old)


def read_changes(
    old: Path, new: Path, *, mapping: Path | None = None, renames: Sequence[str] = ()
) -> tuple[Changes, Schema | None]:
    """Compare two taxonomies on disk.

    Args:
        old: a ``taxonomy.json`` or a bundle.
        new: likewise.
        mapping: a file of declarations; see ``Renames.from_table``.
        renames: declarations ``OLD=NEW``, which count more than those of the file.

    Returns:
        The changes, and how tables are read under the old taxonomy where that is a bundle's.

    Raises:
        TaxonomyError, BundleError, UsageError: a file that cannot be read, or a declaration that is wrong.
    """
    before, schema = _taxonomy(old)
    after, _ = _taxonomy(new)
    declared = Renames.read(mapping) if mapping is not None else Renames()
    declared |= Renames.of_options(renames, before, after)
    return diff(before, after, declared), schema


def _taxonomy(path: Path) -> tuple[Taxonomy, Schema | None]:
    if path.is_dir():
        if (path / "taxonomy.json").is_file() and not (path / INDEX).is_file():
            raise UsageError(f"{path} is no bundle, but it holds a taxonomy: name {path / 'taxonomy.json'}")
        schema = load(path).schema
        return schema.taxonomy, schema
    return Taxonomy.load(path), None


def recode_table(
    path: Path, changes: Changes, schema: Schema | None = None, columns: Columns | None = None
) -> Recoded:
    """Read a table under the old taxonomy and bring it under the new one.

    Args:
        path: the table.
        changes: from the old taxonomy to the new one.
        schema: how it is read; by default what its columns' names say.
        columns: overrides of the columns' roles.

    Raises:
        CatalogError: a table that cannot be read, or without a product of the old taxonomy.
    """
    table = read_table(path)
    if schema is None:
        schema = schema_of(table, changes.old, columns)
    else:
        roles = fit_roles(table.frame, schema.roles, columns or Columns(), table.source)
        schema = replace(schema, roles=roles)
    return recode(table, schema, changes)


def write_table(recoded: Recoded, out: Path) -> Path:
    """Write a recoded table to ``.csv`` or ``.parquet``, and beside it ``<stem>.findings.csv``.

    Returns:
        The path of the findings: every cell that was emptied.

    Raises:
        UsageError: another ending.
    """
    write_frame(recoded.frame, out)
    findings = out.with_suffix(".findings.csv")
    recoded.findings.write(findings)
    return findings


def write_affected(recoded: Recoded, out: Path) -> None:
    """Write the affected cells to ``.csv``, ``.parquet``, ``.json`` or ``.txt`` (the summary)."""
    frame = recoded.table()
    write_result(out, frame, frame.write_json(), recoded.summary())
