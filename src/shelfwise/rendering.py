"""A rendered catalogue with known answers: tables, pictures, and every fault planted in them.

Knows nothing of models, nor of how a garment is drawn: it plans the rows, writes files in the layout of the
attribute challenge and returns what it planted. Nothing of a real catalogue is copied: rows are drawn from
`shelves`, pictures by `drawings`.
"""

import functools
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from statistics import NormalDist

import numpy as np
import polars as pl
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

from shelfwise import shelves
from shelfwise.drawings import draw_product
from shelfwise.errors import UsageError
from shelfwise.shelves import CATEGORIES, Line

TEST_SHARE = 0.3
WRONG_SHARE = 0.02  # of the labels that train.csv states
DUPLICATE_SHARE = 0.03  # of the training products
UNREADABLE_SHARE = 0.01  # of the pictures of either split
KINDS = ("empty", "not_an_image", "truncated", "missing")
CLUSTERING = 0.6  # correlation of missing cells within a row
PICTURE = r"\b(?:train|test)_images/\d+\.(?:jpg|png|webp)\b"
NOT_AN_IMAGE = b"<!DOCTYPE html>\n<html><title>404 Not Found</title><body>No such file</body></html>\n"


@dataclass(frozen=True)
class WrongLabel:
    """A label planted wrong: `column` (attr_k) of product `id` says `stated`, its picture shows `true`."""

    id: int
    column: str
    attribute: str
    true: str
    stated: str


@dataclass(frozen=True)
class Duplicate:
    """A picture of product `source` saved again as `id`; `conflict` names the columns that disagree."""

    id: int
    source: int
    conflict: tuple[str, ...]


@dataclass(frozen=True)
class Unreadable:
    """A picture that cannot be opened: `kind` is empty, not_an_image, truncated or missing."""

    id: int
    split: str
    kind: str
    path: Path


@dataclass(frozen=True)
class RenderedCatalog:
    """Where the files are and what was planted; ids are unique over both splits."""

    directory: Path
    train: Path
    test: Path
    attributes: Path
    catalog: Path
    truth: Path
    test_labels: Path
    train_images: Path
    test_images: Path
    train_count: int
    test_count: int
    wrong_labels: tuple[WrongLabel, ...]
    duplicates: tuple[Duplicate, ...]
    unreadable: tuple[Unreadable, ...]


@dataclass(frozen=True)
class _Product:
    """One row: true values by attribute, stated values (a missing cell is absent), and what was planted."""

    id: int
    split: str
    line: Line
    seed: str
    file: str
    true: Mapping[str, str]
    stated: Mapping[str, str]
    source: "_Product | None" = None
    unreadable: str = ""
    wrong: tuple[str, ...] = ()


def render_catalog(
    directory: Path,
    *,
    products: int = 1500,
    seed: int = 0,
    size: tuple[int, int] = (240, 320),
    progress: Callable[[int, int], None] | None = None,
) -> RenderedCatalog:
    """Render a small fashion catalogue; the same arguments give the same bytes.

    Writes train.csv and test.csv (challenge layout), category_attributes.parquet, catalog.csv (the training
    rows with named columns and listing text), the pictures, test_labels.csv (the test rows with their true
    values, challenge layout) and truth.csv (every row of both splits, its true values and what was planted).

    Args:
        directory: created if need be; the files of an earlier run are replaced.
        products: rows over both splits, at least 40; three in ten are test rows.
        seed: of everything random.
        size: width and height of the pictures in pixels.
        progress: called with (pictures done, pictures in all) after each picture.

    Raises:
        UsageError: fewer than 40 products, or a size below 32 pixels.
    """
    if products < 40 or min(size) < 32:
        raise UsageError(f"need at least 40 products and 32 pixels a side, not {products} products of {size}")
    rows = plan(products, seed)
    if (directory / "truth.csv").exists():  # pictures of an earlier run, perhaps under other names
        for name in re.findall(PICTURE, (directory / "truth.csv").read_text(encoding="utf-8")):
            (directory / name).unlink(missing_ok=True)
    for split in ("train", "test"):
        (directory / f"{split}_images").mkdir(parents=True, exist_ok=True)
    for done, row in enumerate(rows, 1):
        _write_picture(directory / f"{row.split}_images" / row.file, row, size)
        if progress is not None:
            progress(done, len(rows))
    _write_tables(directory, rows, seed)
    return _describe(directory, rows)


def plan(products: int, seed: int) -> list[_Product]:
    """Decide every row before drawing: values, gaps, faults, duplicates, ids and file names."""
    rng = Random(f"shelfwise plan {seed}")
    rows: list[_Product] = []
    number = 0
    for split, share in (("train", 1 - TEST_SHARE), ("test", TEST_SHARE)):
        number = -(-number // 1000) * 1000  # the test ids start at the next full thousand
        of_split: list[_Product] = []
        copies = round(products * share * DUPLICATE_SHARE) if split == "train" else 0
        counts = _shares([line.share for line in CATEGORIES], round(products * share) - copies)
        for line, count in zip(CATEGORIES, counts, strict=True):
            for k in range(count):
                true = shelves.values_of(line, rng)
                name = f"{seed} {split} {line.category} {k}"
                of_split.append(_Product(0, split, line, name, "", true, _with_gaps(line, true, rng)))
        if split == "train":
            of_split = _mislabel(of_split, rng)
        of_split = _break(of_split, rng, at_least=len(KINDS) if products >= 300 else 1)
        of_split += _copies(of_split, copies, rng)
        of_split = [of_split[k] for k in _shuffled_by_category(of_split, rng)]
        for row in of_split:
            number += 1 if rng.random() < 0.9 else rng.randrange(2, 6)
            suffix = rng.choices(("jpg", "png", "webp"), (94, 3, 3))[0] if not row.unreadable else "jpg"
            rows.append(replace(row, id=number, file=f"{number:06d}.{suffix}"))
    by_seed = {row.seed: row for row in rows if row.source is None}
    return [row if row.source is None else replace(row, source=by_seed[row.source.seed]) for row in rows]


def _shares(weights: Sequence[float], count: int) -> list[int]:
    """Divide a count by weights, remainders to the largest fractions."""
    exact = [count * weight / sum(weights) for weight in weights]
    whole = [int(x) for x in exact]
    for k in sorted(range(len(exact)), key=lambda k: whole[k] - exact[k])[: count - sum(whole)]:
        whole[k] += 1
    return whole


def _shuffled_by_category(rows: Sequence[_Product], rng: Random) -> list[int]:
    """Return row positions grouped by category in the order of the table, shuffled within each."""
    order = {line.category: k for k, line in enumerate(CATEGORIES)}
    keys = [(order[row.line.category], rng.random()) for row in rows]
    return sorted(range(len(rows)), key=lambda k: keys[k])


def _with_gaps(line: Line, true: Mapping[str, str], rng: Random) -> dict[str, str]:
    """Leave cells out, together more often than apart; never all of a row.

    A Gaussian copula: one normal draw a row and one a cell, mixed so that two cells correlate by CLUSTERING;
    a cell is missing where its mix falls below the quantile of its attribute's missing rate.
    """
    shared = rng.gauss(0, 1)
    depth = {}
    for name, rate in line.missing.items():
        mixed = CLUSTERING**0.5 * shared + (1 - CLUSTERING) ** 0.5 * rng.gauss(0, 1)
        depth[name] = mixed - NormalDist().inv_cdf(rate / 100)
    kept = {name: true[name] for name in line.attributes if depth[name] >= 0}
    fullest = max(depth, key=lambda name: depth[name])
    return kept or {fullest: true[fullest]}


def _mislabel(rows: Sequence[_Product], rng: Random) -> list[_Product]:
    """State another value of the attribute in a share of the labelled cells."""
    cells = [(k, name) for k, row in enumerate(rows) for name in row.stated]
    changed = list(rows)
    for k, name in rng.sample(cells, max(1, round(len(cells) * WRONG_SHARE))):
        changed[k] = _with_wrong(changed[k], name, rng)
    return changed


def _with_wrong(row: _Product, name: str, rng: Random) -> _Product:
    others = [value for value in row.line.values(name) if value != row.true[name]]
    return replace(row, stated={**row.stated, name: rng.choice(others)}, wrong=(*row.wrong, name))


def _break(rows: Sequence[_Product], rng: Random, at_least: int) -> list[_Product]:
    """Choose the rows whose pictures will not open, the kinds in turn."""
    changed = list(rows)
    count = max(at_least, round(len(rows) * UNREADABLE_SHARE))
    for turn, k in enumerate(rng.sample(range(len(rows)), count)):
        changed[k] = replace(changed[k], unreadable=KINDS[turn % len(KINDS)])
    return changed


def _copies(rows: Sequence[_Product], count: int, rng: Random) -> list[_Product]:
    """List products a second time under another id; every third with a label that contradicts the first."""
    sources = rng.sample([row for row in rows if not row.unreadable and not row.wrong], count)
    copies = []
    for k, source in enumerate(sources):
        copy = replace(source, source=source, seed=f"{source.seed} again")
        if k % 3 == 0:
            copy = _with_wrong(copy, rng.choice(list(source.stated)), rng)
        copies.append(copy)
    return copies


def _write_picture(path: Path, row: _Product, size: tuple[int, int]) -> None:
    if row.unreadable in ("missing", "empty", "not_an_image"):
        if row.unreadable != "missing":
            path.write_bytes(b"" if row.unreadable == "empty" else NOT_AN_IMAGE)
        return
    rng = Random(row.seed)
    if row.source is None:
        picture = _photograph(draw_product(row.line.category, row.true, rng), rng, size)
    else:
        first = Random(row.source.seed)
        picture = _disguise(_photograph(draw_product(row.line.category, row.true, first), first, size), rng)
    buffer = io.BytesIO()
    if path.suffix == ".jpg":
        picture.save(buffer, "JPEG", quality=rng.randrange(68, 93))
    elif path.suffix == ".webp":
        picture.save(buffer, "WEBP", quality=rng.randrange(70, 93), method=1)
    else:
        picture.save(buffer, "PNG", compress_level=1)
    data = buffer.getvalue()
    path.write_bytes(
        data[: len(data) * rng.randrange(30, 60) // 100] if row.unreadable == "truncated" else data
    )


@functools.cache
def _grain() -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    return np.random.default_rng(7).normal(0, 1, size=(997, 3)).astype(np.float32)


def _photograph(drawing: Image.Image, rng: Random, size: tuple[int, int]) -> Image.Image:
    """Turn a drawing into a camera's picture: scaled down, lit warm or cold, with grain."""
    small = drawing.reduce(2) if size == (drawing.width // 2, drawing.height // 2) else drawing.resize(size)
    warm = rng.gauss(0, 0.025)
    gain = np.array([1 + warm, 1.0, 1 - warm], dtype=np.float32) * rng.uniform(0.9, 1.08)
    corners = np.array([[rng.uniform(0.88, 1.05) for _ in "lr"] for _ in "tb"], dtype=np.float32)
    lamp = np.asarray(Image.fromarray(corners).resize(small.size, Image.Resampling.BILINEAR))
    pixels = np.asarray(small, dtype=np.float32) * lamp[..., None] * gain
    start, level = rng.randrange(997), rng.uniform(0.5, 4.5)
    flat = np.resize(np.roll(_grain(), start, axis=0), pixels.shape)
    return Image.fromarray((pixels + flat * level).clip(0, 255).astype(np.uint8))


def _disguise(picture: Image.Image, rng: Random) -> Image.Image:
    """Make the near-duplicate that a second upload is: rescaled, a little brighter, or trimmed."""
    width, height = picture.size
    if rng.random() < 0.5:
        share = rng.uniform(0.75, 1.2)
        picture = picture.resize((round(width * share), round(height * share)), Image.Resampling.BICUBIC)
    if rng.random() < 0.4:
        trim = max(1, round(picture.width * 0.012))
        picture = picture.crop((trim, trim, picture.width - trim, picture.height - trim))
    return ImageEnhance.Brightness(picture).enhance(rng.uniform(0.97, 1.08))


def _attr_columns(row: _Product, values: Mapping[str, str]) -> dict[str, str | None]:
    """Lay the values of a row out as attr_1..attr_N over the widest category."""
    widest = max(len(line.attributes) for line in CATEGORIES)
    names = [*row.line.attributes, *[""] * (widest - len(row.line.attributes))]
    return {f"attr_{k}": values.get(name) for k, name in enumerate(names, 1)}


def _column_of(row: _Product, name: str) -> str:
    return f"attr_{row.line.attributes.index(name) + 1}"


def _write_tables(directory: Path, rows: Sequence[_Product], seed: int) -> None:
    train = [row for row in rows if row.split == "train"]
    test = [row for row in rows if row.split == "test"]

    def challenge(row: _Product, values: Mapping[str, str]) -> dict[str, object]:
        head: dict[str, object] = {
            "id": row.id,
            "Category": row.line.category,
            "len": len(row.line.attributes),
        }
        return {**head, **_attr_columns(row, values)}

    def save(name: str, records: list[dict[str, object]]) -> None:
        pl.DataFrame(records, infer_schema_length=None).write_csv(directory / name)

    save("train.csv", [challenge(row, row.stated) for row in train])
    save("test.csv", [{"id": row.id, "Category": row.line.category} for row in test])
    save("test_labels.csv", [challenge(row, row.true) for row in test])
    save("truth.csv", [_truth(row) for row in rows])
    names = dict.fromkeys(name for line in CATEGORIES for name in line.attributes)
    named = []
    for row in train:
        listing = shelves.listing(row.line, row.true, Random(f"{seed} listing {row.id}"))
        head = {"id": row.id, "image": f"train_images/{row.file}", "category": row.line.category}
        named.append({**head, **{name: row.stated.get(name) for name in names}, **listing})
    save("catalog.csv", named)
    lists = [(line.category, len(line.attributes), list(line.attributes)) for line in CATEGORIES]
    columns = ["Category", "No_of_attribute", "Attribute_list"]
    pl.DataFrame(lists, schema=columns, orient="row").write_parquet(directory / "category_attributes.parquet")


def _truth(row: _Product) -> dict[str, object]:
    return {
        "id": row.id,
        "split": row.split,
        "Category": row.line.category,
        "image": f"{row.split}_images/{row.file}",
        **_attr_columns(row, row.true),
        "wrong_label": ";".join(_column_of(row, name) for name in row.wrong) or None,
        "duplicate_of": None if row.source is None else row.source.id,
        "unreadable": row.unreadable or None,
    }


def _describe(directory: Path, rows: Sequence[_Product]) -> RenderedCatalog:
    train = sum(row.split == "train" for row in rows)
    wrong, duplicates, unreadable = [], [], []
    for row in rows:
        for name in row.wrong:
            wrong.append(WrongLabel(row.id, _column_of(row, name), name, row.true[name], row.stated[name]))
        if row.source is not None:
            conflict = tuple(_column_of(row, name) for name in row.wrong)
            duplicates.append(Duplicate(row.id, row.source.id, conflict))
        if row.unreadable:
            path = directory / f"{row.split}_images" / row.file
            unreadable.append(Unreadable(row.id, row.split, row.unreadable, path))
    return RenderedCatalog(
        directory=directory,
        train=directory / "train.csv",
        test=directory / "test.csv",
        attributes=directory / "category_attributes.parquet",
        catalog=directory / "catalog.csv",
        truth=directory / "truth.csv",
        test_labels=directory / "test_labels.csv",
        train_images=directory / "train_images",
        test_images=directory / "test_images",
        train_count=train,
        test_count=len(rows) - train,
        wrong_labels=tuple(wrong),
        duplicates=tuple(duplicates),
        unreadable=tuple(unreadable),
    )


def contact_sheet(rendered: RenderedCatalog, path: Path, columns: int = 8, rows: int = 3) -> None:
    """Write a sheet of `columns` x `rows` training products, the categories in turn, with captions."""
    truth = pl.read_csv(rendered.truth, infer_schema_length=None).filter(
        (pl.col("split") == "train") & pl.col("unreadable").is_null() & pl.col("duplicate_of").is_null()
    )
    shelves_of = {
        line.category: truth.filter(pl.col("Category") == line.category).to_dicts() for line in CATEGORIES
    }
    cell, gap, text = (150, 200), 14, 46
    size = (columns * (cell[0] + gap) + gap, rows * (cell[1] + text + gap) + gap)
    sheet = Image.new("RGB", size, (250, 249, 246))
    draw = ImageDraw.Draw(sheet)
    for k in range(columns * rows):
        line = CATEGORIES[k % len(CATEGORIES)]
        row = shelves_of[line.category][(k // len(CATEGORIES)) * 7 % len(shelves_of[line.category])]
        x, y = gap + k % columns * (cell[0] + gap), gap + k // columns * (cell[1] + text + gap)
        with Image.open(rendered.directory / str(row["image"])) as picture:
            sheet.paste(ImageOps.fit(picture.convert("RGB"), cell), (x, y))
        words = [str(row[f"attr_{line.attributes.index(name) + 1}"]) for name in line.caption]
        words = [word.removesuffix(" length") for word in words]
        draw.text((x, y + cell[1] + 5), line.category, font=ImageFont.load_default(12), fill=(40, 40, 46))
        for at, note in enumerate((", ".join(words[:2]), ", ".join(words[2:]))):
            spot = (x, y + cell[1] + 19 + 12 * at)
            draw.text(spot, note, font=ImageFont.load_default(10), fill=(120, 118, 116))
    sheet.save(path)
