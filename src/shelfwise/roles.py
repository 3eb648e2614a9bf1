"""Roles and Layout: which column is what, and how answers are laid out.

It knows column names and cell texts, not pictures or models. What is inferred can be overridden, and
is saved with a bundle so that a later table is read the same way.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, cast

import polars as pl

from shelfwise.errors import CatalogError, listing, suggest

MISSING = ("", "NaN", "dummy", "dummy_value", "Dummy_Values")
FILLER = "dummy_value"
ID_NAMES = ("id", "sample_id", "product_id", "item_id", "sku", "asin", "uniq_id", "style_id")
CATEGORY_NAMES = ("category", "product_category", "category_name")
#: Names of columns that may be meant as the category; they are named as a hint, not taken.
LIKE_CATEGORY = ("product_type", "article_type", "item_type", "product_group", "department", "type")
IMAGE_NAMES = (
    "image",
    "image_path",
    "image_file",
    "image_name",
    "images",
    "img",
    "photo",
    "picture",
    "filename",
    "file_name",
    "image_link",
    "image_url",
)
NUMBER_NAMES = ("price", "mrp", "cost")
TITLE_NAMES = ("title", "name", "product_name", "item_name")
CODE_NAMES = ("product_code", "style_code", "parent_id", "item_group_id", "group_id", "variant_group")
TEXT_NAMES = (*TITLE_NAMES, *CODE_NAMES, "description", "brand", "catalog_content", "text")
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".jfif")
POSITION = re.compile(r"^attr_(\d+)$", re.IGNORECASE)
#: A column whose values repeat less often than this, on average, is text.
ROWS_PER_VALUE = 5
FRACTION = r"^\s*-?\d*[.,]\d+\s*$"
#: A column of codes that has a value of its own in this share of the rows may be meant as the id.
NEARLY = 0.9


@dataclass(frozen=True)
class Columns:
    """Overrides of what is inferred: a column given here has that role.

    Attributes:
        id, category, image: a column name, or ``None`` to infer.
        text, number, choice, ignore: column names.
    """

    id: str | None = None
    category: str | None = None
    image: str | None = None
    text: tuple[str, ...] = ()
    number: tuple[str, ...] = ()
    choice: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def named(self) -> dict[str, str]:
        """Return every overridden column with its role.

        Raises:
            CatalogError: a column with two roles.
        """
        roles: dict[str, str] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            for column in (value,) if isinstance(value, str) else value or ():
                if column in roles:
                    raise CatalogError(f"column {column!r} is declared both {roles[column]} and {entry.name}")
                roles[column] = entry.name
        return roles

    def as_in(self, headers: Sequence[str]) -> "Columns":
        """Return the same with the table's own headers, where a name differs in blanks at its ends only."""
        bare: dict[str, list[str]] = {}
        for header in headers:
            bare.setdefault(header.strip(), []).append(header)

        def own(name: str) -> str:
            found = bare.get(name.strip(), [])
            return found[0] if name not in headers and len(found) == 1 else name

        singles = {key: own(getattr(self, key)) for key in ("id", "category", "image") if getattr(self, key)}
        lists = {key: tuple(map(own, getattr(self, key))) for key in ("text", "number", "choice", "ignore")}
        return replace(self, **cast(dict[str, Any], singles | lists))


@dataclass(frozen=True)
class Roles:
    """The role of every column of a table, in table order within each role.

    Attributes:
        id: the id column; ``None`` where rows are numbered from 1.
        category: the category column; ``None`` where all products are of one category.
        image: the column that holds image paths; ``None`` where images are found by id.
        choices: label columns (``attr_1`` ... in challenge layout).
        numbers, texts, ignored: the other columns.
        notes: what was inferred, one sentence each.
    """

    id: str | None
    category: str | None
    image: str | None
    choices: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)

    def table(self) -> dict[str, Any]:
        """Return the roles as JSON-ready data."""
        data = asdict(self)
        del data["notes"]
        return data

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> "Roles":
        """Build roles from what ``table`` returned."""
        given = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
        return cls(**cast(dict[str, Any], given))


@dataclass(frozen=True)
class Layout:
    """How a table of answers is laid out.

    Attributes:
        kind: ``named`` (one column per attribute name) or ``challenge`` (``attr_1..attr_N`` by position).
        id, category: the names of those columns; ``category`` is empty where there is one category only.
        columns: the attribute columns in order.
        filler: what an unused or unanswered cell holds.
    """

    kind: str
    id: str
    category: str
    columns: tuple[str, ...]
    filler: str = ""

    def table(self) -> dict[str, Any]:
        """Return the layout as JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> "Layout":
        """Build a layout from what ``table`` returned."""
        return cls(**{**table, "columns": tuple(table["columns"])})


def is_challenge(frame: pl.DataFrame) -> bool:
    """Whether the label columns are ``attr_1..attr_N``."""
    return any(POSITION.match(name) for name in frame.columns)


def infer_roles(frame: pl.DataFrame, columns: Columns, missing: Sequence[str], source: str) -> Roles:
    """Settle what each column is.

    Args:
        frame: all cells as text.
        columns: overrides.
        missing: the texts that mean an empty cell.
        source: the table's name for messages.

    Raises:
        CatalogError: an override that names no column.
    """
    columns = columns.as_in(frame.columns)
    overridden = _overridden(frame, columns, source)
    free = [name for name in frame.columns if name not in overridden]
    notes: list[str] = []
    id_column = columns.id or _first(free, ID_NAMES) or _unique_column(frame, free, notes)
    category = columns.category or _first(free, CATEGORY_NAMES)
    image = columns.image or _image_column(frame, [n for n in free if n not in (id_column, category)])
    if id_column is None:
        notes.append(f"no id column: rows are numbered from 1{_nearly(frame, free, missing)}")
    if category is None:
        like = [name for name in free if "category" in plain(name)]
        like = like or [name for name in free if plain(name) in LIKE_CATEGORY]
        hint = f"; name one with --category, such as {like[0]!r}" if like else ""
        notes.append(f"no category column: all products are of one category{hint}")
    roles: dict[str, list[str]] = {"choice": [], "number": [], "text": [], "ignore": []}
    challenge = is_challenge(frame)
    for name in frame.columns:
        if name in (id_column, category, image):
            continue
        role, why = (overridden[name], "") if name in overridden else _role(frame[name], challenge, missing)
        roles[role].append(name)
        if why:
            notes.append(f"{name}: {why}")
    if challenge:
        roles["choice"].sort(key=_position)
    return Roles(
        id_column,
        category,
        image,
        tuple(roles["choice"]),
        tuple(roles["number"]),
        tuple(roles["text"]),
        tuple(roles["ignore"]),
        tuple(notes),
    )


def fit_roles(frame: pl.DataFrame, known: Roles, columns: Columns, source: str) -> Roles:
    """Carry the roles of a training table over to another table, which may lack columns.

    Raises:
        CatalogError: an override that names no column.
    """
    columns = columns.as_in(frame.columns)
    overridden = _overridden(frame, columns, source)
    present = set(frame.columns)
    asked = [(known.id, columns.id), (known.image, columns.image)]
    if known.category:
        asked.append((known.category, columns.category))
    # Looking at every cell of a table is dear: only where a column is not known by its name.
    settled = all(given or name in present for name, given in asked)
    inferred = known if settled else infer_roles(frame, columns, MISSING, source)

    def keep(names: Sequence[str], role: str) -> tuple[str, ...]:
        kept = [name for name in names if name in present and name not in overridden]
        return (*kept, *(name for name, given in overridden.items() if given == role))

    def one(known_name: str | None, inferred_name: str | None, given: str | None) -> str | None:
        return given or (known_name if known_name in present else inferred_name)

    roles = Roles(
        one(known.id, inferred.id, columns.id),
        one(known.category, inferred.category, columns.category) if known.category else columns.category,
        one(known.image, inferred.image, columns.image),
        keep(known.choices, "choice"),
        keep(known.numbers, "number"),
        keep(known.texts, "text"),
    )
    used = {roles.id, roles.category, roles.image, *roles.choices, *roles.numbers, *roles.texts}
    unknown = tuple(name for name in frame.columns if name not in used)
    notes = [
        f"{name}: not a column of the training table, ignored"
        for name in unknown
        if name not in known.ignored and not (POSITION.match(name) or name == "len")
    ]
    return Roles(
        roles.id,
        roles.category,
        roles.image,
        roles.choices,
        roles.numbers,
        roles.texts,
        unknown,
        tuple(notes),
    )


def _overridden(frame: pl.DataFrame, columns: Columns, source: str) -> dict[str, str]:
    """Return the roles that are declared, by column; every one is there."""
    overridden = columns.named()
    for name in overridden:
        if name not in frame.columns:
            hint = suggest(name, frame.columns) or f"It has: {listing(frame.columns)}."
            raise CatalogError(f"{source}: there is no column {name!r}. {hint}")
    return overridden


def _position(name: str) -> int:
    match = POSITION.match(name)
    return int(match.group(1)) if match else 0


def plain(name: str) -> str:
    """Return a header as the lists of names have it: ``MRP (Rs)`` is ``mrp``, ``Product-Id`` is ``product_id``."""
    words = re.split(r"[(\[]", name)[0].strip() or name.strip()
    return re.sub(r"[\s\-./]+", "_", words).strip("_").casefold()


def _first(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    by_plain = {plain(name): name for name in reversed(names)}
    return next((by_plain[name] for name in wanted if name in by_plain), None)


def _unique_column(frame: pl.DataFrame, names: Sequence[str], notes: list[str]) -> str | None:
    """The first column whose values are all there, all different and look like codes, not sentences."""
    for name in names:
        series = frame[name]
        if (
            len(series) > 1
            and series.null_count() == 0
            and series.n_unique() == len(series)
            and not series.str.contains(r"\s").any()
            and plain(name) not in (*TEXT_NAMES, *IMAGE_NAMES, *NUMBER_NAMES)
            and not series.str.contains(FRACTION).any()
            and not _ends_like_image(series)
        ):
            notes.append(f"{name}: taken as the id, every value is there once")
            return name
    return None


def _nearly(frame: pl.DataFrame, names: Sequence[str], missing: Sequence[str]) -> str:
    """What to do about a column that would be the id, if only a few of its cells were not empty or there twice."""
    for name in names:
        cells = frame[name].drop_nulls()
        cells = cells.filter(~cells.str.strip_chars().is_in(list(missing)))
        kinds, rows = cells.n_unique(), frame.height
        codes = not cells.str.contains(r"\s").any() and cells.str.contains(r"\d").all()
        if (
            kinds >= NEARLY * rows
            and codes
            and not _ends_like_image(frame[name])
            and plain(name) not in NUMBER_NAMES
        ):
            short = f" ({rows - kinds:,} of its cells are empty or there twice)" if kinds < rows else ""
            return f"; if {name!r} is the id{short}, name it with --id"
    return ""


def _ends_like_image(series: pl.Series) -> bool:
    cells = series.drop_nulls().head(200).str.to_lowercase()
    return len(cells) > 0 and sum(cell.endswith(IMAGE_ENDINGS) for cell in cells) >= 0.9 * len(cells)


def _image_column(frame: pl.DataFrame, names: Sequence[str]) -> str | None:
    return _first(names, IMAGE_NAMES) or next((n for n in names if _ends_like_image(frame[n])), None)


def _role(series: pl.Series, challenge: bool, missing: Sequence[str]) -> tuple[str, str]:
    """The role of one column, and why where the reason is not its name."""
    name = plain(series.name)
    if challenge and POSITION.match(name):
        return "choice", ""
    if challenge and name == "len":
        return "ignore", ""
    if name in NUMBER_NAMES:
        return "number", ""
    if name in TEXT_NAMES or name.startswith("bullet"):
        return "text", ""
    cells = series.drop_nulls()
    tokens = [token.strip().casefold() for token in missing]
    cells = cells.filter(~cells.str.strip_chars().str.to_lowercase().is_in(tokens))
    if len(cells) == 0:
        return "ignore", "ignored, every cell is empty"
    distinct = cells.n_unique()
    if len(cells) < ROWS_PER_VALUE * distinct:
        return "text", f"text, its {distinct} values hardly repeat over {len(cells)} rows"
    return "choice", f"attribute with {distinct} value{'s' * (distinct != 1)}"
