"""Duplicates, conflicting labels, bad pictures, odd numbers and prices in texts of a catalogue, as findings.

It changes nothing and knows no model: what is found is measured on the pictures and read from the table.
Legend: N rows, n rows of one category or group, A Choice attributes of a category.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shelfwise.catalog import Catalog
from shelfwise.data.facts import FactTable, facts_of
from shelfwise.data.group import joined, look_alikes, same_file, same_keys
from shelfwise.data.outliers import number_outliers
from shelfwise.data.text import price_findings
from shelfwise.files import Progress
from shelfwise.findings import Finding, Findings

#: The shorter side of a picture below which little can be seen, in pixels.
LEAST_SIDE = 64
#: Variance of the Laplacian at 256 pixels below which a picture is called blurred.
LEAST_SHARPNESS = 20.0
LEAST_BRIGHTNESS = 0.1
MOST_DARK = 0.9
MOST_BRIGHT = 0.97
LEAST_CONTRAST = 0.02
#: Ids named in one finding.
MOST_IDS = 20

#: Category code -> the rows of the category and their label codes.
Labels = dict[int, tuple[NDArray[np.int64], NDArray[np.int32]]]

_NOTES = {
    "animated": "the picture has several frames; the first is used",
    "pages": "the file has several pages; the first is used",
    "alpha": "the picture is partly transparent; it is laid on white",
    "cmyk": "the picture is in CMYK colours, meant for print",
    "sixteen_bit": "the picture has more than 8 bits per channel; it is scaled down",
    "broken_profile": "the colour profile cannot be used; colours may be off",
    "broken_exif": "the EXIF data is damaged; the orientation may be wrong",
}


def clean(
    catalog: Catalog, *, cache: Path | None = None, jobs: int | None = None, progress: Progress | None = None
) -> Findings:
    """Return what is wrong with the pictures, numbers and texts of a catalogue and with labels that disagree.

    Kinds: ``image_<kind>`` (error; pictures that were located but cannot be read: those that could not be
    located are in ``catalog.findings``), ``tiny_image``, ``blurred_image``, ``dark_image``,
    ``overexposed_image``, ``low_contrast_image``, ``duplicate_image`` (the same file content),
    ``near_duplicate``, ``conflicting_labels`` and ``conflicting_category`` (warnings on identical files,
    notes on look-alikes), ``number_outlier`` (far from the other numbers of its category), ``price_in_text``, and
    notes such as ``animated`` or ``broken_profile``.

    Args:
        catalog: the products.
        cache: directory of the cache of picture facts; ``None`` for none.
        jobs: threads.
        progress: told how far it is.
    """
    facts = facts_of(catalog.images, cache=cache, jobs=jobs, progress=progress)
    photo_N = same_file(facts)
    same = same_keys([None if photo < 0 else photo for photo in photo_N.tolist()])
    alike = np.concatenate([same, look_alikes(facts, photo_N, cache=cache)], axis=1)
    identical_N, alike_N = (joined(pairs[0], pairs[1], len(catalog)) for pairs in (same, alike))
    found = [*_bad_images(catalog, facts), *_duplicates(catalog, identical_N, alike_N)]
    labels: Labels = {}
    for rows in _shared(identical_N):
        found += _conflicts(catalog, rows, labels, certain=True)
    for rows in _shared(alike_N):
        if len(np.unique(identical_N[rows])) > 1:
            found += _conflicts(catalog, rows, labels, certain=False)
    prices = price_findings(catalog) if catalog.taxonomy.number_names else Findings()
    return Findings.of_all(found) + facts.findings + number_outliers(catalog) + prices


def _bad_images(catalog: Catalog, facts: FactTable) -> Iterator[Finding]:
    field = catalog.schema.roles.image or "image"
    for row, error in facts.errors.items():
        yield Finding(f"image_{error.kind}", str(error), row + 1, catalog.ids[row], field, "error")
    tests = (
        ("tiny_image", "the picture is tiny", np.minimum(facts.width, facts.height) < LEAST_SIDE),
        ("blurred_image", "the picture is blurred", facts.blur < LEAST_SHARPNESS),
        (
            "dark_image",
            "the picture is dark",
            (facts.brightness < LEAST_BRIGHTNESS) | (facts.dark_share > MOST_DARK),
        ),
        ("overexposed_image", "nearly all of the picture is white", facts.bright_share > MOST_BRIGHT),
        ("low_contrast_image", "the picture has hardly any contrast", facts.contrast < LEAST_CONTRAST),
    )
    for kind, message, flagged_N in tests:
        for row in np.flatnonzero(flagged_N & facts.ok).tolist():
            measured = _measured(facts, row)
            yield Finding(kind, message, row + 1, catalog.ids[row], field, "warning", measured)
    for row, notes in enumerate(facts.notes):
        for note in notes:
            yield Finding(note, _NOTES[note], row + 1, catalog.ids[row], field, "note")


def _measured(facts: FactTable, row: int) -> dict[str, int | float]:
    """Return the measures of one row, JSON-ready."""
    numbers: dict[str, int | float] = {"width": int(facts.width[row]), "height": int(facts.height[row])}
    for name in ("blur", "brightness", "contrast", "dark_share", "bright_share"):
        numbers[name] = round(float(getattr(facts, name)[row]), 4)
    return numbers


def _shared(group_N: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of each group of two or more."""
    order = np.argsort(group_N, kind="stable")
    starts = np.flatnonzero(np.diff(group_N[order])) + 1
    for rows in np.split(order, starts):
        if len(rows) > 1:
            yield rows


def _duplicates(
    catalog: Catalog, identical_N: NDArray[np.int64], alike_N: NDArray[np.int64]
) -> Iterator[Finding]:
    """Yield one finding for each row whose picture an earlier row has, or nearly has."""
    field = catalog.schema.roles.image or "image"
    for rows in _shared(alike_N):
        seen: dict[int, int] = {}
        for row in rows.tolist():
            first = seen.setdefault(int(identical_N[row]), row)
            of = first if first != row else int(rows[0])
            if of == row:
                continue
            ids = [catalog.ids[other] for other in rows[:MOST_IDS].tolist() if other != row]
            evidence = {"of": catalog.ids[of], "of_row": of + 1, "group": ids, "group_size": len(rows)}
            if first != row:
                kind, what = "duplicate_image", "the same file as"
            else:
                kind, what = "near_duplicate", "nearly the same picture as"
            message = f"{what} that of {catalog.ids[of]} (row {of + 1})"
            yield Finding(kind, message, row + 1, catalog.ids[row], field, "warning", evidence)


def _conflicts(
    catalog: Catalog, rows: NDArray[np.int64], labels: Labels, *, certain: bool
) -> Iterator[Finding]:
    """Yield the attributes on which rows with the same picture disagree; ``labels`` is filled as needed."""
    category_n = catalog.category[rows]
    names = catalog.taxonomy.categories
    known = [code for code in np.unique(category_n).tolist() if code >= 0]
    if len(known) > 1:
        values = {names[code]: rows[category_n == code] for code in known}
        field = catalog.layout.category or "category"
        yield _conflict(catalog, "conflicting_category", field, values, certain)
    for code in known:
        members = rows[category_n == code]
        if len(members) < 2:
            continue
        if code not in labels:
            labels[code] = catalog.rows(names[code]), catalog.labels(names[code])
        rows_n, all_nA = labels[code]
        labels_nA = all_nA[np.searchsorted(rows_n, members)]
        for column, choice in enumerate(catalog.taxonomy.choices(names[code])):
            stated = [value for value in np.unique(labels_nA[:, column]).tolist() if value >= 0]
            if len(stated) > 1:
                values = {choice.values[v]: members[labels_nA[:, column] == v] for v in stated}
                yield _conflict(catalog, "conflicting_labels", choice.name, values, certain)


def _conflict(
    catalog: Catalog, kind: str, field: str, values: dict[str, NDArray[np.int64]], certain: bool
) -> Finding:
    """Name the values with the ids that state them; the row is the first one that states the rarest."""
    rarest = min(values, key=lambda value: (len(values[value]), -int(values[value][0])))
    row = int(values[rarest][0])
    stating = {value: [catalog.ids[r] for r in rows[:MOST_IDS].tolist()] for value, rows in values.items()}
    evidence = {
        "values": stating,
        "counts": {value: len(rows) for value, rows in values.items()},
        "identical": certain,
    }
    others = ", ".join(
        f"{value!r} ({catalog.ids[int(rows[0])]})" for value, rows in values.items() if value != rarest
    )
    what = "the same picture" if certain else "nearly the same picture"
    message = f"{what} is {rarest!r} here and {others} elsewhere"
    return Finding(
        kind, message, row + 1, catalog.ids[row], field, "warning" if certain else "note", evidence
    )
