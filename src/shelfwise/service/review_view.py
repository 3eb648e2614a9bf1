"""What the review pages show: an item as a question, its rival values, the sentences, and the templates.

It does not know HTTP, nor where items and verdicts are kept. Everything that a table brought is escaped by the
templates; markup holds neither scripts nor styles, so that the pages live under a policy without exceptions.
"""

import base64
import difflib
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from shelfwise.data.images import open_image
from shelfwise.errors import listing
from shelfwise.pages.heat import HeatMap, heat_picture, unpacked
from shelfwise.service.desk import Agreement, Desk, Filters, Item, LookAlike, Progress, Tally
from shelfwise.service.items import plain_number
from shelfwise.service.verdicts import Kind, Verdict

#: The longest sides in which a photo is shown: in a list, beside the question, enlarged.
SIDES = (220, 900, 2000)
#: Options of a filter and rows of a table that a page holds.
MOST_OPTIONS, MOST_ROWS, MOST_DISAGREED = 300, 200, 50
#: Values of an attribute that are all named where none is near to what was typed.
MOST_TOLD = 10
#: The files of the pages, and what they are.
STATIC = {
    "page.css": ("shelfwise.pages", "text/css; charset=utf-8"),
    "review.css": ("shelfwise.service.static", "text/css; charset=utf-8"),
    "review.js": ("shelfwise.service.static", "text/javascript; charset=utf-8"),
    "htmx.min.js": ("shelfwise.service.static", "text/javascript; charset=utf-8"),
    "icon.svg": ("shelfwise.service.static", "image/svg+xml"),
}
KEYS = (
    ("A", "accept the value seen"),
    ("K", "keep the stated value"),
    ("R", "take the runner-up"),
    ("C", "type another value; Enter records it, Esc leaves the field"),
    ("N", "the attribute does not apply"),
    ("V", "not visible in the photo"),
    ("S", "skip: not shown to you again"),
    ("U", "undo your last verdict"),
    ("G", "accept for the whole group"),
    ("Z", "enlarge the photo; + and - change its size"),
    ("H", "show where in the photo the value seen comes from, where that was drawn"),
    ("F", "filter"),
    ("P", "progress and agreement"),
    ("?", "these keys"),
)
FACETS = ("category", "attribute", "supplier", "reason")
REASONS = {
    "mismatch": ("Mismatch.", "The photo speaks against the stated value."),
    "unsure": ("Unsure.", "The photo does not settle the value."),
    "unfamiliar": ("Unfamiliar.", "Nothing learnt from looks like this photo."),
    "category?": ("Category?", "The photo does not look like its category."),
}
_HTMX = {
    "allowEval": False,
    "allowScriptTags": False,
    "historyEnabled": False,
    "includeIndicatorStyles": False,
    "selfRequestsOnly": True,
    "timeout": 30_000,
    "scrollBehavior": "instant",
    "responseHandling": [{"code": "[2345]..", "swap": True}],
}


@dataclass(frozen=True)
class Rival:
    """A value that can be taken with one key.

    Attributes:
        answer: what the button sends: ``accept``, ``stated`` or ``runner_up``.
        key: the key that presses it.
        role: where the value comes from.
        value: the value.
        probability: its probability; None where it is not among the two likeliest.
        act: what the button does, in a word.
        unknown: what stands in place of a probability.
    """

    answer: str
    key: str
    role: str
    value: str
    probability: float | None
    act: str
    unknown: str = "not known"


@dataclass(frozen=True)
class Facet:
    """A filter: its name, its title, the options with how many are left, and the one chosen."""

    name: str
    title: str
    options: tuple[tuple[str, str], ...]
    chosen: str


@dataclass(frozen=True)
class Row:
    """A row of the progress page: as filtered, as shown, and its counts."""

    name: str
    label: str
    done: int
    left: int

    @property
    def share(self) -> float:
        """Of the items that are done."""
        return self.done / (self.done + self.left) if self.done + self.left else 0.0


@dataclass(frozen=True)
class Table:
    """A table of the progress page."""

    name: str
    title: str
    rows: tuple[Row, ...]
    more: int


def rivals(item: Item) -> tuple[Rival, ...]:
    """Return the values that can be taken with one key, a value once, the seen one first."""
    found: list[Rival] = []
    if item.seen is not None:
        role = "Stated, and seen in the photo" if item.seen == item.stated else "Seen in the photo"
        role = "Would fit" if item.number else role
        unknown = "" if item.number else "not known"
        found.append(Rival("accept", "a", role, item.seen, item.probability, "Accept", unknown))
    if item.stated is not None and item.stated != item.seen and _offered(item, item.stated):
        second = item.stated == item.runner_up
        role = "Stated, and the runner-up" if second else "Stated"
        chance = item.runner_up_probability if second else None
        unlikely = item.seen is not None and item.runner_up is not None
        unknown = "less likely" if unlikely else "" if item.number else "not known"
        found.append(Rival("stated", "k", role, item.stated, chance, "Keep", unknown))
    if item.runner_up is not None and item.runner_up not in (item.seen, item.stated):
        found.append(Rival("runner_up", "r", "Runner-up", item.runner_up, item.runner_up_probability, "Take"))
    return tuple(found)


def _offered(item: Item, value: str) -> bool:
    """Whether a value can be taken: one of the attribute's, or a number."""
    return plain_number(value) is not None if item.number else value in item.values


def reason(item: Item) -> tuple[str, str]:
    """Return why an item is asked: in a word, and in a sentence."""
    word, sentence = REASONS[item.reason]
    return word, f"{item.expected}." if item.number else sentence


def question(item: Item) -> str:
    """Return the item's headline."""
    return f"Which {item.attribute.strip()}?" if item.attribute else "Which category?"


def shown(item: Item) -> str:
    """Return a short digest of the values a page offers, to notice that they changed since."""
    text = json.dumps([item.stated, item.seen, item.runner_up])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def act(item: Item, answer: str, typed: str = "") -> tuple[Kind, str | None] | str:
    """Return what a button means for the desk, or a sentence where it means nothing.

    Args:
        item: the item as it is now.
        answer: what the button sends.
        typed: the text of the field, with ``typed``.
    """
    if answer == "accept" and item.seen is not None:
        return "accept", None
    if answer in ("not_applicable", "not_visible", "skip"):
        kinds: dict[str, Kind] = {each: each for each in ("not_applicable", "not_visible", "skip")}
        return kinds[answer], None
    known = plain_number(typed) if item.number else _known(item.values, typed)
    value = {"stated": item.stated, "runner_up": item.runner_up, "typed": known}.get(answer)
    if value is None:
        return _unknown(item, typed) if answer == "typed" else f"{answer!r} is no answer to this item."
    return ("accept", None) if value == item.seen else ("correct", value)


def _known(values: Sequence[str], typed: str) -> str | None:
    """Return the value that is meant: as spelt, or the only one that differs in case and spaces."""
    if typed in values:
        return typed
    plain = " ".join(typed.casefold().split())
    found = [value for value in values if " ".join(value.casefold().split()) == plain]
    return found[0] if len(found) == 1 else None


def _unknown(item: Item, typed: str) -> str:
    if item.number:
        return f"{typed.strip()!r} is not a number. Nothing was recorded."
    near = difflib.get_close_matches(typed, item.values, n=1, cutoff=0.5)
    told = f" It has: {listing(item.values)}." if len(item.values) <= MOST_TOLD else ""
    guess = f" Did you mean {near[0]!r}?" if near else told
    what = item.attribute.strip() or "the category"
    return f"{typed.strip()!r} is not a value of {what}.{guess} Nothing was recorded."


def recorded(item: Item, verdicts: Sequence[Verdict], reviewer: str, many: int) -> str:
    """Return the sentence on a reviewer's last verdict.

    Args:
        item: what it was about.
        verdicts: those that stand on the item.
        reviewer: whose.
        many: how many items a whole group had, else 0.
    """
    if many > 1:
        return f"Recorded for {many} items: {item.attribute.strip() or 'category'} is {item.seen}."
    own = [verdict for verdict in verdicts if verdict.reviewer == reviewer]
    what = f"{item.attribute.strip() or 'category'} of {item.id}"
    return f"Recorded: {what} {_outcome(own[-1])}." if own else f"Skipped: {what}."


def _outcome(verdict: Verdict) -> str:
    if verdict.kind in ("not_applicable", "not_visible"):
        return "is " + verdict.kind.replace("_", " ")
    return f"is {verdict.after}"


def disagreements(desk: Desk, agreement: Agreement) -> list[tuple[Item, str]]:
    """Return the first items on which two reviewers disagree, and what each said."""
    return [
        (
            desk.item(key),
            ", ".join(f"{verdict.reviewer}: {_outcome(verdict)}" for verdict in desk.standing(key)),
        )
        for key in agreement.disagreed[:MOST_DISAGREED]
    ]


def facets(progress: Progress, filters: Filters) -> list[Facet]:
    """Return the filters that divide what is left, the chosen ones always."""
    found = []
    for name in FACETS:
        chosen = getattr(filters, name) or ""
        tallies = [
            each for each in _tallies(progress, name) if each.name and (each.left or each.name == chosen)
        ]
        options = tuple((each.name, f"{each.name} ({each.left:,})") for each in tallies[:MOST_OPTIONS])
        if chosen and chosen not in dict(options):
            options = ((chosen, chosen), *options)
        if chosen or len(options) > 1:
            found.append(Facet(name, name.capitalize(), options, chosen))
    return found


def tables(progress: Progress) -> list[Table]:
    """Return the tables of the progress page; those with one unnamed row are left out."""
    found = []
    for name in FACETS:
        all_rows = [
            Row(each.name, each.name or _unnamed(name), each.done, each.left)
            for each in _tallies(progress, name)
        ]
        if any(row.name for row in all_rows):
            rows = tuple(all_rows[:MOST_ROWS])
            found.append(Table(name, name.capitalize(), rows, len(all_rows) - len(rows)))
    return found


def _tallies(progress: Progress, name: str) -> tuple[Tally, ...]:
    return {
        "category": progress.by_category,
        "attribute": progress.by_attribute,
        "supplier": progress.by_supplier,
        "reason": progress.by_reason,
    }[name]


def _unnamed(name: str) -> str:
    return "the category itself" if name == "attribute" else "not known"


def kept(filters: Filters) -> list[tuple[str, str]]:
    """Return the filters that are set, as name and value."""
    return [(name, value) for name in FACETS if (value := getattr(filters, name))]


def query(*pairs: tuple[str, str]) -> str:
    """Return the pairs as a query string, empty without any."""
    return "?" + urlencode(pairs) if pairs else ""


def photo_address(item: Item, side: int, alike: int | None = None, heat: bool = False) -> str:
    """Return where the desk serves an item's photo, that of a look-alike by its place, or the item's under its heat."""
    pairs = [("key", item.key), ("side", str(side))]
    more = [("alike", str(alike))] if alike is not None else [("heat", "1")] if heat else []
    return "/review/photo" + query(*pairs, *more)


def heat_map(item: Item) -> HeatMap | None:
    """Return where in its photo the value seen comes from; None where no map was drawn."""
    if not item.heat or item.photo is None or item.seen is None:
        return None
    chance = item.probability or 0.0
    return HeatMap(item.id, item.category, item.attribute, item.seen, chance, unpacked(item.heat), item.photo)


def photo_bytes(shown: Path | HeatMap, side: int) -> bytes:
    """Return a photo as JPEG, its longest side at most ``side`` pixels, without what the camera wrote beside it.

    Args:
        shown: its file, or the map that it is shown under.
        side: in pixels.

    Raises:
        ImageError: it cannot be read.
    """
    image = heat_picture(shown, side) if isinstance(shown, HeatMap) else open_image(shown, target=side).image
    image = image.copy()
    image.thumbnail((side, side))
    with io.BytesIO() as file:
        image.save(file, "JPEG", quality=86)
        return file.getvalue()


def there(shown: Item | LookAlike) -> bool:
    """Return whether the photo of an item, or of a look-alike, can be shown."""
    return shown.photo is not None and shown.photo.is_file()


@cache
def static_file(name: str) -> bytes:
    """Return a file of the pages, one of ``STATIC``."""
    return files(STATIC[name][0]).joinpath(name).read_bytes()


@cache
def static_address(name: str) -> str:
    """Return a file's address; it changes with its content, so that it may be kept for ever."""
    return f"/review/static/{name}?v={hashlib.blake2b(static_file(name), digest_size=8).hexdigest()}"


@cache
def entry_style() -> tuple[str, str]:
    """Return the style of the sign-in page, which stands in it, and its hash for the policy."""
    text = (static_file("page.css") + static_file("review.css")).decode()
    return text, base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def percent(share: float) -> str:
    """Return a share as per cent; never 0 or 100 for what is neither."""
    if 0 < share < 0.005:
        return "< 1\u202f%"
    if 0.995 <= share < 1:
        return "> 99\u202f%"
    return f"{100 * share:.0f}\u202f%"


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("shelfwise.service"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    made.globals.update(
        static=static_address,
        keys=KEYS,
        htmx_config=json.dumps(_HTMX),
        percent=percent,
        photo=photo_address,
        shown=shown,
        there=there,
        heat_map=heat_map,
    )
    return made


def render(template: str, **context: object) -> str:
    """Return a page."""
    return _environment().get_template(template).render(context)


def entry_page(notice: str) -> str:
    """Return the sign-in page; it asks for no other file, as none is served without a key."""
    sentence = f"{notice[:1].upper()}{notice[1:]}".rstrip(".") + "."
    return render("enter.html", notice=sentence, style=Markup(entry_style()[0]))


def plain_page(heading: str, notice: str) -> str:
    """Return a page that says one thing."""
    head = {"page": "error", "reviewer": None, "named": False, "entered": False, "query": ""}
    return render("error.html", **head, heading=heading, notice=notice)
