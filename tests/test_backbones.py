"""Backbones: real loading code, features equal to the original models', repair of torchvision."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shelfwise.errors import UsageError
from shelfwise.models.backbones import LITE, Preprocess, build_backbone, packaged_file, spec_key
from shelfwise.models.torchvision_repair import import_torchvision
from shelfwise.registry import REGISTRIES, Spec

BACKBONES = REGISTRIES["backbone"]

import_torchvision()
import timm  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from shelfwise.models.towers import last_map, token_grid  # noqa: E402


def spec(name: str, **options: object) -> Spec:
    return BACKBONES.spec(name, **options)


def pictures(count: int, side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, side, side, 3), generator=generator, dtype=torch.uint8)


def normalised(images: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """The textbook order: to [0, 1], minus mean, over std."""
    x = images.permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | environment,
    )


def test_torchvision_is_repaired_only_where_its_import_fails_and_timm_follows():
    done = python(
        "import sys, torch\n"
        "from shelfwise.models import torchvision_repair as repair\n"
        "first = repair.import_torchvision(); fragment = repair._fragment\n"
        "assert repair.import_torchvision() == first and repair._fragment is fragment\n"
        "import timm, torchvision.transforms.v2\n"
        "assert first == (fragment is not None)\n"
        "assert first or torch.ops.torchvision.nms is not None\n"
        "print(timm.create_model('test_efficientnet', num_classes=0).num_features)\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "256"


def test_a_healthy_torchvision_is_left_alone(tmp_path: Path):
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("healthy = True\n")
    done = python(
        "from shelfwise.models import torchvision_repair as repair\n"
        "assert repair.import_torchvision() is False and repair.import_torchvision() is False\n"
        "import sys, torchvision\n"
        "assert torchvision.healthy and repair._fragment is None and 'torch' not in sys.modules\n",
        PYTHONPATH=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr


def test_another_failure_of_torchvision_is_not_hidden(tmp_path: Path):
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('broken disk')\n")
    done = python(
        "from shelfwise.models import torchvision_repair as repair\nrepair.import_torchvision()\n",
        PYTHONPATH=str(tmp_path),
    )
    assert "broken disk" in done.stderr


def test_the_module_and_the_keys_need_no_torch():
    done = python(
        "import sys\n"
        "from shelfwise.registry import REGISTRIES\n"
        "from shelfwise.models.backbones import spec_key\n"
        "import shelfwise.models.engines, shelfwise.models.embed\n"
        "print(spec_key(REGISTRIES['backbone'].spec('lite0')))\n"
        "assert not {'torch', 'timm', 'openvino'} & set(sys.modules)\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["lite0", "lite1", "lite2"])
def test_packaged_weights_give_the_original_models_features(name: str):
    backbone = build_backbone(spec(name, levels="last"))
    original = timm.create_model(f"tf_efficientnet_{name}", pretrained=False)
    tensors = torch.load(packaged_file(name), weights_only=True)
    original.load_state_dict(dict(zip(original.state_dict(), tensors.values(), strict=True)))
    original.eval()
    side = LITE[name][2]
    assert backbone.preprocess.size == (side, side)
    assert backbone.dimension == 1280
    images = pictures(2, side)
    with torch.inference_mode():
        x = normalised(images, (0.5,) * 3, (0.5,) * 3)
        expected = original.forward_head(original.forward_features(x), pre_logits=True)
        found = backbone.module(images)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_levels_flip_size_and_fit_do_what_they_say():
    plain = build_backbone(spec("lite0", size=64, levels="last"))
    every = build_backbone(spec("lite0", size=64, fit="pad"))
    mirrored = build_backbone(spec("lite0", size=64, levels="last", flip=True))
    assert every.preprocess.fit == "pad"
    assert every.dimension == 1280 + 16 + 24 + 40 + 80 + 112 + 192 + 320
    images = pictures(2, 64)
    with torch.inference_mode():
        last = plain.module(images)
        torch.testing.assert_close(every.module(images)[:, -1280:], last)
        both = (last + plain.module(images.flip(2))) / 2
        torch.testing.assert_close(mirrored.module(images), both, rtol=1e-4, atol=1e-5)
    assert len({plain.fingerprint, every.fingerprint, mirrored.fingerprint}) == 3
    with pytest.raises(UsageError, match="levels"):
        build_backbone(spec("lite0", levels="some"))
    with pytest.raises(UsageError, match="fit is one of"):
        build_backbone(spec("lite0", fit="squash"))


@pytest.mark.parametrize("model", ["test_vit", "test_efficientnet", "test_convnext"])
@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_timm_weights_saved_to_disk_give_the_original_features(model: str, ending: str, tmp_path: Path):
    torch.manual_seed(11)
    original = timm.create_model(model, pretrained=False).eval()
    file = tmp_path / f"weights{ending}"
    if ending == ".pth":
        torch.save({"state_dict": {f"module.{k}": v for k, v in original.state_dict().items()}}, file)
    else:
        save_file(original.state_dict(), file)
    backbone = build_backbone(spec("timm", model=model, weights=str(file)))
    data = timm.data.resolve_model_data_config(original)
    shape = backbone.preprocess
    assert (*shape.size, shape.mean, shape.std) == (*data["input_size"][1:], data["mean"], data["std"])
    assert (shape.fit, shape.resample, shape.crop_fraction) == (
        "crop",
        data["interpolation"],
        data["crop_pct"],
    )
    images = pictures(2, shape.size[0])
    with torch.inference_mode():
        x = normalised(images, shape.mean, shape.std)
        expected = original.forward_head(original.forward_features(x), pre_logits=True)
        torch.testing.assert_close(backbone.module(images), expected, rtol=1e-4, atol=1e-4)
    assert backbone.family == ("transformer" if model == "test_vit" else "conv")
    moved = file.rename(tmp_path / f"moved{ending}")
    again = build_backbone(spec("timm", model=model, weights=str(moved)))
    assert again.fingerprint == backbone.fingerprint


@pytest.mark.parametrize("name", ["lite0", "test_vit", "test_convnext"])
def test_layer_groups_hold_every_parameter_once_from_stem_to_last(name: str):
    wanted = spec(name) if name == "lite0" else spec("timm", model=name, weights=False)
    backbone = build_backbone(wanted)
    grouped = [parameter for _, names in backbone.layer_groups for parameter in names]
    assert sorted(grouped) == sorted(parameter for parameter, _ in backbone.module.named_parameters())
    titles = [title for title, _ in backbone.layer_groups]
    assert titles[0] == "stem"
    assert len(set(titles)) == len(titles) >= 6
    first = next(name for name, _ in backbone.module.named_parameters())
    assert first in backbone.layer_groups[0][1]


def test_fingerprints_are_stable_and_see_weights_and_size(tmp_path: Path):
    one = build_backbone(spec("timm", model="test_efficientnet", weights=False))
    same = build_backbone(spec("timm", model="test_efficientnet", weights=False, seed=0))
    other = build_backbone(spec("timm", model="test_efficientnet", weights=False, seed=1))
    larger = build_backbone(spec("timm", model="test_efficientnet", weights=False, size=192))
    assert one.fingerprint == same.fingerprint
    assert len({one.fingerprint, other.fingerprint, larger.fingerprint}) == 3
    assert larger.preprocess.size == (192, 192)


def test_a_transformer_takes_another_size():
    backbone = build_backbone(spec("timm", model="test_vit", weights=False, size=96))
    with torch.inference_mode():
        assert backbone.module(pictures(1, 96)).shape == (1, 64)


def test_spec_key_follows_the_content_of_the_weights_file(tmp_path: Path):
    file = tmp_path / "a.safetensors"
    save_file({"x": torch.zeros(3)}, file)
    before = spec_key(spec("timm", model="test_vit", weights=str(file)))
    assert before == spec_key(spec("timm", model="test_vit", weights=str(file)))
    save_file({"x": torch.ones(3)}, file)
    assert spec_key(spec("timm", model="test_vit", weights=str(file))) != before


def test_weights_that_do_not_fit_are_named(tmp_path: Path):
    file = tmp_path / "other.safetensors"
    save_file({"conv_stem.weight": torch.zeros(3)}, file)
    with pytest.raises(
        UsageError, match=r"other\.safetensors do not fit.*missing: 'bn1\.weight'.*another shape"
    ):
        build_backbone(spec("timm", model="test_efficientnet", weights=str(file)))
    page = tmp_path / "page.pth"
    page.write_text("<html>")
    with pytest.raises(UsageError, match=r"page\.pth is no file of tensors"):
        build_backbone(spec("timm", model="test_efficientnet", weights=str(page)))
    with pytest.raises(UsageError, match="there is no weights file"):
        build_backbone(spec("timm", model="test_efficientnet", weights=str(tmp_path / "gone.pth")))
    with pytest.raises(UsageError, match="Did you mean 'test_vit"):
        build_backbone(spec("timm", model="test_vitt", weights=False))


class Code:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_weights_file_runs_no_code(tmp_path: Path):
    file = tmp_path / "code.pth"
    torch.save({"x": Code(tmp_path / "ran")}, file)
    with pytest.raises(UsageError, match="no file of tensors"):
        build_backbone(spec("timm", model="test_vit", weights=str(file)))
    assert not (tmp_path / "ran").exists()


def test_an_unreachable_hub_names_the_local_file(tmp_path: Path):
    done = python(
        "from shelfwise.errors import UsageError\n"
        "from shelfwise.registry import REGISTRIES\n"
        "from shelfwise.models.backbones import build_backbone\n"
        "for weights in (True, 'r160_in1k', 'nonsense'):\n"
        "    try:\n"
        "        build_backbone(REGISTRIES['backbone'].spec('timm', model='test_vit', weights=weights))\n"
        "    except UsageError as error:\n"
        "        print(error)\n",
        HF_HUB_OFFLINE="1",
        HF_HOME=str(tmp_path),
    )
    lines = done.stdout.strip().splitlines()
    assert len(lines) == 3, done.stderr
    assert all("cannot fetch the weights test_vit" in line and "local file" in line for line in lines)


def test_preprocess_survives_json():
    preprocess = Preprocess((224, 200), "crop", "bilinear", 0.9, (0.1, 0.2, 0.3), (1.0, 1.0, 0.5))
    assert Preprocess.from_table(json.loads(json.dumps(preprocess.table()))) == preprocess


def tiny_clip(directory: Path, **vision: object) -> str:
    open_clip = pytest.importorskip("open_clip")
    name = f"tiny-{len(vision)}"
    text = {"context_length": 8, "vocab_size": 32, "width": 32, "heads": 2, "layers": 1}
    tower = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8} | vision
    file = directory / f"{name}.json"
    file.write_text(json.dumps({"embed_dim": 24, "vision_cfg": tower, "text_cfg": text}))
    open_clip.add_model_config(file)
    return name


@pytest.mark.clip
@pytest.mark.parametrize("kind", ["native", "timm"])
@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
def test_open_clip_image_tower_gives_the_whole_models_features(kind: str, ending: str, tmp_path: Path):
    open_clip = pytest.importorskip("open_clip")
    timm_tower = {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 160}
    name = tiny_clip(tmp_path, **(timm_tower if kind == "timm" else {}))
    torch.manual_seed(5)
    whole = open_clip.create_model(name).eval()
    file = tmp_path / f"clip{ending}"
    state = {key: value.contiguous() for key, value in whole.state_dict().items()}
    if ending == ".pt":
        torch.save({"state_dict": state}, file)
    else:
        save_file(state, file)
    backbone = build_backbone(spec("open_clip", model=name, weights=str(file)))
    assert backbone.dimension == 24
    assert backbone.family == "transformer"
    shape = backbone.preprocess
    assert (shape.mean, shape.fit, shape.resample) == (whole.visual.preprocess_cfg["mean"], "crop", "bicubic")
    images = pictures(2, shape.size[0])
    with torch.inference_mode():
        expected = whole.encode_image(normalised(images, shape.mean, shape.std))
        torch.testing.assert_close(backbone.module(images), expected, rtol=1e-4, atol=1e-5)
    kept = {key.removeprefix("net.") for key in backbone.module.state_dict()}
    assert kept == set(whole.visual.state_dict())
    groups = backbone.layer_groups
    assert groups[0][0] == "stem"
    assert sum(len(names) for _, names in groups) == len(list(backbone.module.parameters()))


@pytest.mark.clip
def test_open_clip_transforms_and_mistakes(tmp_path: Path):
    pytest.importorskip("open_clip")
    from shelfwise.models.clip_tower import describe

    siglip = describe("ViT-B-16-SigLIP", "webli", None)
    assert (siglip.transform["resize_mode"], siglip.transform["mean"]) == ("squash", (0.5, 0.5, 0.5))
    assert describe("ViT-H-14-quickgelu", "dfn5b", None).size == (224, 224)
    with pytest.raises(UsageError, match="use model = 'ViT-B-32-quickgelu'"):
        describe("ViT-B-32", "openai", None)
    with pytest.raises(UsageError, match="Did you mean 'laion2b_s34b_b79k'"):
        describe("ViT-B-32", "laion2b_s34b_b79", None)
    with pytest.raises(UsageError, match="Did you mean 'ViT-B-32'"):
        describe("ViT-B-33", None, None)
    name = tiny_clip(tmp_path)
    with pytest.raises(UsageError, match="no default weights"):
        build_backbone(spec("open_clip", model=name, weights=True))
    file = tmp_path / "none.safetensors"
    save_file({"text.x": torch.zeros(1)}, file)
    with pytest.raises(UsageError, match="begin with 'visual"):
        build_backbone(spec("open_clip", model=name, weights=str(file)))


def test_a_directory_of_timm_weights_is_followed(tmp_path: Path):
    torch.manual_seed(11)
    original = timm.create_model("test_convnext", pretrained=False).eval()
    look = {"input_size": [3, 96, 96], "mean": [0.1, 0.2, 0.3], "crop_pct": 0.8, "interpolation": "bilinear"}
    config = {"architecture": "test_convnext", "pretrained_cfg": look | {"tag": "of_ours"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(original.state_dict(), tmp_path / "model.safetensors")
    backbone = build_backbone(spec("timm", model="test_convnext", weights=str(tmp_path)))
    shape = backbone.preprocess
    assert (shape.size, shape.mean, shape.crop_fraction) == ((96, 96), (0.1, 0.2, 0.3), 0.8)
    assert (shape.resample, backbone.train_preprocess.crop_fraction) == ("bilinear", 1.0)
    images = pictures(2, 96)
    with torch.inference_mode():
        x = normalised(images, shape.mean, shape.std)
        expected = original.forward_head(original.forward_features(x), pre_logits=True)
        torch.testing.assert_close(backbone.module(images), expected, rtol=1e-4, atol=1e-4)
    key = spec_key(spec("timm", model="test_convnext", weights=str(tmp_path)))
    (tmp_path / "config.json").write_text(json.dumps(config | {"architecture": "test_vit"}))
    assert spec_key(spec("timm", model="test_convnext", weights=str(tmp_path))) != key
    with pytest.raises(UsageError, match=r"holds the weights of model = 'test_vit', not of 'test_convnext'"):
        build_backbone(spec("timm", model="test_convnext", weights=str(tmp_path)))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UsageError, match=r"config\.json is no JSON"):
        build_backbone(spec("timm", model="test_convnext", weights=str(tmp_path)))
    (tmp_path / "model.safetensors").rename(tmp_path / "one.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "two.safetensors")
    with pytest.raises(UsageError, match=r"several files of weights: 'one\.safetensors', 'two\.safetensors'"):
        build_backbone(spec("timm", model="test_convnext", weights=str(tmp_path)))


#: Name, sides and channels of the map at these sides: the networks that examples and documentation name.
NAMED = {
    "convnext_base.fb_in22k_ft_in1k_384": (384, 1024, 12),
    "resnet50": (224, 2048, 7),
    "seresnext50_32x4d": (224, 2048, 7),
    "swin_base_patch4_window7_224": (224, 1024, 7),
    "tf_efficientnet_b4": (380, 1792, 12),
    "vit_base_patch14_dinov2": (518, 768, 37),
    "vit_base_patch16_dinov3": (256, 768, 16),
    "vit_base_patch16_siglip_224.v2_webli": (224, 768, 14),
}


@pytest.mark.parametrize("name", NAMED)
def test_named_networks_have_their_own_size_and_a_map(name: str):
    side, channels, cells = NAMED[name]
    with torch.device("meta"):
        net = timm.create_model(name, num_classes=0)
        assert timm.data.resolve_model_data_config(net)["input_size"] == (3, side, side)
        assert last_map(net, torch.zeros(1, 3, side, side)).shape == (1, channels, cells, cells)


def test_a_tag_in_the_name_brings_its_size_to_random_and_local_weights():
    plain = build_backbone(spec("timm", model="test_vit", weights=False))
    tagged = build_backbone(spec("timm", model="test_vit.r160_in1k", weights=False))
    assert plain.preprocess == tagged.preprocess
    with pytest.raises(UsageError, match=r"no weights 'r161_in1k' for 'test_vit'\. Did you mean 'r160_in1k'"):
        build_backbone(spec("timm", model="test_vit.r161_in1k", weights=False))
    with pytest.raises(UsageError, match="names a tag already"):
        build_backbone(spec("timm", model="test_vit.r160_in1k", weights="r160_in1k"))


@pytest.mark.parametrize("model", ["test_vit", "test_efficientnet", "test_convnext", "test_resnet"])
def test_the_map_is_what_the_vector_is_pooled_from(model: str):
    backbone = build_backbone(spec("timm", model=model, weights=False, pool="avg", size=96))
    net = backbone.module.net
    images = pictures(2, 96)
    with torch.inference_mode():
        maps = backbone.module.feature_map(images)
        assert maps.shape[:2] == (2, backbone.channels)
        if model == "test_vit":
            pooled = net.fc_norm(maps.mean((2, 3)))
        else:
            pooled = net.forward_head(maps, pre_logits=True)
        torch.testing.assert_close(backbone.module(images), pooled, rtol=1e-4, atol=1e-4)


def test_a_transformers_map_is_its_patches_in_their_places():
    backbone = build_backbone(spec("timm", model="test_vit", weights=False, size=96))
    images = pictures(1, 96)
    net = backbone.module.net
    with torch.inference_mode():
        x = normalised(images, backbone.preprocess.mean, backbone.preprocess.std)
        tokens = net.forward_features(x)[:, net.num_prefix_tokens :]
        maps = backbone.module.feature_map(images)
        assert maps.shape == (1, 64, 6, 6)
        torch.testing.assert_close(maps[0, :, 1, 2], tokens[0, 8], rtol=1e-4, atol=1e-5)
        mirrored = build_backbone(spec("timm", model="test_vit", weights=False, size=96, flip=True))
        both = (maps + backbone.module.feature_map(images.flip(2)).flip(3)) / 2
        torch.testing.assert_close(mirrored.module.feature_map(images), both, rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="7 patch tokens do not fill a grid"):
        token_grid(torch.zeros(1, 8, 3), 1, 1.0)
    assert token_grid(torch.zeros(1, 9, 3), 1, 2.0).shape == (1, 3, 4, 2)


@pytest.mark.clip
@pytest.mark.parametrize("coca", [False, True])
def test_open_clip_towers_have_maps_and_captioners_are_read(coca: bool, tmp_path: Path):
    open_clip = pytest.importorskip("open_clip")
    tower = {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True} if coca else {}
    name = tiny_clip(tmp_path, **tower)
    if coca:
        settings = json.loads((tmp_path / f"{name}.json").read_text())
        settings["text_cfg"] |= {"embed_cls": True, "output_tokens": True}
        settings["multimodal_cfg"] = settings["text_cfg"] | {"attn_pooler_heads": 2}
        settings["custom_text"] = True
        name = "tiny-coca"
        (tmp_path / f"{name}.json").write_text(json.dumps(settings))
        open_clip.add_model_config(tmp_path / f"{name}.json")
    torch.manual_seed(5)
    whole = open_clip.create_model(name).eval()
    weights = tmp_path / "weights"
    weights.mkdir()
    save_file(
        {k: v.contiguous() for k, v in whole.state_dict().items()}, weights / "open_clip_model.safetensors"
    )
    backbone = build_backbone(spec("open_clip", model=name, weights=str(weights)))
    images = pictures(2, 32)
    with torch.inference_mode():
        x = normalised(images, backbone.preprocess.mean, backbone.preprocess.std)
        found = whole.encode_image(x, normalize=False)
        torch.testing.assert_close(backbone.module(images), found, rtol=1e-4, atol=1e-5)
        assert backbone.module.feature_map(images).shape == (2, 64, 4, 4)
    assert backbone.channels == 64
    kept = {key.removeprefix("net.") for key in backbone.module.state_dict()}
    assert kept == set(whole.visual.state_dict())
    config = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": {"mean": [0.1, 0.2, 0.3]}}
    (weights / "open_clip_config.json").write_text(json.dumps(config))
    followed = build_backbone(spec("open_clip", model="ViT-B-32", weights=str(weights)))
    assert followed.preprocess.mean == (0.1, 0.2, 0.3)
    assert followed.dimension == 24


@pytest.mark.clip
@pytest.mark.parametrize(
    ("model", "tag", "side", "dimension", "parameters"),
    [
        ("ViT-H-14-quickgelu", "dfn5b", 224, 1024, 632_076_800),
        ("convnext_xxlarge", "laion2b_s34b_b82k_augreg_soup", 256, 1024, 846_543_744),
        ("coca_ViT-B-32", "laion2b_s13b_b90k", 224, 512, 89_164_032),
    ],
)
def test_the_large_image_towers_are_built_without_their_text(
    model: str, tag: str, side: int, dimension: int, parameters: int
):
    pytest.importorskip("open_clip")
    from shelfwise.models.clip_tower import build, describe

    described = describe(model, tag, None)
    assert described.size == (side, side)
    with torch.device("meta"):
        net = build(described)
        assert net(torch.zeros(1, 3, side, side)).shape == (1, dimension)
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters
