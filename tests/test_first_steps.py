"""First steps on a table of one's own: odd headers, a forgotten option, a folder of photos and nothing else."""

from pathlib import Path

import polars as pl
import pytest

from conftest import Shell, Toy
from shelfwise.catalog import Catalog
from shelfwise.roles import Columns

ROWS = 40


def sheet(tmp_path: Path, **columns: list[str]) -> Path:
    """A table as a spreadsheet exports it: semicolons, blanks in the headers, an id that is there twice."""
    given: dict[str, list[str]] = {
        "Product Code": [f"SW-{max(k, 1):03d}" for k in range(ROWS)],
        "Photo File": [f"{k}.jpg" for k in range(ROWS)],
        "Main Category": [("Cups", "Plates")[k % 2] for k in range(ROWS)],
        "Colour ": [f"colour {k % 12}" for k in range(ROWS)],
        "MRP (Rs)": [f"{k + 100}" for k in range(ROWS)],
    }
    path = tmp_path / "sheet.csv"
    pl.DataFrame({**given, **columns}).write_csv(path, separator=";", include_bom=True)
    return path


def notes(catalog: Catalog) -> list[str]:
    return [finding.message for finding in catalog.findings.of(kind="reading")]


def test_what_could_be_the_id_or_the_category_is_said(tmp_path: Path) -> None:
    catalog = Catalog.read(sheet(tmp_path))
    assert catalog.schema.roles.id is None
    said = "\n".join(notes(catalog))
    assert "if 'Product Code' is the id (1 of its cells are empty or there twice), name it with --id" in said
    assert "name one with --category, such as 'Main Category'" in said
    named = Catalog.read(sheet(tmp_path), columns=Columns(id="Product Code", category="Main Category"))
    assert "numbered from 1" not in "\n".join(notes(named))
    assert [finding.row for finding in named.findings.of(kind="duplicate_id")] == [2]


@pytest.mark.parametrize("header", ["Mrp", " price", "Price [INR]", "Cost (per piece)"])
def test_a_unit_in_a_header_hides_no_number(tmp_path: Path, header: str) -> None:
    """Nor is it the id where every price is there once, as the measures of another column are not."""
    columns = {header: [f"{k + 100}" for k in range(ROWS)], "score": [f"0.{k + 100}" for k in range(ROWS)]}
    roles = Catalog.read(sheet(tmp_path, **columns)).schema.roles
    assert (roles.id, roles.numbers) == (None, ("MRP (Rs)", header))


def test_a_header_is_named_without_the_blanks_at_its_ends(tmp_path: Path, shell: Shell) -> None:
    catalog = Catalog.read(sheet(tmp_path), columns=Columns(choice=("Colour",)))
    assert "Colour " in catalog.schema.roles.choices
    both = sheet(tmp_path, Colour=["x"] * ROWS)
    found = Catalog.read(both, columns=Columns(ignore=("Colour",))).schema.roles
    assert "Colour" in found.ignored
    assert "Colour " not in found.ignored
    ran = shell("init", sheet(tmp_path), "-o", tmp_path / "run", "--choice", "Colour, Main Category")
    assert "attributes: Main Category, Colour " in ran.out


def test_one_mistake_in_all_rows_leaves_room_for_the_others(tmp_path: Path, shell: Shell) -> None:
    ran = shell("check", sheet(tmp_path), "--id", "Product Code", "--cache", tmp_path / "cache")
    assert (ran.code, ran.out.count("error: image_missing")) == (1, 20)
    assert "name the folder with --images" in ran.out
    assert f"{ROWS} image_missing" in ran.out
    assert "-o FILE.csv has all" in ran.out
    out = tmp_path / "all.csv"
    shell("check", sheet(tmp_path), "-o", out, "--cache", tmp_path / "cache")
    assert pl.read_csv(out).filter(pl.col("kind") == "image_missing").height == ROWS


@pytest.mark.parametrize("shard", [(), ("--shard", "4")], ids=["at once", "a job"])
def test_photos_and_nothing_else(
    tmp_path: Path, shell: Shell, saved: Path, toy: Toy, shard: tuple[str, ...]
) -> None:
    """No id, no category: rows are numbered, categories predicted."""
    names = pl.read_csv(toy.table, infer_schema=False)["image"].head(9)
    table, out = tmp_path / "photos.csv", tmp_path / "out.csv"
    pl.DataFrame({"image": names}).write_csv(table)
    given = ("--images", toy.directory, "--cache", tmp_path / "cache", "--engine", "torch", *shard)
    ran = shell("predict", saved, table, "-o", out, *given)
    assert ran.code == 0, ran.err
    assert "every category will be predicted" in ran.err
    stated = pl.read_csv(toy.table, infer_schema=False)["category"].head(9)
    answered = pl.read_csv(out, infer_schema=False)
    assert answered["id"].to_list() == [str(k) for k in range(1, 10)]
    right = sum(one == other for one, other in zip(answered["category"], stated, strict=True))
    assert right > 4


def test_a_file_of_answers_is_scored_as_its_bundle_reads_the_table(
    tmp_path: Path, shell: Shell, saved: Path, toy: Toy
) -> None:
    """In ten rows values hardly repeat: read by itself, the truth would have no attributes."""
    truth, out = tmp_path / "ten.csv", tmp_path / "out.csv"
    ten = pl.read_csv(toy.table, infer_schema=False).head(10)
    ten.with_columns(id=pl.lit("new-") + pl.col("id")).write_csv(truth)
    given = ("--images", toy.directory, "--cache", tmp_path / "cache", "--engine", "torch")
    shell("predict", saved, truth, "-o", out, "--every-cell", *given)
    ran = shell("evaluate", out, truth, "--bundle", saved, *given)
    assert ran.code == 0, ran.err
    lead = next(line for line in ran.out.splitlines() if "harmonic_f1" in line)
    direct = shell("evaluate", saved, truth, *given)
    assert lead == next(line for line in direct.out.splitlines() if "harmonic_f1" in line)


def test_a_folder_in_the_place_of_a_table(tmp_path: Path, shell: Shell, saved: Path) -> None:
    ran = shell("predict", saved, tmp_path, "-o", tmp_path / "o.csv")
    assert (ran.code, "their folder with --images" in ran.err) == (2, True)
    swapped = shell("predict", sheet(tmp_path), saved, "-o", tmp_path / "o.csv")
    assert "a bundle is the folder that fit wrote" in swapped.err


def test_the_version(shell: Shell) -> None:
    ran = shell("--version")
    assert (ran.code, ran.out.startswith("shelfwise ")) == (0, True)


@pytest.mark.parametrize("shard", [(), ("--shard", "4")], ids=["at once", "a job"])
def test_a_table_of_which_no_photo_is_found(
    tmp_path: Path, shell: Shell, saved: Path, toy: Toy, shard: tuple[str, ...]
) -> None:
    """All is written, and the exit code says that it is worth nothing."""
    table, out = tmp_path / "lost.csv", tmp_path / "out.csv"
    pl.read_csv(toy.table, infer_schema=False).head(9).write_csv(table)
    ran = shell(
        "predict", saved, table, "-o", out, "--images", tmp_path, "--cache", tmp_path / "cache", *shard
    )
    assert ran.code == 1
    assert "no row could be answered: see the table of errors, and --images" in ran.err
    assert pl.read_csv(out, infer_schema=False).height == 9
