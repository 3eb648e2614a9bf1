"""What the table of approaches is made of: ways to treat photos and labels, and the page with its chart."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

HOME = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(HOME)


def test_what_is_joined_to_the_border_by_its_colour_is_cut_out() -> None:
    from ways import border_cut

    pixels = np.full((40, 30, 3), 200, np.uint8)
    pixels[10:30, 8:22] = (20, 60, 120)
    pixels[18:22, 13:17] = 200  # a hole of the background's colour, closed in
    cut = np.asarray(border_cut(Image.fromarray(pixels)))
    assert (cut[:5] == 255).all()
    assert (cut[12:16, 10:20] == (20, 60, 120)).all()
    assert (cut[19:21, 14:16] == 200).all()


def test_a_label_that_is_found_unlikely_counts_less() -> None:
    from label_ways import trust

    probs = np.array([[0.9, 0.1], [0.1, 0.9], [0.8, 0.2], [0.5, 0.5]], np.float32)
    weight = trust(probs, np.array([0, 0, 0, -1], np.int32), 0.1)
    assert weight[0] == weight[2] == weight[3] == 1
    assert weight[1] == pytest.approx(0.1 / 0.6, rel=1e-5)


def _row(score: float, cost: float, **more: Any) -> dict[str, Any]:
    ends = [score, score - 0.01, score + 0.01]
    return {"score": ends, "plain": score, "fit_cpu": cost, "mb": 20.0, "rows": 1000, **more}


def test_the_page_has_every_row_its_verdict_and_a_chart(tmp_path: Path) -> None:
    from approach_page import write
    from approaches import REFERENCE

    rows = {
        REFERENCE: _row(0.66, 6.0, random_more=0.05),
        "perceptual hash, 15 votes": _row(0.4, 1.0, gain=[-0.26, -0.27, -0.25]),
        "lite0 + lite2, gated": _row(
            0.662, 70.0, gain=[0.002, -0.004, 0.008], gain_to_base=[0.01, 0.0, 0.02]
        ),
    }
    write(tmp_path / "page.md", {"fashion": rows})
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    (told,) = (line for line in page.splitlines() if line.startswith(f"| {REFERENCE} | 0.660"))
    assert "| 0.660 | 0.710 |" in told
    assert "fashion: worse than the reference (-0.260)" in page
    assert "fashion: not told apart from it (+0.002), +0.010 [+0.000, +0.020] against" in page
    svg = (tmp_path / "images" / "approaches-fashion.svg").read_text(encoding="utf-8")
    assert svg.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert all(name in svg for name in rows)


def test_members_of_a_combination_are_rows() -> None:
    from approach_rows import ROWS, VERDICTS, Mix

    mixed = [row for row in ROWS.values() if isinstance(row.what, Mix)]
    assert mixed
    assert all(set(row.what.members) | {row.base} <= set(ROWS) for row in mixed)
    assert all(row.base in ROWS for row in ROWS.values() if row.base)
    assert set(VERDICTS) <= set(ROWS)
    assert len({row.slug for row in ROWS.values()}) == len(ROWS)


def test_few_labels_are_few(tmp_path: Path) -> None:

    from few_labels import with_few
    from shelfwise.catalog import Catalog
    from shelfwise.testing import toy_catalog

    catalog = Catalog.read(toy_catalog(tmp_path))
    few = with_few(catalog, 2, 0)
    for category in few.present:
        assert (few.labels(category) >= 0).sum(axis=0).max() == 2
    assert (catalog.labels(catalog.present[0]) >= 0).sum(axis=0).max() > 2
