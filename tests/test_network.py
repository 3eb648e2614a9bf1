"""Network: tower and heads as one; what is frozen stays still; folding, adapters and checkpointing keep outputs."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from shelfwise.errors import UsageError
from shelfwise.models.backbones import Backbone, Preprocess, build_backbone, make_backbone
from shelfwise.models.batchnorm import fold_batch_norm
from shelfwise.models.lora import add_lora, merge_lora
from shelfwise.models.network import Network, build_network, checkpoint_activations, set_trainable
from shelfwise.registry import REGISTRIES
from shelfwise.taxonomy import Choice, Taxonomy
from shelfwise.testing import toy

TAXONOMY = Taxonomy(
    {
        "k": (Choice("a", ("p", "q")), Choice("b", ("r", "s", "t"))),
        "m": (Choice("c", ("w", "x", "y", "z")),),
    }
)
SIDE = 64
CATEGORY = torch.tensor([0, 1, 0, 1])


def timm(model: str) -> Backbone:
    return build_backbone(REGISTRIES["backbone"].spec("timm", model=model, weights=False, size=SIDE))


def network(
    backbone: Backbone | None = None, heads: str = "mlp", seed: int = 0, **options: object
) -> Network:
    spec = REGISTRIES["heads"].spec(heads, **options)
    return build_network(backbone or toy(), spec, TAXONOMY, counts=None, seed=seed)


def pictures(side: int = SIDE, count: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, side, side, 3), generator=generator, dtype=torch.uint8)


def logits(built: Network, images: torch.Tensor | None = None) -> torch.Tensor:
    outputs = built(pictures() if images is None else images, CATEGORY)
    return torch.cat([part.flatten() for _, _, part in outputs])


def live_statistics(module: nn.Module) -> None:
    """Batch norms as training leaves them."""
    generator = torch.Generator().manual_seed(5)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for value, least in ((part.running_mean, -0.5), (part.running_var, 0.5), (part.bias, -0.5)):
                assert value is not None
                value.data.copy_(least + torch.rand(value.shape, generator=generator))


def test_a_network_is_its_heads_on_its_towers_features():
    built = network().eval()
    images = pictures(32)
    vectors = built.tower(images)
    assert torch.equal(built.features(images), vectors)
    expected = built.heads(vectors, CATEGORY)
    for found, wanted in zip(built(images, CATEGORY), expected, strict=True):
        assert found[0] == wanted[0]
        assert torch.equal(found[1], wanted[1])
        assert torch.equal(found[2], wanted[2])
    assert all(name.startswith(("tower.", "heads.")) for name, _ in built.named_parameters())


def test_layer_groups_hold_every_parameter_once_and_end_with_the_heads():
    built = network(timm("test_resnet"))
    groups = built.layer_groups
    grouped = [name for _, names in groups for name in names]
    assert sorted(grouped) == sorted(name for name, _ in built.named_parameters())
    assert [groups[0][0], groups[-1][0]] == ["stem", "heads"]
    assert all(name.startswith("heads.") for name in groups[-1][1])


def test_the_seed_alone_draws_the_heads():
    torch.manual_seed(1)
    one, before = network(seed=4), torch.get_rng_state()
    torch.manual_seed(2)
    two, other = network(seed=4), network(seed=5)
    assert torch.equal(logits(one, pictures(32)), logits(two, pictures(32)))
    assert not torch.equal(logits(one, pictures(32)), logits(other, pictures(32)))
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("model", ["test_efficientnet", "test_vit", "test_convnext", "test_resnet"])
@pytest.mark.parametrize("heads", ["attention", "squeeze_excitation"])
def test_heads_read_the_map_of_any_network(model: str, heads: str):
    backbone = timm(model)
    options = {"spatial": 32, "hidden": 16} if heads == "attention" else {"hidden": 16}
    built = network(backbone, heads, **options).eval()
    images = pictures()
    maps = built.features(images)
    assert maps.ndim == 4
    assert maps.shape[1] == backbone.channels
    assert {name for name, _, _ in built(images, CATEGORY)} == {"k", "m"}
    as_float = logits(built, images.float())
    assert torch.equal(logits(built), as_float)


def test_pictures_as_floats_between_integers_are_read_too():
    built = network(timm("test_resnet"), "linear").eval()
    first, second = logits(built, pictures().float()), logits(built, pictures().float() + 0.25)
    assert not torch.equal(first, second)
    torch.testing.assert_close(first, second, rtol=0.05, atol=0.05)


def test_a_backbone_without_a_map_is_named():
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 5)

        def forward(self, images_BHWC: torch.Tensor) -> torch.Tensor:
            return self.layer(images_BHWC.float().mean((1, 2)))

    half = (0.5, 0.5, 0.5)
    backbone = make_backbone("flat", Flat(), Preprocess((8, 8), "stretch", "bilinear", 1.0, half, half))
    assert backbone.channels is None
    with pytest.raises(UsageError, match="'attention' read a feature map and the backbone 'flat' has none"):
        network(backbone, "attention")
    assert network(backbone, "mlp").takes == "vector"


def test_what_the_data_settled_is_kept_and_builds_the_same_heads():
    counts = {"k": np.array([9, 9, 1, 1, 1]), "m": np.array([97, 1, 1, 1])}
    spec = REGISTRIES["heads"].spec("squeeze_excitation", effective_values=2.5, hidden=16)
    built = build_network(toy(), spec, TAXONOMY, counts=counts, seed=0)
    assert built.spec is not None
    assert built.spec.table()["complex"] == ["k/b"]
    again = build_network(toy(), built.spec, TAXONOMY, counts=None, seed=1)
    again.load_state_dict(built.state_dict(), strict=True)
    same = REGISTRIES["heads"].spec("mlp", hidden=8)
    assert build_network(toy(), same, TAXONOMY, counts=None, seed=0).spec == same


def test_convolutions_are_laid_out_channels_last():
    weight = dict(network(timm("test_resnet")).named_parameters())["tower.net.layer1.0.conv2.weight"]
    assert weight.is_contiguous(memory_format=torch.channels_last)


def norms(built: nn.Module) -> dict[str, nn.BatchNorm2d]:
    return {name: part for name, part in built.named_modules() if isinstance(part, nn.BatchNorm2d)}


def test_frozen_stages_do_not_move_in_training():
    built = network(timm("test_resnet"), dropout=0.5)
    groups = dict(built.layer_groups)
    last = list(groups)[-2:]
    set_trainable(built, [name for group in last for name in groups[group]])
    built.train()
    trained = {name for name, parameter in built.named_parameters() if parameter.requires_grad}
    assert trained == {name for group in last for name in groups[group]}
    before = {name: value.clone() for name, value in built.state_dict().items()}
    frozen = {name for name, part in norms(built).items() if f"{name}.weight" not in trained}
    assert frozen
    assert frozen != set(norms(built))
    assert {name for name, part in norms(built).items() if not part.training} == frozen
    optimiser = torch.optim.SGD([p for p in built.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        logits(built).square().sum().backward()
        optimiser.step()
        built.eval()
        built.train()
    after = built.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    allowed = trained | {
        f"{name}.{key}"
        for name in set(norms(built)) - frozen
        for key in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert moved <= allowed
    assert trained <= moved
    assert any(name.endswith("running_mean") for name in moved)


def test_a_frozen_tower_draws_no_dropout_and_the_heads_do():
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.drop = nn.Linear(3, 5), nn.Dropout(0.5)

        def forward(self, images_BHWC: torch.Tensor) -> torch.Tensor:
            return self.drop(self.layer(images_BHWC.float().mean((1, 2))))

    half = (0.5, 0.5, 0.5)
    preprocess = Preprocess((8, 8), "stretch", "bilinear", 1.0, half, half)
    built = network(make_backbone("dropping", Dropping(), preprocess), dropout=0.5)
    images = pictures(8)
    built.train()
    assert not torch.equal(built.features(images), built.features(images))
    set_trainable(built, built.layer_groups[-1][1])
    for _ in range(2):
        assert torch.equal(built.features(images), built.features(images))
        assert not torch.equal(logits(built, images), logits(built, images))
        built.train()
    built.eval()
    set_trainable(built, [name for name, _ in built.named_parameters()])
    assert not built.training, "the mode is the caller's"
    assert not built.tower.training


def test_a_name_that_no_parameter_has_is_an_error():
    built = network()
    with pytest.raises(
        UsageError, match=r"no parameter 'tower\.first\.wieght'. Did you mean 'tower\.first\.weight'"
    ):
        set_trainable(built, ["tower.first.wieght"])


@pytest.mark.parametrize("model", ["test_resnet", "test_efficientnet"])
def test_folding_batch_norms_keeps_features_and_map(model: str):
    backbone = timm(model)
    tower: Any = backbone.module
    live_statistics(tower)
    images = pictures()
    with torch.no_grad():
        vectors, maps = tower(images), tower.feature_map(images)
        assert norms(tower)
        folded = fold_batch_norm(tower)
        torch.testing.assert_close(tower(images), vectors, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(tower.feature_map(images), maps, rtol=1e-4, atol=1e-5)
    assert folded
    assert not norms(tower)
    assert not set(folded) & {
        name for name, part in tower.named_modules() if isinstance(part, nn.BatchNorm2d)
    }
    assert fold_batch_norm(tower) == ()
    again = timm(model).module
    with pytest.raises(RuntimeError, match="Missing key"):
        again.load_state_dict(tower.state_dict(), strict=True)
    fold_batch_norm(again)
    again.load_state_dict(tower.state_dict(), strict=True)
    assert torch.equal(again(images), tower(images))


def test_a_norm_that_does_not_follow_one_convolution_is_left():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared, self.own = nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 4, 3)
            self.one, self.two, self.three, self.first = (nn.BatchNorm2d(n) for n in (4, 4, 4, 3))

        def forward(self, images_BHWC: torch.Tensor) -> torch.Tensor:
            x = self.first(images_BHWC.permute(0, 3, 1, 2).float())
            once = self.shared(x)
            x = self.one(once) + self.two(once)
            return self.three(self.own(x)).mean((2, 3))

    odd = Odd()
    live_statistics(odd)
    odd.own.weight.requires_grad_(False)
    odd.train()
    images = pictures(16)
    odd.eval()
    expected = odd(images)
    odd.train()
    statistics = {name: part.running_mean.clone() for name, part in norms(odd).items()}  # type: ignore[union-attr]
    assert fold_batch_norm(odd, (16, 16)) == ("three",)
    assert odd.training
    assert all(torch.equal(part.running_mean, statistics[name]) for name, part in norms(odd).items())  # type: ignore[arg-type]
    torch.testing.assert_close(odd.eval()(images), expected, rtol=1e-4, atol=1e-4)
    assert not odd.own.bias.requires_grad, "a frozen convolution stays frozen"  # type: ignore[union-attr]


def test_adapters_start_at_nothing_are_trained_alone_and_merge():
    pytest.importorskip("peft")
    built = network(timm("test_vit"), "linear")
    names, before = list(built.state_dict()), logits(built.eval())
    start = {name: value.clone() for name, value in built.state_dict().items()}
    targets = add_lora(built, rank=2, alpha=4.0, targets=["qkv"], seed=1)
    assert targets == tuple(f"tower.net.blocks.{block}.attn.qkv" for block in range(6))
    assert torch.equal(logits(built), before)
    trained = {name for name, parameter in built.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name or name.startswith("heads.") for name in trained)
    assert sum("lora_" in name for name in trained) == 12
    grouped = [name for _, group in built.layer_groups for name in group]
    assert sorted(grouped) == sorted(name for name, _ in built.named_parameters())
    built.train()
    optimiser = torch.optim.SGD([p for p in built.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        logits(built).square().sum().backward()
        optimiser.step()
    after = logits(built.eval())
    assert not torch.allclose(after, before, atol=1e-3)
    merge_lora(built)
    assert list(built.state_dict()) == names
    torch.testing.assert_close(logits(built), after, rtol=1e-4, atol=1e-5)
    changed = {name for name, value in built.state_dict().items() if not torch.equal(value, start[name])}
    assert changed == {f"{name}.weight" for name in targets} | {n for n in names if n.startswith("heads.")}


def test_adapters_by_default_are_on_every_linear_layer():
    pytest.importorskip("peft")
    built = network(timm("test_vit"))
    linear = [name for name, part in built.tower.named_modules() if isinstance(part, nn.Linear)]
    assert add_lora(built, rank=1) == tuple(f"tower.{name}" for name in linear)
    same = network(timm("test_vit"))
    add_lora(same, rank=1)
    assert all(torch.equal(a, b) for a, b in zip(built.parameters(), same.parameters(), strict=True))


def test_adapters_on_layers_that_are_not_there_are_named():
    pytest.importorskip("peft")
    with pytest.raises(UsageError, match=r"no layer of the tower is called 'qvk'\. Did you mean 'qkv'"):
        add_lora(network(timm("test_vit")), targets=["qvk"])
    with pytest.raises(UsageError, match="no linear layer"):
        add_lora(network())
    with pytest.raises(UsageError, match="rank of at least 1"):
        add_lora(network(timm("test_vit")), rank=0)


@pytest.mark.parametrize("model", ["test_vit", "test_convnext"])
def test_checkpointed_activations_give_the_same_gradient(model: str):
    built = network(timm(model), "linear").train()
    grads = []
    for enabled in (False, True):
        checkpoint_activations(built, enabled)
        built.zero_grad()
        logits(built).square().sum().backward()
        grads.append([p.grad.clone() for p in built.parameters() if p.grad is not None])
    assert len(grads[0]) == len(grads[1]) > 20
    for first, second in zip(*grads, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


def test_checkpointing_saves_what_the_graph_keeps():
    kept = []
    built = network(timm("test_vit"), "linear").train()
    for enabled in (False, True):
        checkpoint_activations(built, enabled)
        total: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, t=total: (t.append(x.numel()), x)[1], lambda x: x
        ):
            logits(built)
        kept.append(sum(total))
    assert kept[1] < kept[0] / 2
    with pytest.raises(UsageError, match="cannot checkpoint activations"):
        checkpoint_activations(network())


def test_a_network_learns():
    built = network(timm("test_resnet"), hidden=16).train()
    optimiser = torch.optim.AdamW(built.parameters(), lr=3e-3)
    target = {"k": torch.tensor([0, 1]), "m": torch.tensor([2, 3])}
    losses = []
    for _ in range(8):
        optimiser.zero_grad()
        parts = [
            nn.functional.cross_entropy(found[:, : {"k": 2, "m": 4}[name]], target[name])
            for name, _, found in built(pictures(), CATEGORY)
        ]
        loss = torch.stack(parts).mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
