"""Backbones of transformers: from local directories, the vision tower alone, the image processor followed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from shelfwise.errors import UsageError
from shelfwise.models.backbones import Backbone, build_backbone, spec_key
from shelfwise.models.torchvision_repair import import_torchvision
from shelfwise.models.transformers_tower import _preprocess
from shelfwise.registry import REGISTRIES, Spec

import_torchvision()
transformers = pytest.importorskip("transformers")

VISION: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}
CONFIGS: dict[str, Any] = {
    "clip": lambda: transformers.CLIPVisionConfig(**VISION),
    "siglip": lambda: transformers.SiglipVisionConfig(**VISION),
    "dinov2": lambda: transformers.Dinov2Config(**VISION),
    "vit": lambda: transformers.ViTConfig(**VISION),
    "convnext": lambda: transformers.ConvNextConfig(
        hidden_sizes=[4, 8, 12, 16], depths=[1, 1, 1, 1], image_size=32
    ),
    "swin": lambda: transformers.SwinConfig(
        embed_dim=8, depths=[1, 1], num_heads=[1, 1], image_size=32, window_size=4
    ),
}


def spec(model: object, **options: object) -> Spec:
    return REGISTRIES["backbone"].spec("transformers", model=str(model), **options)


def built(model: object, **options: object) -> Backbone:
    return build_backbone(spec(model, **options))


def saved(kind: str, directory: Path) -> Any:
    """A random model of a kind, saved as the hub lays it out."""
    torch.manual_seed(7)
    model = transformers.AutoModel.from_config(CONFIGS[kind]()).eval()
    model.save_pretrained(directory)
    return model


def pictures(side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (2, side, side, 3), generator=generator, dtype=torch.uint8)


def normalised(images: torch.Tensor, backbone: Backbone) -> torch.Tensor:
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in (backbone.preprocess.mean, backbone.preprocess.std)
    )
    return (images.permute(0, 3, 1, 2).float() / 255 - mean) / std


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_saved_tower_gives_the_models_features_and_map(kind: str, tmp_path: Path):
    model = saved(kind, tmp_path)
    backbone = built(tmp_path)
    images = pictures(32)
    with torch.inference_mode():
        expected = model(pixel_values=normalised(images, backbone))
        torch.testing.assert_close(backbone.module(images), expected.pooler_output, rtol=1e-4, atol=1e-5)
        maps = backbone.module.feature_map(images)
        last = expected.last_hidden_state
        if last.ndim == 3:
            side = maps.shape[2]
            last = last[:, -side * side :].transpose(1, 2).reshape(2, -1, side, side)
        torch.testing.assert_close(maps, last, rtol=1e-4, atol=1e-5)
    assert backbone.family == ("conv" if kind == "convnext" else "transformer")
    assert backbone.channels == maps.shape[1]
    groups = backbone.layer_groups
    assert sorted(n for _, names in groups for n in names) == sorted(
        n for n, _ in backbone.module.named_parameters()
    )
    assert len(groups) >= 3
    assert not any(
        "norm" in name.rsplit(".", 2)[-2] and "layer" in name for name in groups[0][1] if kind == "dinov2"
    )


def test_other_sizes_and_pools(tmp_path: Path):
    model = saved("clip", tmp_path)
    larger = built(tmp_path, size=48, pool="mean")
    assert larger.preprocess.size == (48, 48)
    images = pictures(48)
    with torch.inference_mode():
        x = normalised(images, larger)
        tokens = model(pixel_values=x, interpolate_pos_encoding=True).last_hidden_state
        torch.testing.assert_close(larger.module(images), tokens[:, 1:].mean(1), rtol=1e-4, atol=1e-5)
        first = built(tmp_path, size=48, pool="class").module(images)
        torch.testing.assert_close(first, tokens[:, 0], rtol=1e-4, atol=1e-5)
        assert larger.module.feature_map(images).shape == (2, 16, 6, 6)
    with pytest.raises(UsageError, match="pool is 'mean' or 'class'"):
        built(tmp_path, pool="max")


def test_of_a_model_of_pictures_and_text_only_the_vision_tower_is_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    text = {key: VISION[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    text |= {
        "intermediate_size": 32,
        "vocab_size": 50,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    torch.manual_seed(7)
    whole = transformers.CLIPModel(transformers.CLIPConfig(vision_config=VISION, text_config=text)).eval()
    whole.save_pretrained(tmp_path)
    capfd.readouterr()
    backbone = built(tmp_path)
    said = "".join(capfd.readouterr())
    assert "UNEXPECTED" not in said
    assert "Loading" not in said
    assert not [name for name in backbone.module.state_dict() if "text" in name]
    images = pictures(32)
    with torch.inference_mode():
        expected = whole.vision_model(normalised(images, backbone)).pooler_output
        torch.testing.assert_close(backbone.module(images), expected, rtol=1e-4, atol=1e-5)


def test_random_weights_follow_the_seed_and_fingerprints_do_not_follow_the_path(tmp_path: Path):
    saved("dinov2", tmp_path / "one")
    one = built(tmp_path / "one")
    random = [built(tmp_path / "one", weights=False, seed=seed).fingerprint for seed in (0, 0, 1)]
    assert random[0] == random[1]
    assert len({*random, one.fingerprint}) == 3
    (tmp_path / "one").rename(tmp_path / "two")
    assert built(tmp_path / "two").fingerprint == one.fingerprint
    before = spec_key(spec(tmp_path / "two"))
    (tmp_path / "two" / "preprocessor_config.json").write_text("{}")
    assert spec_key(spec(tmp_path / "two")) != before


@pytest.mark.parametrize(
    ("look", "size", "fit", "kept"),
    [
        ({}, 32, "stretch", 1.0),
        ({"size": {"height": 48, "width": 48}}, 48, "stretch", 1.0),
        ({"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": 32}, 32, "crop", 0.8),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, 224, "crop", 0.875),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, 384, "stretch", 1.0),
        ({"size": 64, "do_center_crop": False, "crop_size": {"height": 32, "width": 32}}, 64, "stretch", 1.0),
    ],
)
def test_the_image_processors_settings_become_a_preprocess(
    look: dict[str, Any], size: int, fit: str, kept: float
):
    stated = look | {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 0.5], "resample": 3}
    found = _preprocess(stated, (32, 32), None, None)
    assert (found.size, found.fit, found.crop_fraction) == ((size, size), fit, pytest.approx(kept))
    assert (found.mean, found.std, found.resample) == ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5), "bicubic")
    changed = _preprocess(stated, (32, 32), 20, "pad")
    assert (changed.size, changed.fit, changed.crop_fraction) == ((20, 20), "pad", 1.0)


def test_the_preprocess_is_read_from_the_directory(tmp_path: Path):
    saved("clip", tmp_path)
    look = {"image_processor_type": "CLIPImageProcessor", "image_mean": [0.1, 0.2, 0.3], "resample": 3}
    look |= {"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(look))
    backbone = built(tmp_path)
    assert (backbone.preprocess.fit, backbone.preprocess.crop_fraction) == ("crop", 0.8)
    assert backbone.preprocess.mean == (0.1, 0.2, 0.3)
    assert backbone.train_preprocess.crop_fraction == 1.0
    with pytest.raises(UsageError, match="filter 5"):
        _preprocess({"resample": 5}, (32, 32), None, None)


def test_weights_that_are_not_all_there_are_an_error_not_random(tmp_path: Path):
    from safetensors.torch import load_file, save_file

    saved("vit", tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    pooler = [name for name in tensors if name.startswith("pooler.")]
    save_file({n: v for n, v in tensors.items() if n not in pooler}, file, {"format": "pt"})
    with pytest.raises(UsageError, match=r"'pooler.*pool = 'mean' or 'class'"):
        built(tmp_path)
    assert built(tmp_path, pool="mean").dimension == 16
    first = next(name for name in tensors if name not in pooler)
    save_file({n: v for n, v in tensors.items() if n != first}, file, {"format": "pt"})
    with pytest.raises(UsageError, match="do not fill its vision tower"):
        built(tmp_path)


def test_activations_are_checkpointed_where_the_model_offers_it(tmp_path: Path):
    from shelfwise.models.network import build_network, checkpoint_activations
    from shelfwise.taxonomy import Choice, Taxonomy

    taxonomy, heads = Taxonomy({"k": (Choice("a", ("p", "q")),)}), REGISTRIES["heads"].spec("linear")
    for kind in ("siglip", "convnext"):
        CONFIGS[kind]().save_pretrained(tmp_path)
        network = build_network(built(tmp_path, weights=False), heads, taxonomy, counts=None, seed=0).train()
        if kind == "convnext":
            with pytest.raises(UsageError, match="cannot checkpoint activations"):
                checkpoint_activations(network)
            continue
        found = []
        for enabled in (False, True):
            checkpoint_activations(network, enabled)
            network.zero_grad()
            network(pictures(32), torch.zeros(2, dtype=torch.long))[0][2].square().sum().backward()
            found.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
        for first, second in zip(*found, strict=True):
            torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


def test_mistakes_are_named(tmp_path: Path):
    with pytest.raises(UsageError, match=r"has no config\.json"):
        built(tmp_path)
    with pytest.raises(UsageError, match="there is no directory"):
        built(tmp_path / "none")
    text = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    transformers.BertConfig(**text, intermediate_size=8).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="BertModel is no tower that takes pictures"):
        built(tmp_path, weights=False)


def test_an_unreachable_hub_names_the_local_directory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        UsageError, match=r"cannot fetch the weights shelfwise/not-there: .* give a local directory"
    ):
        built("shelfwise/not-there")
