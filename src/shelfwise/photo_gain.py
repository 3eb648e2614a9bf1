"""Photo gain: what all photos of a product add to its first one alone.

It does not know how photos vote.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from shelfwise.answers import Answers
from shelfwise.catalog import Catalog
from shelfwise.evaluate import compare
from shelfwise.predictions import Predictions
from shelfwise.recipes.several import Voted
from shelfwise.report import Report

#: Replicates of the interval of the gain.
BOOTSTRAP = 500


def photo_gain(
    first: Predictions | Answers,
    voted: Predictions | Answers,
    catalog: Catalog,
    *,
    groups: npt.ArrayLike | None,
    metric: str,
    counted: Mapping[str, Any] | None = None,
) -> str:
    """Return both scores in words, and whether the difference is real.

    Args:
        first: what each product's first photo says alone.
        voted: what all say together.
        catalog: the products with their stated values.
        groups: int [N], near-duplicate groups.
        metric: a registered metric.
        counted: ``min_rows`` and ``min_values`` of ``evaluate``.
    """
    entries: Sequence[tuple[str, Predictions | Answers]] = [("first photo", first), ("all photos", voted)]
    found = compare(entries, catalog, groups=groups, metric=metric, bootstrap=BOOTSTRAP, **(counted or {}))
    line = found.differences[0]
    return (
        f"{found.metric} with all photos of the {len(catalog.photos):,} products that have several: {line.score:.4f}; "
        f"with their first photo alone: {line.first:.4f}; difference {line.difference:+.4f} "
        f"[{line.low:+.4f}, {line.high:+.4f}], {line.verdict}."
    )


def with_photos(
    report: Report,
    photos: Voted,
    truth: Catalog,
    *,
    groups: npt.ArrayLike,
    metric: str,
    counted: Mapping[str, Any],
) -> Report:
    """Put in what several photos gained out of fold, most probable values compared.

    Args:
        report: of the vote.
        photos: the vote, and the first photos alone.
        truth: the products with their stated values.
        groups: int [N], near-duplicate groups.
        metric: a registered metric.
        counted: ``min_rows`` and ``min_values`` of ``evaluate``.
    """
    if not truth.photos:
        return report.with_notes(photos.said)
    gain = photo_gain(photos.first, photos.found, truth, groups=groups, metric=metric, counted=counted)
    return report.with_notes(photos.said, f"Out of fold, before deciding: {gain}")
