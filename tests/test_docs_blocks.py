"""Every code block of README and docs runs: a page's blocks one after another, in one folder.

The folder is a small rendered catalogue with a bundle learnt from it, made once. What cannot run here is marked on
the page, and counted by its reason below, so that no block stops running unnoticed.
"""

import contextlib
import os
import shutil
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from conftest import ROOT
from docs_blocks import Walk, blocks_of, logical_lines, run_here

DOCS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
#: Generated pages and design records hold what others wrote down; a record may quote what is no more.
PAGES = [page for page in DOCS if "design" not in page.parts]
BLOCKS = {page: blocks_of(page) for page in PAGES}
RUN = [page for page in PAGES if any(block.runs for block in BLOCKS[page])]
#: Why a block is not run, and how often each page may say so.
ALLOWED = {
    "README.md": {"installs packages": 1, "needs make": 1},
    "CONTRIBUTING.md": {"needs make": 1},
    "docs/how-to/export-without-torch.md": {"installs packages": 1, "takes minutes": 1},
    "docs/how-to/millions-of-rows.md": {"needs a Ray cluster": 1, "needs a network": 1},
    "docs/how-to/review-and-label.md": {"needs annotations of others": 1},
    "docs/how-to/serve.md": {"listens to the world": 1, "needs an engine for containers": 1},
    "docs/how-to/train-on-my-table.md": {"takes minutes": 1},
    "docs/reference.md": {"needs a network": 1},
    "docs/tour.md": {"installs packages": 1, "takes minutes": 1},
    "docs/tutorial.md": {"takes minutes": 2},
    "docs/reproduce-meesho.md": {"needs the files of the challenge": 4},
    "docs/reproduce-amazon.md": {"needs the files of the challenge": 4},
}
LANGUAGES = {"sh", "bash", "python", "toml", "text", "json", "html", "yaml"}
PRODUCTS = 60


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_blocks_have_a_known_language() -> None:
    unknown = [
        f"{name(page)}:{block.line}: {block.language}"
        for page in PAGES
        for block in BLOCKS[page]
        if block.language not in LANGUAGES
    ]
    assert not unknown


def test_marks_are_understood() -> None:
    for page in PAGES:
        for block in BLOCKS[page]:
            known = not block.mark or block.reason or block.file or block.mark.startswith("exit: ")
            assert known, f"{name(page)}:{block.line}: {block.mark}"


def test_what_is_not_run_is_allowed() -> None:
    found = {name(page): dict(Counter(b.reason for b in BLOCKS[page] if b.reason)) for page in PAGES}
    assert {page: reasons for page, reasons in found.items() if reasons} == ALLOWED


def test_most_blocks_run() -> None:
    runnable = [b for blocks in BLOCKS.values() for b in blocks if b.language in ("sh", "bash", "python")]
    assert sum(block.runs for block in runnable) >= 0.75 * len(runnable)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("docs-cache")


@pytest.fixture(scope="module")
def prepared(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has before any page: tables and photos in both layouts, and a bundle learnt from one."""
    from shelfwise.rendering import render_catalog

    folder = tmp_path_factory.mktemp("docs")
    rendered = render_catalog(folder / "demo" / "catalogue", products=PRODUCTS, seed=0)
    for path in rendered.directory.iterdir():
        link = shutil.copytree if path.is_dir() else shutil.copy2
        link(path, folder / path.name)
    (folder / "catalog.csv").unlink()
    shutil.copytree(rendered.train_images, folder / "photos")
    shutil.copytree(rendered.test_images, folder / "photos", dirs_exist_ok=True)
    _named_tables(folder, rendered.catalog, rendered.test_labels)
    shutil.copy2(next((folder / "photos").glob("000001.*")), folder / "photo.jpg")
    for run_file in (ROOT / "examples").glob("*.toml"):
        shutil.copy2(run_file, folder / run_file.name)
    with _quick(cache), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        code, said = run_here(["fit", "catalog.csv", "--images", "photos", "-o", "bundle"])
    assert code == 0, said
    return folder


def _named_tables(folder: Path, catalog: Path, test_labels: Path) -> None:
    """``catalog.csv`` with labels, ``labelled.csv`` with the labels of others, ``new.csv`` without any."""
    table = pl.read_csv(catalog, infer_schema_length=0)
    table = table.with_columns(pl.col("image").str.strip_prefix("train_images/")).drop("description", "price")
    table = table.with_columns(pl.col("category").replace("Women Tops & Tunics", "Tops"))
    attributes = [column for column in table.columns if column not in ("id", "image", "category", "title")]
    readable = pl.col("image").map_elements(lambda file: _readable(folder / "photos" / file), pl.Boolean)
    table.filter(readable).write_csv(folder / "catalog.csv")
    lists = pl.read_parquet(folder / "category_attributes.parquet")
    names = dict(zip(lists["Category"], lists["Attribute_list"].to_list(), strict=True))
    rows = []
    for row in pl.read_csv(test_labels, infer_schema_length=0).iter_rows(named=True):
        found = sorted((folder / "photos").glob(f"{int(row['id']):06d}.*"))
        cells = {attribute: row[f"attr_{at}"] for at, attribute in enumerate(names[row["Category"]], 1)}
        rows.append(
            {
                "id": row["id"],
                "image": found[0].name if found else f"{int(row['id']):06d}.jpg",
                "category": row["Category"].replace("Women Tops & Tunics", "Tops"),
                **{attribute: cells.get(attribute) for attribute in attributes},
                "title": f"No. {row['id']}",
                "supplier": ("Asha", "Birla", "Chand")[int(row["id"]) % 3],
            }
        )
    labelled = pl.DataFrame(rows, infer_schema_length=None)
    labelled.write_csv(folder / "labelled.csv")
    labelled.drop(attributes).write_csv(folder / "new.csv")


def _readable(photo: Path) -> bool:
    """Whether a photo is one; the faults that the demo plants are for the pages about its own tables."""
    try:
        Image.open(photo).load()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _quick(cache: Path) -> Iterator[None]:
    """One thread, one cache, no learning curve; what a page registers is taken back."""
    import shelfwise.expect
    import shelfwise.testing
    from shelfwise.models.towers import one_thread
    from shelfwise.registry import REGISTRIES

    with pytest.MonkeyPatch.context() as patch, one_thread():
        patch.setattr(shelfwise.expect, "MOST_SECONDS", 0.0)
        patch.setenv("SHELFWISE_CACHE", str(cache))
        for registry in REGISTRIES.values():
            registry.load()
            patch.setattr(registry, "entries", dict(registry.entries))
        yield


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=name)
def test_the_blocks_of_a_page_run(page: Path, prepared: Path, cache: Path, tmp_path: Path) -> None:
    if any("curl " in block.body for block in BLOCKS[page] if block.runs) and shutil.which("curl") is None:
        pytest.skip("the page asks with curl, which is not installed")
    folder = tmp_path / "reader"
    shutil.copytree(prepared, folder, copy_function=os.link)
    with _quick(cache), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Walk(folder, cache).follow(BLOCKS[page])


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(b.language == "toml" for b in BLOCKS[page])], ids=name
)
def test_parts_of_run_files_are_valid(page: Path, tmp_path: Path) -> None:
    """A block with tables of a run file is one, once it names a table of products."""
    from shelfwise.config import RunOptions, make_recipe, read_run

    (tmp_path / "catalog.csv").write_text("id,category,colour\n", encoding="utf-8")
    for block in BLOCKS[page]:
        table = tomllib.loads(block.body) if block.language == "toml" else {}
        if not table or not table.keys() <= RunOptions.model_fields.keys():
            continue
        if "catalog" not in table.get("data", {}):
            assert "[data]" not in block.body, f"{name(page)}:{block.line}: [data] without a catalog"
            block_text = block.body + '\n[data]\ncatalog = "catalog.csv"\n'
        else:
            block_text = block.body
        (tmp_path / "run.toml").write_text(block_text, encoding="utf-8")
        options = read_run(tmp_path / "run.toml")
        if options.recipe:
            make_recipe(options.recipe)


def test_a_block_that_fails_is_told_with_its_place(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```sh\nshelfwise show nowhere\n```\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        with pytest.raises(AssertionError, match=r"page\.md:3: shelfwise show nowhere\nended with 2"):
            Walk(tmp_path, tmp_path).follow(blocks_of(page))
        page.write_text("```sh\nls nowhere | sort\n```\n", encoding="utf-8")
        with pytest.raises(AssertionError, match=r"page\.md:1"):
            Walk(tmp_path, tmp_path).follow(blocks_of(page))
        page.write_text("```python\nimport shelfwise as sw\nsw.nothing\n```\n", encoding="utf-8")
        with pytest.raises(AttributeError):
            Walk(tmp_path, tmp_path).follow(blocks_of(page))


def test_marks_of_blocks_are_read(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- not run: needs a GPU -->\n```sh\na\n```\n"
        "<!-- file: sub/run.toml -->\n```toml\nseed = 0\n```\n"
        "<!-- exit: 3 -->\n```sh\nb \\\n  c   # why\n\n# nothing\n```\n",
        encoding="utf-8",
    )
    first, second, third = blocks_of(page)
    assert (first.reason, first.runs, first.line) == ("needs a GPU", False, 2)
    assert (second.file, second.runs) == ("sub/run.toml", False)
    assert (third.codes, third.runs, logical_lines(third.body)) == ((0, 3), True, ["b c"])
