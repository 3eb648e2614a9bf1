"""Pair: two towers and what is put between them; a missing side is a state; prices are learnt, resumed and saved."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import shelfwise as sw
from conftest import Toy
from shelfwise import metrics
from shelfwise.amounts import MEDIAN
from shelfwise.catalog import Catalog
from shelfwise.config import make_recipe, to_toml
from shelfwise.data.beside import Beside, Tokens
from shelfwise.errors import BundleError, CatalogError, UsageError
from shelfwise.models.backbones import build_backbone
from shelfwise.models.network import set_trainable
from shelfwise.models.pair import image_of
from shelfwise.predictions import Machine, Predictions
from shelfwise.recipes import training_run
from shelfwise.recipes.tuned import ALL, TunedPredictor
from shelfwise.testing import toy_catalog
from shelfwise.train import checkpoint
from shelfwise.train.anatomy import Anatomy, trained
from shelfwise.train.optim import Optimiser, Phase, Rates, parameter_groups
from tiny_bert import tiny_bert

pytestmark = pytest.mark.usefixtures("one_thread")
SHORT = ({"epochs": 1, "steps": 3, "lr": 1e-2},)


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("bert"))


def spec(bert: Path, **options: Any) -> Any:
    text = {"name": "sentence", "model": str(bert)}
    return sw.backbone(
        "pair", **{"image": "toy", "text": text, "width": 16, "heads": 2, "hide": 0.0, **options}
    )


def tower(bert: Path, **options: Any) -> Any:
    return build_backbone(spec(bert, **options)).module.eval()


def texts(bert: Path, *given: str) -> Beside:
    """The texts' tokens; an empty one is none."""
    ids, mask = build_backbone(spec(bert)).text.tokens(given)  # type: ignore[attr-defined]
    mask[[at for at, text in enumerate(given) if not text]] = False
    return Beside(torch.from_numpy(mask), torch.from_numpy(ids))


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, 32, 32, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )


def test_layer_groups_are_text_image_fusion_and_every_parameter_is_in_one(bert: Path):
    backbone = build_backbone(spec(bert))
    names = [name for name, _ in backbone.layer_groups]
    assert names == [
        "text.stem",
        "text.net.encoder.layer.0",
        "text.net.encoder.layer.1",
        "image.stem",
        "fusion",
    ]
    inside = [name for _, group in backbone.layer_groups for name in group]
    assert sorted(inside) == sorted(name for name, _ in backbone.module.named_parameters())
    assert backbone.dimension == 48
    assert build_backbone(spec(bert, fusion="concat")).dimension == 32
    assert backbone.fingerprint == build_backbone(spec(bert)).fingerprint
    assert backbone.fingerprint != build_backbone(spec(bert, seed=1)).fingerprint


@pytest.mark.parametrize("fusion", ["concat", "attention"])
def test_both_sides_count_and_filling_does_not(bert: Path, fusion: str):
    module, images = tower(bert, fusion=fusion), pictures(2)
    beside = texts(bert, "pack of 3 cup", "plate")
    with torch.no_grad():
        found = module(images, beside)
        other_picture = module(images.flip(0), beside)
        other_text = module(images, texts(bert, "pack of 9 cup", "plate"))
        noise = beside.ids_BT.clone()  # type: ignore[union-attr]
        noise[~beside.mask_BT] = 3
        filled = module(images, replace(beside, ids_BT=noise))
        alone = module(images[1:], texts(bert, "plate"))
    assert not torch.allclose(found, other_picture, atol=1e-3)
    assert not torch.allclose(found[0], other_text[0], atol=1e-3)
    assert torch.allclose(found[1], other_text[1], atol=1e-5)
    assert torch.allclose(found, filled, atol=1e-5)
    assert torch.allclose(found[1], alone[0], atol=1e-5)


def test_attention_is_over_the_words_and_asked_by_the_picture(bert: Path):
    """With one word the weights could only be 1; here what is found depends on who asks."""
    module = tower(bert)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def weigh(part: Any, given: Any, options: Any, result: Any) -> None:
        with torch.no_grad():
            again = type(part).forward(part, *given, **options | {"need_weights": True})
        seen.append(again)

    module.fusion.attention.register_forward_hook(weigh, with_kwargs=True)
    beside = texts(bert, "pack of 3 cup", "plate")
    with torch.no_grad():
        module(pictures(2), beside)
    _, weights_BPT = seen[0]
    assert weights_BPT.shape == (2, 1 + 8 * 8, beside.mask_BT.shape[1])
    assert weights_BPT.sum(dim=2) == pytest.approx(torch.ones(2, 65), abs=1e-5)
    assert float(weights_BPT[1][:, ~beside.mask_BT[1]].max()) == 0
    assert float(weights_BPT[0].max()) < 0.9
    assert float(weights_BPT[0].std(dim=0).max()) > 1e-3


@pytest.mark.parametrize(
    "options", [{"fusion": "concat"}, {"fusion": "attention"}, {"fusion": "concat", "width": 0}]
)
def test_a_missing_side_is_a_state_of_its_own(bert: Path, options: dict[str, Any]):
    module, images = tower(bert, **options), pictures(2)
    beside, gone = texts(bert, "cup", "cup"), torch.tensor([True, False])
    grey = images.clone()
    grey[1] = 128
    with torch.no_grad():
        without = module(images, replace(beside, shown_B=gone))
        noise = module(
            pictures(2, seed=5) * (~gone)[:, None, None, None] + images * gone[:, None, None, None],
            replace(beside, shown_B=gone),
        )
        as_grey = module(grey, beside)
        whole = module(images, beside)
        silent = module(images, texts(bert, "cup", ""))
        empty_ids, empty_mask = build_backbone(spec(bert)).text.tokens(["cup", ""])  # type: ignore[attr-defined]
        as_empty = module(images, Beside(torch.from_numpy(empty_mask), torch.from_numpy(empty_ids)))
    assert torch.equal(without[1], noise[1]), "pixels of a picture that is not there are looked at"
    assert torch.allclose(without[0], whole[0], atol=1e-5)
    for other in (as_grey, whole):
        assert not torch.allclose(without[1], other[1], atol=1e-3)
    for other in (as_empty, whole):
        assert not torch.allclose(silent[1], other[1], atol=1e-3)
    module.train().zero_grad()
    module(images, replace(texts(bert, "cup", ""), shown_B=gone)).square().sum().backward()
    states = [
        name for name, _ in module.fusion.named_parameters() if name.rpartition(".")[2].startswith("no")
    ]
    reached = {
        name for name, p in module.fusion.named_parameters() if p.grad is not None and bool(p.grad.any())
    }
    assert {name for name in states if not name.startswith("norm")} <= reached


def test_pictures_that_are_not_there_move_no_statistics(bert: Path):
    image = {"name": "timm", "model": "test_efficientnet", "weights": False, "size": 32}
    one, two = (tower(bert, image=image).train() for _ in range(2))
    images, beside = pictures(4), texts(bert, "cup", "plate", "cup", "towel")
    shown = torch.tensor([True, False, True, False])
    one(images, replace(beside, shown_B=shown))
    two(images[shown], Beside(beside.mask_BT[shown], beside.ids_BT[shown]))  # type: ignore[index]
    for (name, first), second in zip(one.image.named_buffers(), two.image.buffers(), strict=True):
        assert torch.allclose(first.float(), second.float(), atol=1e-6), name
    nothing = one(images, replace(beside, shown_B=torch.zeros(4, dtype=torch.bool)))
    assert bool(nothing.isfinite().all())


def test_training_hides_either_side_now_and_then(bert: Path):
    module = tower(bert, hide=0.4, dropout=0.0, fusion="concat", width=4)
    images, beside = pictures(1).expand(200, -1, -1, -1), texts(bert, *["cup"] * 200)
    torch.manual_seed(0)
    set_trainable(module, [name for name, _ in module.fusion.named_parameters(prefix="fusion")])
    module.train()
    module.fusion.eval()
    with torch.no_grad():
        module.training = True
        found = module(images, beside)
    no_picture = (found[:, :4] == module.fusion.image.none).all(dim=1)
    no_text = (found[:, 4:] == module.fusion.text.none).all(dim=1)
    assert 0.3 < float(no_picture.float().mean()) < 0.5
    assert 0.3 < float(no_text.float().mean()) < 0.5
    assert not bool((no_picture & no_text).any())
    module.eval()
    assert not bool(
        (module(images[:50], texts(bert, *["cup"] * 50))[:, :4] == module.fusion.image.none).any()
    )


def test_phases_and_rates_know_the_towers(bert: Path):
    backbone = build_backbone(spec(bert, image={"name": "timm", "model": "test_vit", "weights": False}))
    names = {name for name, _ in backbone.module.named_parameters()}
    anatomy = Anatomy((*backbone.layer_groups, ("heads", ("heads.w",))))

    def of(train: Any) -> set[str]:
        return set(trained(anatomy, Phase(train=train))[0])

    fusion = {name for name in names if name.startswith("fusion.")} | {"heads.w"}
    assert of("heads") == of(("heads",)) == fusion
    assert of(("fusion",)) == fusion - {"heads.w"}
    assert of(("text",)) == {name for name in names if name.startswith("text.")}
    groups = dict(backbone.layer_groups)
    last = {*groups["text.net.encoder.layer.1"], *groups[[n for n in groups if n.startswith("image.")][-1]]}
    assert of(1) == fusion | last
    assert of(len([n for n in groups if n.startswith("image.")])) == names | {"heads.w"}
    with pytest.raises(UsageError, match="layer groups; 'all'"):
        of(99)
    parameters = [*backbone.module.named_parameters(), ("heads.w", torch.nn.Parameter(torch.zeros(2, 2)))]
    rates = Phase(lr=Rates(image=1e-4, text=2e-5, heads=1e-3))
    made = parameter_groups(parameters, anatomy.layer_groups, rates, Optimiser())
    assert {(g["name"], g["lr"]) for g in made} == {
        ("text", 2e-5),
        ("image", 1e-4),
        ("fusion", 1e-3),
        ("heads", 1e-3),
    }
    both = Phase(lr=Rates(backbone=1e-4, heads=1e-3))
    decayed = parameter_groups(parameters, anatomy.layer_groups, both, Optimiser(layer_decay=0.5))
    rate = {g["name"]: g["lr"] for g in decayed}
    assert rate["text.net.encoder.layer.1"] == pytest.approx(5e-5)
    assert rate["text.stem"] == pytest.approx(1.25e-5)
    assert rate["fusion"] == rate["heads"] == 1e-3
    assert Rates(backbone=1e-4, heads=1.0, text=2.0).of("text.stem") == 2.0
    with pytest.raises(ValueError, match="give backbone, or both image and text"):
        Rates(image=1e-4, heads=1e-3)
    with pytest.raises(UsageError, match="'stem' is of no tower"):
        Rates(image=1e-4, text=1e-4, heads=1e-3).of("stem")


def test_wrong_options_are_named(bert: Path):
    for options, message in (
        ({"fusion": "sum"}, "fusion is one of"),
        ({"heads": 3}, "no multiple of heads"),
        ({"width": 0}, "no multiple"),
        ({"hide": 0.6}, "hide in"),
        ({"text": "tfidf"}, "no network of tokens"),
        ({"image": "pair"}, "needs the option"),
        ({"image": 3}, "as a name or a table"),
    ):
        with pytest.raises(UsageError, match=message):
            build_backbone(spec(bert, **options))
    with pytest.raises(ValueError, match=r"Did you mean 'sentence'"):
        sw.FineTune(backbone=spec(bert, text="sentense"))
    with pytest.raises(ValueError, match="only the backbone 'pair' reads texts"):
        sw.FineTune(backbone=sw.backbone("toy"), choice_inputs=("image", "text"))
    with pytest.raises(ValueError, match="mmd and lora"):
        sw.FineTune(backbone=spec(bert), lora={"rank": 2})


@pytest.mark.clip
def test_clip_gives_both_normalised_vectors_side_by_side(tmp_path: Path):
    from shelfwise.models.torchvision_repair import import_torchvision

    import_torchvision()
    open_clip = pytest.importorskip("open_clip")
    text = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    (tmp_path / "tiny-pair.json").write_text(
        json.dumps({"embed_dim": 24, "vision_cfg": vision, "text_cfg": text})
    )
    open_clip.add_model_config(tmp_path)
    clip = {"model": "tiny-pair", "weights": False}
    given = sw.backbone(
        "pair", image={"name": "open_clip", **clip}, text={"name": "clip", **clip}, fusion="concat", width=0
    )
    built: Any = build_backbone(given)
    ids, mask = built.text.tokens(["a cup", "two plates"])
    with torch.no_grad():
        beside = Beside(torch.from_numpy(mask), torch.from_numpy(ids))
        found = built.module.eval()(pictures(2), beside)
        image = built.image.module(pictures(2))
    assert found.shape == (2, 48)
    assert found[:, :24] == pytest.approx(torch.nn.functional.normalize(image, dim=1), abs=1e-5)
    assert found[:, 24:].norm(dim=1) == pytest.approx(torch.ones(2), abs=1e-5)


# --- the recipe


@pytest.fixture(scope="module")
def priced(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """The toy catalogue with prices that only text and picture together say: kind times pack times quality."""
    folder = tmp_path_factory.mktemp("priced")
    frame = pl.read_csv(toy_catalog(folder, products=240), infer_schema=False)
    rng = np.random.default_rng(0)
    words, factors = ("cheap", "plain", "fine", "rare"), (1.0, 2.0, 4.0, 8.0)
    drawn = rng.integers(0, 4, frame.height)
    base = {"Cups": 10.0, "Plates": 30.0, "Towels": 90.0}
    stripes = np.where(frame["pattern"].to_numpy() == "striped", 1.6, 1.0)
    price = [
        base[kind] * factors[at] * stripe * np.exp(rng.normal(scale=0.05))
        for kind, at, stripe in zip(
            frame["category"].to_list(), drawn.tolist(), stripes.tolist(), strict=True
        )
    ]
    changed = frame.with_columns(
        pl.Series("title", [f"{words[at]} toy {at}" for at in drawn]),
        pl.Series("price", [f"{value:.2f}" for value in price]),
    )
    changed.write_csv(folder / "priced.csv")
    return Catalog.read(folder / "priced.csv")


def recipe(bert: Path, **options: Any) -> sw.FineTune:
    plain = {"dropout": 0.0, "number_heads": {"hidden": (32,), "dropout": 0.0}, "batch": 24, "phases": SHORT}
    return sw.FineTune(**{"backbone": spec(bert), **plain, **options})


def fit(given: sw.FineTune, catalog: Catalog, machine: Machine, seed: int = 0) -> TunedPredictor:
    found = given.fit(catalog, None, machine, seed)
    assert isinstance(found, TunedPredictor)
    return found


def parts(catalog: Catalog) -> tuple[Catalog, Catalog]:
    at = np.arange(len(catalog))
    return catalog.select(at[at % 3 > 0]), catalog.select(at[at % 3 == 0])


def smape(found: Predictions, catalog: Catalog) -> float:
    (amounts,) = found.amounts
    return metrics.smape(catalog.numbers("price")[amounts.rows], amounts.quantiles[:, MEDIAN])


def quantiles(found: Predictions) -> Any:
    return found.amounts[0].quantiles


LONG = ({"epochs": 14, "lr": {"image": 3e-3, "text": 1e-3, "heads": 1e-2}},)


@pytest.fixture(scope="module")
def long(priced: Catalog, bert: Path, machine: Machine) -> TunedPredictor:
    from shelfwise.models.towers import one_thread

    with one_thread():
        return fit(recipe(bert, phases=LONG, backbone=spec(bert, hide=0.05)), parts(priced)[0], machine)


def test_price_is_learnt_from_both_and_attributes_from_the_picture(
    long: TunedPredictor, priced: Catalog, bert: Path, machine: Machine
):
    train, test = parts(priced)
    found = long.predict(test, machine)
    assert smape(found, test) < 30
    rates = ({"epochs": 14, "lr": {"backbone": 3e-3, "heads": 1e-2}},)
    blind = fit(recipe(bert, backbone=sw.backbone("toy"), numbers="learn", phases=rates), train, machine)
    assert smape(blind.predict(test, machine), test) > smape(found, test) + 20
    assert sw.evaluate(found, test, metric="accuracy", bootstrap=0).score > 0.75
    said = [pair[:2] for pair in long.training[0]["pair_loss"]]
    assert ["Cups", "price"] in said
    assert ["Cups", "colour"] in said


def test_prices_are_answered_without_a_picture_a_text_a_category_or_all_of_them(
    long: TunedPredictor, priced: Catalog, machine: Machine, tmp_path: Path
):
    test = parts(priced)[1]
    whole = long.predict(test, machine)
    frame = test.frame
    pictures, titles, kinds = (frame[name].to_list() for name in ("image", "title", "category"))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    for row in range(8):
        pictures[row] = str(tmp_path / "broken.png") if row == 0 else None
    for row in (2, 3, 10, 11):
        titles[row] = None
    for row in (3, 5, 12):
        kinds[row] = None
    kinds[14] = "Spaceships"
    changed = frame.with_columns(
        pl.Series("image", pictures), pl.Series("title", titles), pl.Series("category", kinds)
    )
    catalog = Catalog.read(changed, images=Path(test.images[20]).parents[1], schema=test.schema)  # type: ignore[arg-type]
    found = long.predict(catalog, machine)
    (amounts,) = found.amounts
    assert amounts.rows.tolist() == list(range(len(catalog)))
    assert sorted(found.errors) == [*range(8), 14]
    assert sorted(found.guessed) == [12]
    prior = long.priors["price"]
    code = catalog.taxonomy.category_codes[str(kinds[2])]
    assert np.array_equal(amounts.quantiles[2], prior[code])
    assert np.array_equal(amounts.quantiles[3], prior[-1])
    others = [0, 1, 4, 5, 6, 7, 10, 11, 12, 14]
    assert not any(np.array_equal(amounts.quantiles[row], prior[at]) for row in others for at in range(4))
    same = [8, 9, 13, *range(15, len(catalog))]
    assert np.array_equal(amounts.quantiles[same], quantiles(whole)[same])
    only_text = [0, 1, 4, 6, 7]
    truth = catalog.numbers("price")[only_text]
    assert metrics.smape(truth, amounts.quantiles[only_text, MEDIAN]) < 60
    empty = long.predict(catalog.select([]), machine)
    assert len(empty.amounts[0].rows) == 0


def test_answers_depend_on_no_other_row_and_survive_saving(
    long: TunedPredictor, priced: Catalog, machine: Machine, tmp_path: Path
):
    test = parts(priced)[1]
    whole = quantiles(long.predict(test, machine))
    order = np.random.default_rng(1).permutation(len(test))
    assert np.array_equal(quantiles(long.predict(test.select(order), machine)), whole[order])
    assert np.array_equal(quantiles(long.predict(test.select([7]), replace(machine, jobs=3))), whole[[7]])
    assert (np.diff(whole, axis=1) >= 0).all()
    assert (whole > 0).all()
    long.save(tmp_path)
    loaded = long.recipe.load(tmp_path, priced.taxonomy)
    assert isinstance(loaded, TunedPredictor)
    assert np.array_equal(quantiles(loaded.predict(test, machine)), whole)
    longer = make_recipe(long.recipe.table() | {"number_heads": {"hidden": [8]}})
    with pytest.raises(BundleError, match="not fine-tuned networks"):
        longer.load(tmp_path, priced.taxonomy)


def test_another_tokenizer_is_refused(
    long: TunedPredictor, priced: Catalog, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from shelfwise.models.text_encoders import Tokenizer

    long.save(tmp_path)
    monkeypatch.setattr(Tokenizer, "fingerprint", lambda self: "another")
    with pytest.raises(BundleError, match="the tokenizer is another one"):
        long.recipe.load(tmp_path, priced.taxonomy)


def test_mirrored_answers_are_means(priced: Catalog, bert: Path, machine: Machine):
    train, test = parts(priced)[0].select(range(40)), parts(priced)[1].select(range(6))
    plain, flipped = (fit(recipe(bert, test_flips=on), train, machine) for on in (False, True))
    one, two = (quantiles(each.predict(test, machine)) for each in (plain, flipped))
    assert not np.allclose(one, two, rtol=1e-4)
    vectors, _ = flipped.nets[ALL].vectors(test, machine)
    (_, first), (_, second) = flipped.nets[ALL].views(vectors)
    assert first.shape == second.shape == (6, 48)


def test_an_interrupted_training_goes_on_to_the_same_weights(
    priced: Catalog, bert: Path, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Hidden sides, hidden categories, averages: all of it is where it was."""
    phases = ({"epochs": 1, "train": "heads", "lr": 1e-2}, {"epochs": 2, "train": 1, "lr": 1e-3})
    given = recipe(
        bert,
        phases=phases,
        save_minutes=0,
        validation=0.2,
        backbone=spec(bert, hide=0.2, dropout=0.1),
        optimiser={"ema": 0.9},
        choice_inputs=("image", "text"),
    )
    train = parts(priced)[0].select(range(60))
    whole = fit(given, train, replace(machine, runs=tmp_path / "whole"))
    there, write, count = replace(machine, runs=tmp_path / "broken"), checkpoint.save, iter(range(999))

    def breaking(*arguments: Any, **options: Any) -> Path:
        path = write(*arguments, **options)
        if next(count) in (1, 5):
            raise KeyboardInterrupt
        return path

    monkeypatch.setattr(training_run.checkpoint, "save", breaking)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fit(given, train, there)
    found = fit(given, train, there)
    one, two = (each.nets[ALL].network.state_dict() for each in (found, whole))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    scores = {tuple(pair[:2]): pair[2] for pair in found.training[-1]["scores"]}
    assert all(-2 <= scores[kind, "price"] < 0 for kind in ("Cups", "Plates", "Towels"))


def test_a_tower_that_is_not_trained_reads_every_text_once(
    priced: Catalog, bert: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
):
    train = parts(priced)[0].select(range(48))
    given = recipe(bert, phases=({"epochs": 3, "train": "heads", "lr": 1e-2},), numbers="learn")
    from shelfwise.models.text_towers import TextTower

    calls: list[int] = []
    forward = TextTower.forward

    def counting(self: Any, ids: Any, mask: Any) -> Any:
        calls.append(len(ids))
        return forward(self, ids, mask)

    monkeypatch.setattr(TextTower, "forward", counting)
    only = train.only("numbers")
    found = fit(given, only, machine)
    # Twice to build the towers, once a text, once a text again to tell categories apart.
    assert sum(calls) <= 2 * len(train) + 4
    monkeypatch.setattr(training_run, "read_texts", lambda tower, tokens, machine: tokens)
    other = fit(make_recipe(given.table() | {"number_weight": 1.0, "save_minutes": 4.0}), only, machine)
    assert sum(calls) <= 4 * len(train) + 8  # the finished run was found, and nothing was trained
    apart = fit(given, only.select(range(len(train) - 1)), machine)
    one, two = (quantiles(each.predict(only, machine)) for each in (found, apart))
    assert isinstance(other, TunedPredictor)
    assert np.isfinite(one).all()
    assert np.isfinite(two).all()


def test_products_without_a_picture_are_learnt_from_where_they_have_a_text(
    priced: Catalog, bert: Path, machine: Machine
):
    train, test = parts(priced)
    frame = train.frame
    gone = [None if row % 2 else cell for row, cell in enumerate(frame["image"].to_list())]
    root = Path(train.images[0]).parents[1]  # type: ignore[arg-type]
    half = Catalog.read(frame.with_columns(pl.Series("image", gone)), images=root, schema=train.schema)
    found = fit(recipe(bert, phases=LONG), half, machine)
    assert not found.learnt
    assert smape(found.predict(test, machine), test) < 60
    none = Catalog.read(
        frame.with_columns(pl.lit(None, pl.String).alias("image")), images=root, schema=train.schema
    )
    blind = fit(recipe(bert, phases=LONG), none, machine)
    answered = blind.predict(none, machine)
    assert len(answered.errors) == len(none)
    assert smape(answered, none) < 60
    silent = none.frame.with_columns(pl.lit(None, pl.String).alias("title"))
    with pytest.raises(CatalogError, match="readable picture"):
        fit(recipe(bert), Catalog.read(silent, images=root, schema=train.schema), machine)


def test_numbers_are_left_alone_where_only_pictures_are_seen(toy: Toy, machine: Machine):
    found = sw.FineTune(backbone=sw.backbone("toy"), phases=SHORT)
    assert not found.learns_numbers(toy.catalog.taxonomy)
    assert found.learns_numbers(toy.catalog.only("numbers").taxonomy)
    assert not fit(found, toy.catalog, machine).predict(toy.catalog, machine).amounts
    alone = fit(found, toy.catalog.only("numbers"), machine)
    assert len(alone.predict(toy.catalog.only("numbers"), machine).amounts[0].rows) == len(toy.catalog)


CHANGES: dict[str, dict[str, Any]] = {
    "loss": {"number_loss": {"name": "huber", "delta": 0.3}},
    "weight": {"number_weight": 9.0},
    "heads": {"number_heads": {"hidden": (8, 8)}},
    "inputs": {"choice_inputs": ("image", "text")},
    "numbers": {"numbers": "leave"},
    "mixing": {"mixing": {"mixup": 0.5, "probability": 1.0}},
    "precision": {"precision": "bf16"},
    "per_category": {"per_category": True},
}


def test_every_option_changes_what_is_learnt(priced: Catalog, bert: Path, machine: Machine):
    train = parts(priced)[0].select(range(48))
    plain = fit(recipe(bert), train, machine)
    for name, options in CHANGES.items():
        given = recipe(bert, **options)
        assert make_recipe(given.table()) == given, name
        found = fit(given, train, machine)
        said = found.predict(train, machine)
        if name == "numbers":
            assert not said.amounts
            continue
        one, two = (each.nets.get(ALL, next(iter(each.nets.values()))) for each in (plain, found))
        states = [each.network.state_dict() for each in (one, two)]
        assert states[0].keys() != states[1].keys() or any(
            states[0][key].shape != states[1][key].shape or not torch.equal(states[0][key], states[1][key])
            for key in states[0]
        ), name
        assert len(said.amounts[0].rows) == len(train)
    text = to_toml({"recipe": recipe(bert, phases=LONG).table()})
    assert make_recipe(tomllib.loads(text)["recipe"]) == recipe(bert, phases=LONG)
    assert "lr = { image = 0.003, text = 0.001, heads = 0.01 }" in text


def test_tokens_of_a_batch_are_as_long_as_its_longest_text():
    ids = np.arange(24, dtype=np.int32).reshape(3, 8)
    mask = np.arange(8)[None, :] < np.array([[3], [5], [0]])
    short = Tokens(ids, mask).take(np.array([0, 2]))
    assert short.ids_BT is not None
    assert short.ids_BT.shape == (2, 3)
    assert short.mask_BT.sum(dim=1).tolist() == [3, 0]
    assert Tokens(ids, mask).take(np.array([2])).mask_BT.shape == (1, 1)
    fixed = Tokens(ids, mask, fixed=True).take(np.array([0])).ids_BT
    assert fixed is not None
    assert fixed.shape == (1, 8)


@pytest.mark.data
@pytest.mark.slow
def test_real_networks_learn_real_prices(shared_data: Path, machine: Machine):
    """EfficientNet-Lite0 and MiniLM as they are installed, a few hundred products: better than the median price."""
    catalog = Catalog.read(shared_data / "fashion" / "catalog.csv")
    priced = catalog.select(np.flatnonzero(np.isfinite(catalog.numbers("price")))).only("numbers")
    some = priced.select(np.arange(0, len(priced), 12))
    groups = sw.near_duplicates(some)
    train, test = some.split(0.3, groups=groups, seed=0)
    backbone = sw.backbone(
        "pair",
        image={"name": "lite0", "size": 96},
        text={"name": "sentence", "max_tokens": 48},
        width=64,
        heads=2,
    )
    phases = ({"epochs": 12, "train": "heads", "lr": 2e-3},)
    found = fit(sw.FineTune(backbone=backbone, phases=phases, dropout=0.1), train, machine).predict(
        test, machine
    )
    median = np.full(len(test), np.median(train.numbers("price")))
    assert smape(found, test) < metrics.smape(test.numbers("price"), median) - 5


def test_look_alikes_are_found_by_the_image_tower_alone(bert: Path):
    assert image_of(spec(bert)) == sw.backbone("toy")
    assert image_of(sw.backbone("lite0", size=64)) == sw.backbone("lite0", size=64)
