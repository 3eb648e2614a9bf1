"""Brands: learnt from stated brands and from how names begin, and found in names."""

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shelfwise.data.brands import UNKNOWN, Brands, learn_brands
from shelfwise.errors import UsageError

NAMES = ["Wild Stone Deodorant", "Wild Stone Soap", "Acme Pan", "Acme Pot", "Lone Mug", "Kitchen Pan"]


def test_stated_brands_are_found_anywhere_the_longest_first() -> None:
    brands = learn_brands(["a", "b", "c", "d"], ["Home", "Home Trends", "L'Oreal", "e.l.f."])
    assert brands.find("Home Trends Beige Runner") == "Home Trends"
    assert brands.find("Runner by HOME  TRENDS") == "Home Trends"
    assert brands.find("Home Sweet Mug") == "Home"
    assert brands.find("L OREAL shampoo") == "L'Oreal"
    assert brands.find("E.L.F. kit") == "e.l.f."
    assert brands.find("Homer mug") == UNKNOWN
    assert brands.find("elf kit") == UNKNOWN
    assert brands.find("") == UNKNOWN


def test_the_first_brand_of_a_name_counts_not_what_it_fits() -> None:
    brands = learn_brands(["a", "b"], ["Acme", "Zed Phones"])
    assert brands.find("Acme case for Zed Phones") == "Acme"
    assert brands.find("Zed Phones case by Acme") == "Zed Phones"
    assert brands.find("Case for Zed Phones") == UNKNOWN
    assert brands.find("Battery compatible Acme") == UNKNOWN


def test_a_stated_brand_is_the_answer_in_its_usual_spelling() -> None:
    brands = learn_brands(["a", "b", "c"], ["ACME", "Acme", "Acme"])
    assert brands.find("Other thing", "aCmE") == "Acme"
    assert brands.find("Acme thing", " New   Brand ") == "New Brand"
    for nothing in ("", "  ", "Unbranded", "N/A", "generic"):
        assert brands.find("Acme thing", nothing) == "Acme"


def test_how_names_begin_teaches_brands_where_none_are_stated() -> None:
    brands = learn_brands(NAMES)
    assert dict(brands.leading) == {"wild stone": "Wild Stone", "acme": "Acme"}
    assert brands.find("WILD STONE gift set") == "Wild Stone"
    assert brands.find("Wild rose") == UNKNOWN
    assert brands.find("Pan by Acme") == UNKNOWN  # learnt from beginnings, so found there only
    assert brands.find("Lone Mug") == UNKNOWN  # it begins one name only
    assert learn_brands(["2 pack tee", "2 pack sock", "5 x", "5 y"]).leading == {}


def test_a_word_that_stands_inside_names_as_well_is_no_brand() -> None:
    inside = [f"{letter} Pan lid" for letter in ("Aa", "Bb", "Cc", "Dd", "Ee")]
    assert "pan" not in learn_brands(["Pan black", "Pan red", *inside]).leading
    assert "pan" in learn_brands(["Pan black", "Pan red", *inside[:2]]).leading


def test_beginnings_are_learnt_only_from_products_that_state_no_brand() -> None:
    brands = learn_brands(
        [*NAMES, "Bold Big Pan", "Bold Big Pot"], [None, "", *["Acme"] * 2, *[None] * 2, "Bold", "Bold"]
    )
    assert dict(brands.stated) == {"acme": "Acme", "bold": "Bold"}
    assert dict(brands.leading) == {"wild stone": "Wild Stone"}


def test_order_and_repeats_change_nothing() -> None:
    stated = [None, None, "Acme", "ACME", None, None]
    once = learn_brands(NAMES, stated)
    assert learn_brands(NAMES[::-1], stated[::-1]) == once
    assert learn_brands(["Lone Mug", *NAMES], [None, *stated]).leading == once.leading


def test_brands_go_through_json() -> None:
    brands = learn_brands(NAMES, ["Zoë", None, None, None, None, None])
    assert Brands.from_table(json.loads(json.dumps(brands.table()))) == brands


def test_names_and_brands_must_match() -> None:
    with pytest.raises(UsageError, match="2 names, but 1 stated"):
        learn_brands(["a", "b"], ["c"])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.text(max_size=40), st.none() | st.text(max_size=15)), max_size=12),
    st.text(max_size=60),
)
def test_any_text_is_learnt_and_searched(rows: list[tuple[str, str | None]], name: str) -> None:
    names, stated = [row[0] for row in rows], [row[1] for row in rows]
    brands = learn_brands(names, stated)
    known = {*brands.stated.values(), *brands.leading.values(), UNKNOWN}
    assert brands.find(name) in known
    assert all(brands.find(text) in known for text in names)
    assert all(key and text for key, text in (*brands.stated.items(), *brands.leading.items()))


@pytest.mark.data
def test_brands_of_real_titles_by_grouped_folds(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "benchmarks")
    monkeypatch.delitem(sys.modules, "brands", raising=False)
    from brands import scored
    from shelfwise.catalog import Catalog

    counts = scored(Catalog.read(shared_data / "flipkart" / "catalog.csv"), 0, use_stated=True)
    assert counts["seen"] > 200
    assert counts["unseen"] > 300
    assert counts["seen_right"] >= 0.99 * counts["seen"]
    assert (
        counts["unseen_unknown"] >= 0.96 * counts["unseen"]
    )  # what no training product is called is not made up
    assert counts["silent_found"] >= 0.5 * counts["silent"]
