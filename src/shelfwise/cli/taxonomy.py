"""Verbs on a taxonomy that changes: taxonomy diff, taxonomy migrate.

They parse, call one library function and print.
"""

from pathlib import Path
from typing import Annotated

import typer

from shelfwise.cli.options import Category, Id, Out, app, columns_of
from shelfwise.errors import UsageError

verbs = typer.Typer(
    help="What changed between two taxonomies, and how data and bundles follow.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(verbs, name="taxonomy")

Old = Annotated[Path, typer.Argument(metavar="OLD", help="taxonomy.json or a bundle.")]
New = Annotated[Path, typer.Argument(metavar="NEW", help="taxonomy.json or a bundle.")]
Rename = Annotated[
    list[str] | None,
    typer.Option(metavar="OLD=NEW", help="A category, attribute or value that has a new name; repeatable."),
]
Map = Annotated[
    Path | None, typer.Option("--map", help="TOML or JSON: what was renamed, merged, split or retired.")
]


@verbs.command()
def diff(
    old: Old,
    new: New,
    on: Annotated[
        Path | None, typer.Option(metavar="TABLE", help="List the products of this table that it concerns.")
    ] = None,
    map: Map = None,
    rename: Rename = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="The changes, or with --on the cells: .json, .csv, .parquet, .txt."),
    ] = None,
    id: Id = "",
    category: Category = "",
) -> None:
    """Say what was added, renamed, merged, split and retired, and which products must be answered again."""
    from shelfwise.migrate import read_changes, recode_table, write_affected

    changes, schema = read_changes(old, new, mapping=map, renames=rename or ())
    print(changes, end="")
    if on is None:
        if out is not None:
            changes.write(out)
        return
    recoded = recode_table(on, changes, schema, columns_of(id, category, "", "", "", ""))
    print(recoded.summary(), end="")
    if out is not None:
        write_affected(recoded, out)
        print(f"wrote {out}: {len(recoded.affected):,} cells")


@verbs.command()
def migrate(
    old: Old,
    new: New,
    out: Out,
    bundle: Annotated[Path | None, typer.Option(help="Carry this bundle over.")] = None,
    table: Annotated[Path | None, typer.Option(help="Carry the cells of this table over.")] = None,
    map: Map = None,
    rename: Rename = None,
    id: Id = "",
    category: Category = "",
) -> None:
    """Carry a bundle or a table over to the new taxonomy; nothing is learnt and nothing is lost in silence."""
    from shelfwise.bundle import load
    from shelfwise.manifest import check_target
    from shelfwise.migrate import carry_over, read_changes, recode_table, write_table

    if (bundle is None) == (table is None):
        raise UsageError("taxonomy migrate carries one thing over: give --bundle BUNDLE or --table TABLE")
    changes, schema = read_changes(old, new, mapping=map, renames=rename or ())
    print(changes, end="")
    if bundle is not None:
        check_target(out)
        migrated = carry_over(load(bundle), changes)
        migrated.save(out)
        print(*(f"Note: {note}" for note in migrated.report.notes), sep="\n")
        attributes, values = len(migrated.untrained), len(migrated.untrained_values)
        print(f"wrote {out}; never learnt in it: {attributes:,} attribute(s), {values:,} value(s)")
    elif table is not None:
        recoded = recode_table(table, changes, schema, columns_of(id, category, "", "", "", ""))
        findings = write_table(recoded, out)
        print(recoded.summary(), end="")
        print(f"wrote {out} and {findings}: {len(recoded.findings):,} cells were emptied")
