"""Descriptions of catalogues, worked out by hand."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from shelfwise.catalog import Catalog
from shelfwise.describe import describe
from shelfwise.errors import UsageError
from shelfwise.roles import Columns


@pytest.fixture
def catalog():
    rows = [
        ("1", "caps", "red", "box", None),
        ("2", "caps", "red", "box", "a"),
        ("3", "caps", "blue", None, "b"),
        ("4", "caps", None, None, "a"),
        ("5", "caps", None, None, None),
        ("6", "caps", "red", "tube", "b"),
        ("7", "bags", "white", None, None),
        ("8", "bags", "white", None, None),
    ]
    frame = pl.DataFrame(rows, schema=["id", "category", "color", "form", "neck"], orient="row")
    return Catalog.read(frame, columns=Columns(choice=("color", "form", "neck")))


def facts(n):
    ok = np.ones(n, bool)
    ok[0] = False
    measures = {
        name: np.arange(n, dtype=np.float32) for name in ("blur", "brightness", "dark_share", "bright_share")
    }
    table = SimpleNamespace(ok=ok, width=np.full(n, 100), height=np.arange(n) * 10, **measures)
    return type("Facts", (SimpleNamespace,), {"__len__": lambda self: n})(**vars(table))


def test_counts(catalog):
    found = describe(catalog)
    assert found.number("products") == 8
    assert found.number("categories") == 2
    assert found.number("pictures") == 0
    assert found.number("labels") == 4 + 3 + 4 + 2
    assert found.number("labels", "caps", "color") == 4
    assert found.number("missing_share", "caps", "color") == pytest.approx(2 / 6)
    assert found.number("imbalance", "caps", "color") == 3
    assert found.number("values", "caps", "color") == 2
    assert found.number("labels", "caps", "color", "red") == 3
    assert found.number("imbalance", "bags", "color") == 1
    assert np.isnan(found.number("conflicts", "caps", "color"))


def test_missing_together(catalog):
    found = describe(catalog)
    # color is missing in rows 4, 5; form in 3, 4, 5; neck in 1, 5
    phi = (2 / 6 - 2 / 6 * 3 / 6) / np.sqrt(2 / 6 * 4 / 6 * 0.25)
    assert found.number("phi", "caps", "color", "form") == pytest.approx(phi)
    assert found.number("both_missing", "caps", "color", "form") == 2
    assert np.isnan(found.number("phi", "caps", "color", "neck"))
    assert np.isnan(found.number("phi", "caps", "form", "neck"))
    assert np.isnan(found.number("phi", "bags", "color", "form"))


def test_conflicts_within_groups(catalog):
    found = describe(catalog, groups=[9, 9, 9, 4, 4, 4, 7, 7])
    assert found.number("groups_compared", "caps", "color") == 1
    assert found.number("conflicts", "caps", "color") == 1
    assert found.number("conflicts", "caps", "form") == 0
    assert found.number("groups_compared", "caps", "neck") == 2
    assert found.number("conflicts", "caps", "neck") == 2
    assert found.number("groups_compared", "bags", "color") == 1
    assert found.number("conflicts", "bags", "color") == 0
    assert "1 of 1" in str(found)
    with pytest.raises(UsageError, match="group numbers"):
        describe(catalog, groups=[1, 2])


def test_pictures(catalog):
    found = describe(catalog, facts(8))
    assert found.number("readable", "caps") == 5
    assert found.number("height_p50", "caps") == 30
    assert found.number("blur_p5", "caps") == pytest.approx(1.2)
    assert found.number("bright_share_p95", "bags") == pytest.approx(6.95)
    assert "5 of 0" in str(found)
    with pytest.raises(UsageError, match="facts of 3"):
        describe(catalog, facts(3))


def test_text_json_frame(catalog, tmp_path):
    found = describe(catalog)
    text = str(found)
    assert text.startswith("8 products in 2 categories")
    assert "red 75%" in text
    assert "caps: color and form" in text
    assert "nan" not in text.lower()
    data = json.loads(found.to_json())
    assert len(data["rows"]) == found.frame().height == len(found.counts)
    assert data["columns"] == ["level", "category", "attribute", "value", "measure", "number"]
    for ending in ("json", "csv", "parquet", "txt"):
        found.write(tmp_path / f"d.{ending}")
    assert pl.read_parquet(tmp_path / "d.parquet").height == len(found.counts)
    assert (tmp_path / "d.txt").read_text() == text
    assert found.table().row_count == 2 + 4


def test_dear_prices_have_no_exponent(tmp_path: Path):
    prices = ["1355800", "2500000.5", "0.25", "8500"]
    table = pl.DataFrame({"id": list("abcd"), "price": prices, "colour": ["red"] * 4})
    text = str(describe(Catalog.read(table, images=tmp_path)))
    assert "2,500,000" in text
    assert "0.25" in text
    assert "e+0" not in text


def test_many_categories_are_cut_short_in_text_only():
    rows = [(str(k), f"c{k % 60:02}", "red") for k in range(600)]
    catalog = Catalog.read(pl.DataFrame(rows, schema=["id", "category", "color"], orient="row"))
    found = describe(catalog)
    assert "and 20 smaller categories" in str(found)
    assert found.number("labels", "c59", "color") == 10


def test_an_attribute_nobody_states_has_dashes_not_nan(catalog):
    text = str(describe(catalog.select([3, 4])))
    assert next(line for line in text.splitlines() if line.startswith("  color")).split()[-2:] == ["-", "-"]
