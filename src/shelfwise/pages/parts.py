"""Parts of a page: escaped text, tables, figures, sections, and the one file they make.

It does not know what is shown. Everything that is not ``Html`` is text and gets escaped; the page's own
policy lets a browser load nothing and run nothing but the script it was written with.
"""

import base64
import hashlib
import html
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from shelfwise.files import write_text
from shelfwise.plaintext import show

#: Characters that HTML does not allow, and those that turn the direction of what follows them.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e]")
#: A per cent sign that stays with its number.
PER_CENT = "\u00a0%"
Content = str | float | int | None


class Html(str):
    """Text that is HTML already; everything else is escaped."""

    __slots__ = ()


@dataclass(frozen=True)
class Bar:
    """A table cell with a share drawn beside its number.

    Attributes:
        share: 0 to 1, the length of the bar.
        text: what stands beside it.
        value: what the column is sorted by.
    """

    share: float
    text: str
    value: float


@dataclass(frozen=True)
class Heat:
    """A table cell shaded by a share, its number always in it."""

    share: float
    text: str


Cell = Content | Html | Bar | Heat


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: its head.
        number: whether it holds numbers.
        digits: decimals of floats.
        percent: floats are shares, shown in per cent.
        signed: floats are shown with their sign.
    """

    name: str
    number: bool = False
    digits: int = 3
    percent: bool = False
    signed: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the page with a place in the table of contents."""

    key: str
    title: str
    body: Html
    lead: str = ""


def esc(text: object) -> str:
    """Return text for HTML content and quoted attributes."""
    return html.escape(_UNPRINTABLE.sub("\ufffd", str(text)))


def name(text: object) -> Html:
    """Return text that a user wrote, apart from the direction of what stands around it."""
    return Html(f"<bdi>{esc(text)}</bdi>")


def where(*names: str | None) -> Html:
    """Return a place such as category and attribute, each name apart from the others' direction."""
    return Html(" / ".join(name(part) for part in names if part is not None) or "All")


def join(parts: Iterable[str]) -> Html:
    """Join pieces of HTML; plain text among them is escaped."""
    return Html("".join(part if isinstance(part, Html) else esc(part) for part in parts))


def tag(kind: str, *inside: str, **attributes: str | None) -> Html:
    """Return one element; attribute names end in ``_`` where Python needs it, None leaves one out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{esc(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{kind}{written}>{join(inside)}</{kind}>")


def percent(share: float, digits: int = 0) -> str:
    """Return a share in per cent, ``-`` where there is none; never 0 % or 100 % where it is not quite so."""
    if not math.isfinite(share):
        return "-"
    text = f"{share:.{digits}%}"
    least = 10.0**-digits
    if share > 0 and float(text[:-1]) == 0:
        return f"<\u00a0{least:g}\u00a0%"
    if share < 1 and float(text[:-1]) == 100:
        return f">\u00a0{100 - least:g}\u00a0%"
    return text.replace("%", "\u00a0%")


def span(low: float, high: float, digits: int = 3) -> str:
    """Return an interval in words, ``-`` where there is none."""
    return "-" if math.isnan(low) else f"{show(low, digits)} to {show(high, digits)}"


def _shown(cell: Cell, column: Column) -> tuple[str, str | None]:
    """Return a cell's HTML and what it is sorted by (None: by its text)."""
    if isinstance(cell, Bar):
        return f"{bar(cell.share)}".replace("</i>", f"</i><span>{esc(cell.text)}</span>", 1), _key(cell.value)
    if isinstance(cell, Heat):
        return esc(cell.text), _key(cell.share)
    if isinstance(cell, Html):
        return cell, None
    if cell is None:
        return "-", "" if column.number else None
    if isinstance(cell, str):
        return name(cell), None
    if isinstance(cell, float):
        if column.percent:
            return percent(cell, max(column.digits - 2, 0)), _key(cell)
        text = (
            f"{cell:+.{column.digits}f}"
            if column.signed and math.isfinite(cell)
            else show(cell, column.digits)
        )
        return text.replace("-", "\u2212") if text != "-" else text, _key(cell)
    return f"{cell:,}", str(cell)


def _key(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""


def bar(share: float) -> Html:
    """Return a bar of a share; what it says must also stand beside it as text."""
    inside = min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0
    return Html(f'<span class="bar"><i aria-hidden="true"><b style="width:{inside:.1%}"></b></i></span>')


def table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[Cell]],
    caption: str,
    *,
    sort: bool = True,
    tall: bool = False,
    tight: bool = False,
    first_is_sum: bool = False,
) -> Html:
    """Return a table in a frame that scrolls sideways where it is wider than the page.

    Args:
        columns: their heads; the first column names the row.
        rows: one cell a column.
        caption: what it shows.
        sort: whether its heads sort it.
        tall: give the frame a height of its own.
        tight: many narrow columns.
        first_is_sum: the first row sums up the others and stays first.
    """
    head = "".join(
        f'<th scope="col"{" class=n" if column.number else ""}>{esc(column.name)}</th>' for column in columns
    )
    body = []
    for position, row in enumerate(rows):
        cells = []
        for place, (cell, column) in enumerate(zip(row, columns, strict=True)):
            shown, key = _shown(cell, column)
            kinds = ["n"] if column.number and not isinstance(cell, Bar) else []
            style = ""
            if isinstance(cell, str) and not isinstance(cell, Html) and len(cell) > 24:
                kinds = ["long"]
            if isinstance(cell, Bar):
                kinds = ["wide"]
            if isinstance(cell, Heat):
                kinds, style = ["heat"], f' style="--h:{min(max(cell.share, 0.0), 1.0):.2f}"'
            kind = f' class="{" ".join(kinds)}"' if kinds else ""
            sorted_by = f' data-v="{key}"' if key is not None and place else ""
            cells.append(
                f'<th scope="row">{shown}</th>' if not place else f"<td{kind}{sorted_by}{style}>{shown}</td>"
            )
        mark = ' class="sum"' if first_is_sum and not position else ""
        body.append(f"<tr{mark}>{''.join(cells)}</tr>")
    kind = "scroll" + " tall" * tall + " tight" * tight
    label = esc(caption.split(".")[0])
    return Html(
        f'<div class="{kind}" tabindex="0" role="region" aria-label="{label}">'
        f"<table{' class=sort' if sort and len(rows) > 1 else ''}><caption>{esc(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead>\n<tbody>{chr(10).join(body)}</tbody></table></div>"
    )


def more(summary: str, *inside: str, group: bool = False, shut: bool = True) -> Html:
    """Return something that opens on demand, and by itself when printed."""
    kind = "group" if group else "more"
    held = f'<div class="inside">{join(inside)}</div>' if group else join(inside)
    return Html(
        f'<details class="{kind}"{"" if shut else " open"}><summary>{join([summary])}</summary>{held}</details>'
    )


def filtered(hint: str, inside: Html) -> Html:
    """Let the reader filter the rows or cards inside; without the script all of them are there."""
    return Html(f'<div data-filter="{esc(hint)}">{inside}</div>')


def figure(
    chart: Html, caption: str | Html = "", data: Html | None = None, heading: Html | None = None
) -> Html:
    """Return a chart on a panel, with its caption and the numbers behind it."""
    below = f'<figcaption class="below">{join([caption])}</figcaption>' if caption else ""
    numbers = more("The numbers", data) if data is not None else ""
    return Html(f'<figure class="panel">{heading or ""}{chart}{below}{numbers}</figure>')


def facts(pairs: Iterable[tuple[str, str]]) -> Html:
    """Return a row of short facts: what, and how much."""
    inside = "".join(f"<div><dt>{esc(what)}</dt><dd>{name(much)}</dd></div>" for what, much in pairs)
    return Html(f'<dl class="facts">{inside}</dl>') if inside else Html("")


def hero(number: str, said: Html, strip: Html | None = None, rest: Html | None = None) -> Html:
    """Return the one number that the page is about, what it means, and where it lies."""
    drawn = f'<div class="strip">{strip}</div>' if strip else ""
    return Html(
        f'<div class="hero"><div class="top"><p class="number">{esc(number)}</p>'
        f'<p class="said">{said}</p></div>{drawn}{rest or ""}</div>'
    )


def sentences(lines: Iterable[str]) -> Html:
    """Return sentences as a list."""
    return Html(f'<ul class="plain">{"".join(f"<li>{name(line)}</li>" for line in lines)}</ul>')


@cache
def _resource(file: str) -> str:
    return files("shelfwise.pages").joinpath(file).read_text(encoding="utf-8")


def page(kind: str, source: str, title: str, top: Html, sections: Sequence[Section]) -> str:
    """Put a page together: one file that asks for nothing else.

    Args:
        kind: such as ``fit``.
        source: what it is about, such as the table's name.
        title: the headline.
        top: what stands above the first section.
        sections: in order.
    """
    style, script = _resource("page.css"), _resource("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    links = "".join(f'<li><a href="#{part.key}">{esc(part.title)}</a></li>' for part in sections)
    body = "\n".join(
        f'<section id="{part.key}" aria-labelledby="{part.key}-title">'
        f'<h2 id="{part.key}-title">{esc(part.title)}</h2>\n'
        + (f'<p class="lead">{esc(part.lead.replace(" %", PER_CENT))}</p>\n' if part.lead else "")
        + f"{part.body}</section>"
        for part in sections
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="shelfwise">
<title>{esc(source)}: {esc(kind)} · Shelfwise</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<a class="skip" href="#content">To the content</a>
<div class="frame">
<nav class="toc" aria-label="On this page"><p class="brand">Shelfwise</p>
<details open><summary>On this page</summary><ol>{links}</ol></details></nav>
<main id="content">
<p class="eyebrow"><b>{esc(kind[:1].upper() + kind[1:])}</b> of {name(source)}</p>
<h1>{esc(title)}</h1>
{top}
{body}
<footer>Written by Shelfwise. This file holds everything it shows and asks for nothing from anywhere.</footer>
</main>
</div>
<script>{script}</script>
</body>
</html>
"""


def write_page(path: str | Path, text: str) -> None:
    """Write a page, whole or not at all.

    Args:
        path: ends in ``.html`` or ``.htm``.
        text: what a page function returned.

    Raises:
        UsageError: another ending.
    """
    check_ending(path)
    write_text(path, text)


def check_ending(path: str | Path) -> None:
    """Refuse a page's path that would not open in a browser, before anything is computed.

    Raises:
        UsageError: it does not end in ``.html`` or ``.htm``.
    """
    from shelfwise.errors import UsageError

    if Path(path).suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"a page is written to .html, not {Path(path).suffix!r}: {path}")
