"""Claims in words: what a text says about attributes, what it denies, and how far the reading is trusted."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shelfwise.catalog import Catalog
from shelfwise.errors import BundleError, PredictionError
from shelfwise.taxonomy import Choice, Taxonomy
from shelfwise.trust.claims import Quality, Reader, learn_reader, settle
from shelfwise.trust.lexicon import Lexicon, named_phrases
from shelfwise.trust.sequences import wilson_low
from shelfwise.trust.wording import NEGATED, OTHER, PLAIN, stem, words_of

CHOICES = (
    Choice("sleeve", ("long", "short", "sleeveless", "three-quarter")),
    Choice("neck", ("collar", "hood", "round", "stand-up", "v-neck")),
    Choice("colour", ("Black", "Grey", "Red", "White"), {"Gray": "Grey"}),
    Choice("pattern", ("Check", "Dot", "Solid", "Stripe")),
    Choice("material", ("cotton", "denim", "leather")),
    Choice("fit", ("regular", "slim")),
    Choice("product_type", ("Dress", "Polo shirt", "Shirt", "T-shirt")),
    Choice("gender", ("Boys", "Men", "Women")),
)
PHRASES, NOUNS = named_phrases(CHOICES)
LEXICON = Lexicon(PHRASES, NOUNS)


def said(text: str) -> set[str]:
    """Every claim of a text, ``!`` before a denial; words of many meanings alone left out, as before learning."""
    found = [
        (number, negated)
        for number, negated in LEXICON.find(words_of(text))
        if PHRASES[number].kind != "ambiguous"
    ]
    return {
        ("!" if negated else "")
        + f"{CHOICES[PHRASES[n].attribute].name}={CHOICES[PHRASES[n].attribute].values[PHRASES[n].code]}"
        for n, negated in settle(found, PHRASES)
    }


@pytest.mark.parametrize(
    "text",
    [
        "long sleeves",
        "Long-sleeved",
        "LONG SLEEVE",
        "full sleeves",
        "long puff sleeves",
        "Sleeves: long",
        "sleeve is long",
    ],
)
def test_ways_to_say_long_sleeves(text: str) -> None:
    assert said(text) == {"sleeve=long"}


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("3/4 sleeves", {"sleeve=three-quarter"}),
        ("¾-length sleeves", {"sleeve=three-quarter"}),
        ("three quarter sleeves", {"sleeve=three-quarter"}),
        ("without sleeves", {"sleeve=sleeveless"}),
        ("sleeveless", {"sleeve=sleeveless"}),
        ("V neck tee", {"neck=v-neck", "product_type=T-shirt"}),
        ("crew neck", {"neck=round"}),
        ("stand-up collar", {"neck=stand-up"}),
        ("checked, checkered or plaid", {"pattern=Check"}),
        ("polka-dotted", {"pattern=Dot"}),
        ("gray striped T-shirts", {"colour=Grey", "pattern=Stripe", "product_type=T-shirt"}),
        ("polo shirts", {"product_type=Polo shirt"}),
        ("a women's dress", {"gender=Women", "product_type=Dress"}),
        ("regular fit", {"fit=regular"}),
        ("cotton/denim", set()),
    ],
)
def test_value_names_and_their_synonyms(text: str, claims: set[str]) -> None:
    assert said(text) == claims


@pytest.mark.parametrize("text", ["a long dress", "regular price", "round buttons", "short delivery time"])
def test_words_of_many_meanings_claim_nothing_away_from_their_noun(text: str) -> None:
    assert not {claim for claim in said(text) if not claim.startswith("product_type")}


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("no leather", {"!material=leather"}),
        ("without any leather", {"!material=leather"}),
        ("leather-free", {"!material=leather"}),
        ("free of leather and denim", {"!material=leather", "material=denim"}),
        ("non-leather", {"!material=leather"}),
        ("it doesn't have a v-neck", {"!neck=v-neck"}),
        ("not for men or boys. Women", {"!gender=Men", "!gender=Boys", "gender=Women"}),
        ("not suitable for men", {"!gender=Men"}),
        ("no-iron cotton", {"material=cotton"}),
        ("not only cotton", {"material=cotton"}),
        ("no long sleeves", {"!sleeve=long"}),
        ("no leather. Leather", {"material=leather"}),
    ],
)
def test_negation(text: str, claims: set[str]) -> None:
    assert said(text) == claims


@pytest.mark.parametrize(
    "text",
    [
        "Pairs well with black jeans, a leather belt and a checked scarf",
        "Wear it with a white T-shirt",
        "Also available in black",
        "You may also like: black leather dress",
        "Model is wearing a red dress",
    ],
)
def test_other_products_are_not_claims(text: str) -> None:
    assert said(text) == set()
    assert said(f"{text}. Cotton.") == {"material=cotton"}


def test_a_text_with_two_values_claims_neither() -> None:
    assert said("black and white cotton") == {"material=cotton"}


@given(st.text(max_size=80))
@settings(max_examples=200, deadline=None)
def test_any_text_can_be_read(text: str) -> None:
    words = words_of(text)
    assert len(words.tokens) == len(words.states)
    assert set(words.states) <= {PLAIN, NEGATED, OTHER}
    said(text)


@given(
    st.sampled_from(["long sleeved", "v neck", "striped", "cotton", "women"]),
    st.sampled_from(["", "!", " ", "\n"]),
)
@settings(deadline=None)
def test_case_and_hyphens_do_not_matter(text: str, end: str) -> None:
    assert said(text) == said(text.upper() + end) == said(text.replace(" ", "-")) != set()


@pytest.mark.parametrize(
    "words",
    [
        ("sleeve", "sleeves", "sleeved"),
        ("stripe", "stripes", "striped"),
        ("dot", "dots", "dotted"),
        ("color", "colours"),
    ],
)
def test_endings_of_one_word_have_one_stem(words: tuple[str, ...]) -> None:
    assert len(set(map(stem, words))) == 1


@pytest.mark.parametrize(
    ("one", "other"), [("red", "r"), ("dress", "dres"), ("men", "women"), ("boy", "boat")]
)
def test_other_words_keep_apart(one: str, other: str) -> None:
    assert stem(one) != stem(other)


def products(n: int = 400, seed: int = 0) -> pl.DataFrame:
    """Shirts whose description tells sleeve and pattern, and whose title holds a colour word of no meaning."""
    rng = np.random.default_rng(seed)
    pick = lambda values: [str(v) for v in rng.choice(values, n)]  # noqa: E731
    sleeve, pattern, colour = (
        pick(["long", "short"]),
        pick(["Check", "Solid", "Stripe"]),
        pick(["Black", "Red", "White"]),
    )
    name = pick(["Black", "Red", "White", "Anna", "Bella"])
    extra = {"Stripe": "Breton classic.", "Check": "Lumberjack style.", "Solid": ""}
    description = [
        f"Shirt with {s} sleeves. {extra[p]}" if i % 4 else f"A {p.lower()} shirt."
        for i, (s, p) in enumerate(zip(sleeve, pattern, strict=True))
    ]
    return pl.DataFrame(
        {
            "id": [f"{i:04d}" for i in range(n)],
            "category": ["Shirts"] * n,
            "title": [f"{word} shirt no. {i}" for i, word in enumerate(name)],
            "description": description,
            "sleeve": sleeve,
            "pattern": pattern,
            "colour": colour,
        }
    )


@pytest.fixture(scope="module")
def shirts() -> Catalog:
    return Catalog.read(products())


@pytest.fixture(scope="module")
def reader(shirts: Catalog) -> Reader:
    return learn_reader(shirts, np.arange(len(shirts)))


def test_the_reading_is_measured_and_used_only_where_it_is_good(reader: Reader) -> None:
    sleeve, pattern, colour = (reader.quality["Shirts", name] for name in ("sleeve", "pattern", "colour"))
    assert sleeve.used
    assert sleeve.precision == 1
    assert sleeve.recall == pytest.approx(0.75, abs=0.01)
    assert sleeve.labelled == 400
    assert pattern.used
    assert not colour.used
    notes = " ".join(reader.notes())
    assert "2 of 3 attributes" in notes
    assert colour.read == 0 or "Shirts / colour" in notes


def test_phrases_are_learnt_from_the_table(shirts: Catalog, reader: Reader) -> None:
    learnt = {
        " ".join(k.phrase.words) for k in reader.phrases["Shirts"] if k.phrase.kind == "learnt" and k.used
    }
    assert {stem("breton"), stem("lumberjack")} <= learnt
    claims = reader.read(shirts)
    values = shirts.taxonomy.choices("Shirts")
    row = next(i for i, text in enumerate(shirts.texts("description")) if "Breton" in (text or ""))
    found = {
        values[a].values[c]
        for r, a, c in zip(claims.row.tolist(), claims.attribute.tolist(), claims.code.tolist(), strict=True)
        if r == row
    }
    assert "Stripe" in found
    assert {claims.columns[c] for c in claims.column.tolist()} == {"description"}
    assert ((claims.precision > 0.9) & (claims.precision <= 1)).all()


def test_a_phrase_that_one_group_repeats_is_not_learnt() -> None:
    frame = products()
    repeated = frame.head(60).with_columns(
        pl.lit("Zebra edition").alias("description"), pl.lit("Stripe").alias("pattern")
    )
    frame = pl.concat([repeated, frame.tail(340)])
    catalog = Catalog.read(frame)
    zebra = {"zebra", stem("edition"), f"zebra {stem('edition')}"}
    for group, learnt in ((np.arange(400), True), (np.r_[np.zeros(60), np.arange(1, 341)], False)):
        reader = learn_reader(catalog, group)
        phrases = {
            " ".join(k.phrase.words) for k in reader.phrases["Shirts"] if k.phrase.kind == "learnt" and k.used
        }
        assert bool(phrases & zebra) == learnt


def test_the_order_of_rows_does_not_matter(shirts: Catalog, reader: Reader) -> None:
    order = np.random.default_rng(1).permutation(len(shirts))
    other = learn_reader(shirts.select(order), np.arange(len(shirts)))
    assert other.quality == reader.quality
    assert {k.phrase for k in other.phrases["Shirts"] if k.used} == {
        k.phrase for k in reader.phrases["Shirts"] if k.used
    }


def test_denials_are_claims_too(shirts: Catalog, reader: Reader) -> None:
    text = ["Not striped. No long sleeves."] + [""] * (len(shirts) - 1)
    frame = shirts.frame.with_columns(pl.Series("description", text))
    claims = reader.read(Catalog.read(frame, schema=shirts.schema))
    assert claims.negated.all()
    assert len(claims) == 2
    assert set(claims.row.tolist()) == {0}


def test_a_reader_comes_back_from_its_file(shirts: Catalog, reader: Reader, tmp_path: Path) -> None:
    reader.save(tmp_path / "claims.json")
    back = Reader.load(tmp_path / "claims.json", shirts.taxonomy)
    assert back.quality == reader.quality
    one, two = reader.read(shirts), back.read(shirts)
    assert one.phrase == two.phrase
    np.testing.assert_allclose(one.precision, two.precision, atol=1e-4)


def _change(table: dict[str, object], what: str) -> str:
    if what == "format":
        table["format"] = 2
    elif what == "taxonomy":
        table["taxonomy"] = "0" * 64
    elif what == "value":
        table["phrases"]["Shirts"][0][1] = "Tartan trousers"  # type: ignore[index]
    elif what == "kind":
        table["phrases"]["Shirts"][0][3] = "guess"  # type: ignore[index]
    elif what == "quality":
        table["quality"][0][2]["more"] = 1  # type: ignore[index]
    elif what == "nouns":
        table["nouns"]["Shirts"] = []  # type: ignore[index]
    elif what == "missing":
        del table["phrases"]
    elif what == "no JSON":
        return "{"
    return json.dumps(table)


@pytest.mark.parametrize(
    "what", ["format", "taxonomy", "value", "kind", "quality", "nouns", "missing", "no JSON"]
)
def test_a_damaged_file_is_refused(shirts: Catalog, reader: Reader, tmp_path: Path, what: str) -> None:
    path = tmp_path / "claims.json"
    reader.save(path)
    path.write_text(_change(json.loads(path.read_text()), what))
    with pytest.raises(BundleError, match=r"claims\.json"):
        Reader.load(path, shirts.taxonomy)


def test_other_taxonomies_and_groups_of_another_number_are_refused(shirts: Catalog, reader: Reader) -> None:
    with pytest.raises(PredictionError, match="another taxonomy"):
        reader.read(Catalog.read(products().with_columns(pl.lit("Coats").alias("category"))))
    with pytest.raises(PredictionError, match="3 group numbers"):
        learn_reader(shirts, [0, 1, 2])


def test_a_table_without_text_claims_nothing() -> None:
    catalog = Catalog.read(products().drop("title", "description"))
    reader = learn_reader(catalog, np.arange(len(catalog)))
    assert len(reader.read(catalog)) == 0
    assert "not read" in reader.notes()[0]


def test_only_the_categories_of_a_table_are_prepared(shirts: Catalog) -> None:
    entries = {f"Kind {i}": (Choice("colour", ("Black", "Red")),) for i in range(50)}
    taxonomy = Taxonomy(entries)
    frame = pl.DataFrame({"id": ["1"], "category": ["Kind 7"], "title": ["Red coat"], "colour": ["Red"]})
    catalog = Catalog.read(frame, schema=replace(Catalog.read(frame).schema, taxonomy=taxonomy))
    learnt = learn_reader(catalog, [0])
    known = dict.fromkeys(taxonomy.categories, learnt.phrases["Kind 7"])
    nouns = dict.fromkeys(taxonomy.categories, learnt.nouns["Kind 7"])
    good = Quality(labelled=100, read=100, right=100, found=100, low=0.97, used=True)
    reader = Reader(taxonomy, known, nouns, {(name, "colour"): good for name in taxonomy.categories})
    assert set(reader.read(catalog).row.tolist()) == {0}
    assert list(reader._lexicons) == ["Kind 7"]


def test_wilsons_interval() -> None:
    low = wilson_low([0, 5, 10, 100], [0, 10, 10, 100], 1.645)
    assert low[0] == 0
    assert low[1] < 0.5 < low[2] < low[3] < 1
    assert low[2] == pytest.approx(10 / (10 + 1.645**2))
