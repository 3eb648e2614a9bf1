"""Texts as a second input of Choice attributes: either side missing, leaks said, names where nobody labelled."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import shelfwise as sw
from conftest import Toy
from shelfwise import testing
from shelfwise.bundle import Bundle
from shelfwise.catalog import Catalog
from shelfwise.config import make_recipe
from shelfwise.errors import BundleError, CatalogError, ConfigError, UsageError
from shelfwise.models.torchvision_repair import import_torchvision
from shelfwise.predictions import Machine
from shelfwise.recipes.experts import filled, pooled
from shelfwise.recipes.texts import product_texts, saying
from shelfwise.recipes.value_names import paired_encoder
from shelfwise.testing import check_options, check_recipe
from shelfwise.toys import toy_catalog
from shelfwise.trust.spelt import spelt_out, spelt_out_notes

import_torchvision()
import torch  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
Inputs = tuple[str, ...]
BOTH, TEXT = ("image", "text"), ("text",)


def probe(inputs: Inputs = BOTH, **options: object) -> sw.Probe:
    given = {"name": "probe", "backbone": "toy", "choice_inputs": inputs, "text_encoder": "tfidf", **options}
    found: sw.Probe = make_recipe(given)
    return found


def speaking(directory: str | Path) -> Path:
    """The toy table with titles that say colour and pattern, where they are stated."""
    path = toy_catalog(directory)
    frame = pl.read_csv(path, infer_schema=False)
    words = pl.concat_str("colour", "pattern", "title", separator=" ", ignore_nulls=True)
    frame.with_columns(words.alias("title")).write_csv(path)
    return path


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return Catalog.read(speaking(tmp_path_factory.mktemp("said"))).remembering()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(cache=tmp_path_factory.mktemp("cache"), jobs=1, engine="torch")


def changed(catalog: Catalog, column: str, rows: list[int], cell: str | None = None) -> Catalog:
    """Read the table again with other cells in some rows."""
    cells = catalog.frame[column].to_list()
    for row in rows:
        cells[row] = cell
    frame = catalog.frame.with_columns(pl.Series(column, cells, pl.String))
    images = next(path for path in catalog.images if path is not None).parents[1]
    return Catalog.read(frame, images=images, schema=catalog.schema)


@pytest.mark.parametrize("inputs", [BOTH, TEXT], ids=str)
def test_the_contract_of_recipes_is_kept(inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(testing, "toy_catalog", speaking)
    check_recipe(probe(inputs, text_encoder={"name": "tfidf", "dimension": 16}), tmp_path)


def test_the_options_are_a_value_and_mistakes_are_named():
    check_options(probe())
    check_options(probe(text_encoder={"name": "tfidf", "dimension": 7, "words": [1, 1]}))
    assert probe(("image",)) == sw.Probe(backbone=sw.backbone("toy"))
    for options, message in (
        ({"choice_inputs": []}, "choice_inputs is"),
        ({"choice_inputs": ["text", "image"]}, "choice_inputs is"),
        ({"choice_inputs": ["sound"]}, "choice_inputs"),
        ({"text_encoder": "tf-idf"}, "Did you mean 'tfidf'"),
        ({"start_unlabelled": "value_names"}, "'toy' has no text tower beside it"),
        ({"start_unlabelled": "value_names", "choice_inputs": ["text"]}, "held against photos"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_recipe({"name": "probe", "backbone": "toy", **options})
    with pytest.raises(UsageError, match="open_clip"):
        paired_encoder(sw.backbone("lite0"))


def test_a_product_without_a_photo_is_answered_from_its_text(said: Catalog, machine: Machine):
    """And one without a text from its photo: exactly as by a recipe that has only the other side."""
    test = changed(said, "image", [0, 1, 2], "images/none.png")
    test = changed(test, "title", [2, 3, 4])
    predictors = {inputs: probe(inputs).fit(said, None, machine, 0) for inputs in (BOTH, TEXT, ("image",))}
    found = {inputs: each.predict(test, machine) for inputs, each in predictors.items()}
    assert sorted(found[BOTH].errors) == [2]
    assert found[BOTH].errors[2].field == "image"
    assert sorted(found["image",].errors) == [0, 1, 2]
    assert {row: error.field for row, error in found[TEXT].errors.items()} == dict.fromkeys(
        (2, 3, 4), "title"
    )
    note = "2 products without a readable photo are answered from their text alone: '00000', '00001'"
    assert found[BOTH].notes == (note,)
    assert found[TEXT].notes == ()
    for rows, inputs in (([0, 1], TEXT), ([3, 4], ("image",))):
        alone = found[inputs].select(rows)
        for block, other in zip(found[BOTH].select(rows).blocks, alone.blocks, strict=True):
            np.testing.assert_allclose(block.probs, other.probs, atol=1e-6)
            assert len(block.opinions) == 6
    both, photo = found[BOTH].select([5]).blocks[0], found["image",].select([5]).blocks[0]
    assert np.abs(both.probs - photo.probs).max() > 0.01


def test_training_products_with_one_side_only_teach_that_side(said: Catalog, machine: Machine):
    odd = list(range(1, len(said), 2))
    one_sided = changed(changed(said, "title", odd), "image", list(range(0, len(said), 2)), "images/none.png")
    predictor = probe().fit(one_sided, None, machine, 0)
    photos = probe(("image",)).fit(said.select(odd), None, machine, 0)
    found, expected = predictor.predict(one_sided, machine), photos.predict(said.select(odd), machine)
    assert not found.errors
    for block, other in zip(found.select(odd).blocks, expected.blocks, strict=True):
        np.testing.assert_allclose(block.probs, other.probs, atol=1e-6)


def test_the_category_is_guessed_from_both(said: Catalog, machine: Machine):
    blank = changed(said, "category", list(range(len(said))))
    blank = changed(blank, "image", [0, 1, 2], "images/none.png")
    found = probe().fit(said, None, machine, 0).predict(blank, machine)
    assert len(found.guessed) == len(said)
    assert (found.categories() == said.category).mean() > 0.95
    assert (found.categories() == said.category)[:3].all()


def test_words_nobody_knows_are_no_text(said: Catalog, machine: Machine):
    predictor = probe(TEXT).fit(said, None, machine, 0)
    test = changed(said, "title", [0], "qqq")
    found = predictor.predict(test, machine)
    assert sorted(found.errors) == [0]
    assert "in words that were learnt from" in found.errors[0].message
    assert saying(np.array([[0, 0], [np.nan, np.nan], [0, 1]], np.float32)).tolist() == [False, False, True]


def test_nothing_to_learn_from_is_said(said: Catalog, machine: Machine):
    rows = list(range(len(said)))
    silent = changed(said, "title", rows)
    with pytest.raises(CatalogError, match="no product has a text and a category"):
        probe(TEXT).fit(silent, None, machine, 0)
    blind = changed(silent, "image", rows, "none.png")
    with pytest.raises(CatalogError, match="a readable picture or a text and a category"):
        probe().fit(blind, None, machine, 0)
    found = probe().fit(silent, None, machine, 0).predict(said, machine)
    photos = probe(("image",)).fit(said, None, machine, 0).predict(said, machine)
    for block, other in zip(found.blocks, photos.blocks, strict=True):
        np.testing.assert_allclose(block.probs, other.probs, atol=1e-6)


def test_words_of_the_fold_left_out_are_not_learnt(said: Catalog, machine: Machine, tmp_path: Path):
    """The encoder is fitted on the training texts alone: no word of another product is in its vocabulary."""
    marked = changed(said, "title", list(range(0, len(said), 2)), "zanzibar velvet")
    predictor = probe(TEXT).fit(marked.select(range(1, len(said), 2)), None, machine, 0)
    predictor.save(tmp_path)
    card = (tmp_path / "text" / "text.json").read_text()
    assert "toyware" in card
    assert "zanzibar" not in card


def test_a_saved_probe_is_refused_with_another_text_encoder(said: Catalog, machine: Machine, tmp_path: Path):
    probe().fit(said, None, machine, 0).save(tmp_path)
    other = probe(text_encoder={"name": "tfidf", "dimension": 5})
    with pytest.raises(BundleError, match="another text encoder"):
        other.load(tmp_path, said.taxonomy)


def test_texts_are_read_once(said: Catalog, monkeypatch: pytest.MonkeyPatch):
    catalog = Catalog.read(said.frame, schema=said.schema).remembering()
    first = product_texts(catalog)
    monkeypatch.setattr("shelfwise.data.text._listing", lambda text, options: pytest.fail("read again"))
    assert product_texts(catalog.select([5, 3])) == [first[5], first[3]]
    assert "Toyware" in first[0]


def test_silent_experts_leave_rows_to_the_others(toy: Toy):
    taxonomy, width = toy.catalog.taxonomy, toy.catalog.taxonomy.width("Cups")
    one, two = np.full((1, width), 0.3, np.float32), np.full((2, width), 0.6, np.float32)
    first, second = np.array([True, False, False]), np.array([True, True, False])
    found = filled(taxonomy, "Cups", [((one,), first), ((two,), second)])
    assert [part[:, 0].tolist() for part in found] == [
        pytest.approx([0.3, 0.6, 1 / 3]),
        pytest.approx([0.6, 0.6, 1 / 3]),
    ]
    assert filled(taxonomy, "Cups", [((), first), ((), second)]) == []
    same = pooled(taxonomy, "Cups", [found[0], found[0]], (1.0,))
    parts = taxonomy.slices("Cups")
    for part in parts:
        expected = found[0][:, part] / found[0][:, part].sum(axis=1, keepdims=True)
        np.testing.assert_allclose(same[:, part], expected, rtol=1e-5)


def test_values_in_the_text_are_counted_and_said(said: Catalog):
    found = {(each.column, each.attribute): each for each in spelt_out(said)}
    assert found["title", "colour"].share == 1
    assert found["title", "size"].share == 0
    assert found["title", "colour"].labelled == sum(
        int((said.labels(name)[:, 0] >= 0).sum()) for name in said.present
    )
    (note,) = spelt_out_notes(tuple(found.values()))
    assert note.startswith(
        "The text column 'title' spells out values that it helps to predict: colour (100 % of "
    )
    assert "pattern" in note
    assert "size" not in note


def test_fit_warns_of_a_leak_where_texts_are_read_and_answers_without_a_photo(
    said: Catalog, machine: Machine, tmp_path: Path
):
    blind = changed(said, "image", [0], "none.png")
    bundles = {
        inputs: sw.fit(blind, probe(inputs), evidence=3, machine=machine, random_split=False, curve=False)
        for inputs in (BOTH, ("image",))
    }
    leaks = {
        inputs: [note for note in bundle.report.notes if "spells out" in note]
        for inputs, bundle in bundles.items()
    }
    assert len(leaks[BOTH]) == 1
    assert "colour (100 %" in leaks[BOTH][0]
    assert leaks["image",] == []
    scores = {inputs: bundle.report.score for inputs, bundle in bundles.items()}
    assert scores[BOTH] > scores["image",]
    bundles[BOTH].save(tmp_path / "bundle")
    bundle = Bundle.load(tmp_path / "bundle")
    given = bundle.answer_one(text="red striped cup", category="Cups", machine=machine)
    assert given["error"] is None
    assert given["answers"]["colour"]["value"] == "red"
    assert bundle.answer_one(category="Cups", machine=machine)["error"] is not None


@pytest.fixture
def known_clip(tmp_path: Path) -> tuple[str, Path]:
    """A random CLIP whose photos all have one vector, that of a known text."""
    open_clip = pytest.importorskip("open_clip")
    from safetensors.torch import save_file

    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    tower = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    name = "tiny-known"
    file = tmp_path / f"{name}.json"
    file.write_text(json.dumps({"embed_dim": 24, "vision_cfg": tower, "text_cfg": text}))
    open_clip.add_model_config(file)
    torch.manual_seed(3)
    whole = open_clip.create_model(name).eval()
    with torch.no_grad():
        wanted = whole.encode_text(open_clip.get_tokenizer(name)(["a photo of velvet Cups"]))[0]
        # The last norm gives its bias alone, and the projection makes the text's vector of it.
        whole.visual.ln_post.weight.zero_()
        whole.visual.ln_post.bias.zero_()
        whole.visual.ln_post.bias[0] = 1
        whole.visual.proj.zero_()
        whole.visual.proj[0] = wanted
    weights = tmp_path / "known.safetensors"
    save_file({key: value.contiguous() for key, value in whole.state_dict().items()}, weights)
    return name, weights


@pytest.mark.clip
def test_an_attribute_without_labels_starts_from_the_names_of_its_values(
    known_clip: tuple[str, Path], machine: Machine, tmp_path: Path
):
    from shelfwise.taxonomy import Choice, Taxonomy

    name, weights = known_clip
    path = toy_catalog(tmp_path / "toy", products=24)
    first = Catalog.read(path)
    entries = {
        category: (*attributes, Choice("material", ("steel", "velvet", "glass")))
        for category, attributes in first.taxonomy.entries.items()
    }
    schema = first.schema.__class__(
        Taxonomy(entries), first.schema.roles, first.schema.layout, first.schema.missing
    )
    catalog = Catalog.read(path, schema=schema)
    backbone = {"name": "open_clip", "model": name, "weights": str(weights)}
    recipe = probe(("image",), backbone=backbone, start_unlabelled="value_names")
    check_options(recipe)
    predictor = recipe.fit(catalog, None, machine, 0)
    found = predictor.predict(catalog, machine)
    block = found.block("Cups")
    assert block is not None
    part = catalog.taxonomy.slices("Cups")[-1]
    assert (block.probs[:, part].argmax(axis=1) == 1).all(), "velvet, which every photo shows"
    assert (block.probs[:, part].max(axis=1) > 0.4).all()
    even = probe(("image",), backbone=backbone).fit(catalog, None, machine, 0).predict(catalog, machine)
    other = even.block("Cups")
    assert other is not None
    np.testing.assert_allclose(other.probs[:, part], 1 / 3, atol=1e-6)
    np.testing.assert_array_equal(other.probs[:, : part.start], block.probs[:, : part.start])
    (tmp_path / "saved").mkdir()
    predictor.save(tmp_path / "saved")
    again = recipe.load(tmp_path / "saved", catalog.taxonomy).predict(catalog, machine).block("Cups")
    assert again is not None
    np.testing.assert_array_equal(again.probs, block.probs)
