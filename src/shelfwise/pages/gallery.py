"""The page of an audit: a gallery of mismatches between what is stated and what is to be expected.

It does not know how a mismatch was found. Pictures are made small and put into the page itself.
"""

import base64
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from shelfwise.data.images import open_image
from shelfwise.errors import ImageError
from shelfwise.pages import parts
from shelfwise.pages.heat import HeatMap, heat_image
from shelfwise.pages.parts import Bar, Cell, Column, Html, Section, esc, name, percent

#: Longest sides in pixels: of the product's picture and of a look-alike's.
PHOTO, ALIKE = 220, 110
#: Mismatches that the page shows by default; the CSV holds all of them.
MOST = 200


@dataclass(frozen=True)
class Mismatch:
    """One stated value that the picture speaks against, or a stated number far outside its range.

    Attributes:
        id: the product's id.
        category: its category.
        attribute: the attribute's name.
        column: the table's own column that states it.
        stated: the stated value.
        seen: the value the picture speaks for; of a number the range expected.
        p_stated: calibrated probability of the stated value.
        p_seen: of the seen one; of a number the share that such ranges hold.
        odds: how many times likelier the stated value is to stand there by mistake, given the picture.
        evidence: id and picture of the nearest confirmed look-alikes.
        image: the product's picture.
        number: whether a number is stated.
        fits: what of a number would fit, as a sentence's beginning: ``a tenth of it, 12.90, would fit``.
        heat: where in the picture the value seen comes from, where that was drawn.
    """

    id: str
    category: str
    attribute: str
    column: str
    stated: str
    seen: str
    p_stated: float
    p_seen: float
    odds: float
    evidence: tuple[tuple[str, Path | None], ...] = ()
    image: Path | None = None
    number: bool = False
    fits: str = ""
    heat: HeatMap | None = None


def audit_page(
    mismatches: Sequence[Mismatch],
    *,
    source: str = "a table",
    total: int | None = None,
    cells: int | None = None,
    most: int = MOST,
    table: str = "",
    notes: Sequence[str] = (),
) -> str:
    """Return the page of an audit.

    Args:
        mismatches: most suspicious first; ``most`` of them are shown.
        source: the table that was audited.
        total: how many mismatches there are, if more than are given.
        cells: how many stated cells were audited.
        most: cards shown.
        table: the name of the file that holds all of them.
        notes: sentences about how it was done.
    """
    total = max(total or 0, len(mismatches))
    shown = mismatches[:most]
    sections = [_summary(mismatches, shown, total), _cards(shown, total, table)]
    if notes:
        sections.append(Section("notes", "How this was measured", parts.sentences(notes)))
    by = Counter(each.attribute for each in mismatches)
    told = [("stated cells audited", f"{cells:,}")] if cells is not None else []
    told += [("shown here", f"{len(shown):,}"), ("products", f"{len({each.id for each in mismatches}):,}")]
    if by:
        told.append(("most often", by.most_common(1)[0][0]))
    numbers, values = any(each.number for each in mismatches), not all(each.number for each in mismatches)
    kinds = ["stated values that the picture speaks against"] if values or not numbers else []
    kinds += ["stated numbers far outside their range"] if numbers else []
    said = Html(
        f"{' and '.join(kinds)}, <strong>most suspicious first</strong>. None of them was changed: each is a question "
        "to whoever stated it."
    )
    top = parts.hero(f"{total:,}", said, None, parts.facts(told))
    against = (
        "the picture" if not numbers else "the rest of the product" if values else "such products' range"
    )
    return parts.page("audit", source, f"Where the stated value and {against} disagree", top, sections)


def odds_in_words(odds: float) -> str:
    """Return odds as ``120 : 1``, rounded to what can be said."""
    if math.isnan(odds):
        return "-"
    if odds >= 10_000:
        return "> 10,000 : 1"
    if odds < 1:
        return "< 1 : 1"
    rounded = round(odds, 1 if odds < 10 else -1 if odds >= 100 else 0)
    return f"{rounded:,.0f} : 1" if odds >= 10 or rounded == int(rounded) else f"{rounded:,.1f} : 1"


def _summary(mismatches: Sequence[Mismatch], shown: Sequence[Mismatch], total: int) -> Section:
    groups: dict[tuple[str, str], list[Mismatch]] = {}
    for each in mismatches:
        groups.setdefault((each.category, each.attribute), []).append(each)
    biggest = max(map(len, groups.values()), default=1)
    visible = Counter((each.category, each.attribute) for each in shown)
    rows: list[list[Cell]] = []
    for key, found in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))[:1000]:
        pair = _most_frequent(found)
        columns = ", ".join(sorted({each.column for each in found}))
        size = Bar(len(found) / biggest, f"{len(found):,}", len(found))
        rows.append([parts.where(*key), columns, size, visible[key], pair])
    heads = [
        Column("category / attribute"), Column("column"), Column("mismatches", True),
        Column("shown below", True), Column("most frequent: stated → seen"),
    ]  # fmt: skip
    made = parts.table(heads, rows, "Mismatches by category and attribute.", tall=len(rows) > 30)
    body = (
        parts.filtered("category, attribute or value", made)
        if rows
        else Html('<p class="note">Nothing to show.</p>')
    )
    lead = f"Of the {len(mismatches):,} surest of {total:,} mismatches." if total > len(mismatches) else ""
    return Section("summary", "By attribute", body, lead)


def _most_frequent(found: Sequence[Mismatch]) -> Html:
    """The most frequent pair of stated and seen; of numbers the most frequent slip."""
    slips = Counter(each.fits.partition(",")[0] for each in found if each.number)
    if slips:
        slip, count = slips.most_common(1)[0]
        return Html(f"{name(slip)} ({count:,})" if slip else "no misplaced decimal")
    (stated, seen), count = Counter((each.stated, each.seen) for each in found).most_common(1)[0]
    return Html(f"{name(stated)} → {name(seen)} ({count:,})")


def _cards(shown: Sequence[Mismatch], total: int, table: str) -> Section:
    inside = "\n".join(_card(each) for each in shown)
    body = parts.filtered("id, category, attribute or value", Html(f'<ul class="cards">{inside}</ul>'))
    lead = (
        "Odds say how many times the picture raises the odds that the stated value is a mistake. Striped "
        "bar: stated; full bar: seen."
    )
    if any(each.number for each in shown):
        lead += (
            " Of a number: what is known of the product raises them, the striped bar is the probability that it is "
            "right, and beside its range stands the share of such products that lie in theirs."
        )
    if total > len(shown):
        lead += f" {total - len(shown):,} more are in {table or 'the table of the audit'}."
    return Section("mismatches", "The mismatches", body if shown else Html('<p class="note">None.</p>'), lead)


def _card(each: Mismatch) -> str:
    picture = _picture(each.image, PHOTO, f"Photo of product {each.id}")
    if each.heat is not None:
        picture += f'<p class="where">where {name(each.seen)} comes from</p>{heat_image(each.heat, PHOTO)}'
    head = f'<p class="odds">{esc(odds_in_words(each.odds))}<small>odds</small></p>'
    where = f"{name(each.category)} · column {name(each.column)}"
    told, below = "seen in the picture", _probability(each.p_seen)
    if each.number:
        told, below = f"range expected of {percent(each.p_seen)}", ""
        if each.fits:
            below = f'<p class="where">{esc(each.fits[:1].upper() + each.fits[1:])}.</p>'
    claims = (
        f'<dl class="claims"><div class="stated"><dt>{name(each.attribute)} as stated</dt><dd>{name(each.stated)}'
        f"{_probability(each.p_stated)}</dd></div><div><dt>{told}</dt><dd>{name(each.seen)}{below}</dd></div></dl>"
    )
    alike = ""
    if each.evidence:
        items = "".join(
            f"<li>{_picture(path, ALIKE, f'Look-alike {id_}')}{name(id_)}</li>" for id_, path in each.evidence
        )
        alike = f'<div class="alike"><p>Look-alikes confirmed as {name(each.seen)}</p><ul>{items}</ul></div>'
    return (
        f'<li class="card"><div>{picture}</div><div>{head}<h3>{name(each.id)}</h3><p class="where">{where}</p>'
        f"{claims}</div>{alike}</li>"
    )


def _probability(share: float) -> str:
    return str(parts.bar(share)).replace("</i>", f"</i><span>{esc(percent(share))}</span>", 1)


def _picture(path: Path | None, side: int, alt: str) -> str:
    """Return a small picture inside the page, or a box that says why there is none."""
    if path is None:
        return f'<div class="lost" role="img" aria-label="{esc(alt)}: none">no picture</div>'
    found = thumbnail(path, side)
    if found is None:
        return f'<div class="lost" role="img" aria-label="{esc(alt)}: not readable">not readable</div>'
    width, height, data = found
    return (
        f'<img class="photo" src="data:image/jpeg;base64,{data}" alt="{esc(alt)}" width="{width}" height="{height}" '
        'decoding="async">'
    )


@lru_cache(maxsize=4096)
def thumbnail(path: Path, side: int) -> tuple[int, int, str] | None:
    """Return width, height and base64 of a small JPEG; None where the picture cannot be read."""
    try:
        image = open_image(path, target=side).image
    except ImageError:
        return None
    image = image.convert("RGB")
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=72, optimize=True)
    return *image.size, base64.b64encode(buffer.getvalue()).decode("ascii")
