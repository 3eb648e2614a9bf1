"""Heads: the packed computation equals one small network per attribute, forward and backward."""

import pytest
import torch
from torch import nn

from shelfwise.models.heads import CategoryHeads, Heads
from shelfwise.registry import REGISTRIES
from shelfwise.taxonomy import Choice, Taxonomy

TAXONOMY = Taxonomy(
    {
        "k": (Choice("a", ("p", "q")), Choice("b", ("r", "s", "t")), Choice("c", ("u",))),
        "m": (Choice("c", ("x", "y", "z", "w")),),
        "none": (),
    }
)
DIMENSION = 7


def of(weight: torch.Tensor, layer: int) -> torch.Tensor:
    """A hidden layer's weights per attribute [A, in, out]; the first one is stored [in, A, out]."""
    return weight.transpose(0, 1) if layer == 0 else weight


def separate(packed: CategoryHeads, hidden: list[int], norm: str) -> list[nn.Sequential]:
    """One network per attribute with the packed weights."""
    networks = []
    for attribute, part in enumerate(TAXONOMY.slices("k")):
        layers: list[nn.Module] = []
        width = DIMENSION
        for layer, following in enumerate(hidden):
            linear = nn.Linear(width, following)
            linear.weight.data = of(packed.weights[layer], layer)[attribute].detach().T.clone()
            linear.bias.data = packed.biases[layer][attribute, 0].detach().clone()
            layers.append(linear)
            if norm == "layer":
                normal = nn.LayerNorm(following)
                normal.weight.data = packed.gains[layer][attribute, 0].detach().clone()
                normal.bias.data = packed.shifts[layer][attribute, 0].detach().clone()
                layers.append(normal)
            layers.append(nn.ReLU())
            width = following
        last = nn.Linear(width, part.stop - part.start)
        last.weight.data = packed.last_weight[:, part].detach().T.clone()
        last.bias.data = packed.last_bias[part].detach().clone()
        networks.append(nn.Sequential(*layers, last))
    return networks


@pytest.mark.parametrize("norm", ["layer", "none"])
@pytest.mark.parametrize("hidden", [[], [6], [6, 4]])
def test_packed_equals_separate(hidden: list[int], norm: str):
    torch.manual_seed(0)
    packed = CategoryHeads(TAXONOMY.slices("k"), DIMENSION, hidden, 0.0, norm)  # type: ignore[arg-type]
    for parameter in packed.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    networks = separate(packed, hidden, norm)
    first, second = torch.randn(5, DIMENSION, requires_grad=True), None
    second = first.detach().clone().requires_grad_()
    logits = packed(first)
    expected = torch.cat([network(second) for network in networks], dim=1)
    assert torch.allclose(logits, expected, atol=1e-5)
    slope = torch.randn_like(logits)
    logits.backward(slope)
    expected.backward(slope)
    assert first.grad is not None
    assert torch.allclose(first.grad, second.grad, atol=1e-5)
    for attribute, (network, part) in enumerate(zip(networks, TAXONOMY.slices("k"), strict=True)):
        linears = [layer for layer in network if isinstance(layer, nn.Linear)]
        for layer, linear in enumerate(linears[:-1]):
            assert torch.allclose(
                of(packed.weights[layer].grad, layer)[attribute].T, linear.weight.grad, atol=1e-5
            )
            assert torch.allclose(packed.biases[layer].grad[attribute, 0], linear.bias.grad, atol=1e-5)
        normals = [layer for layer in network if isinstance(layer, nn.LayerNorm)]
        for layer, normal in enumerate(normals):
            assert torch.allclose(packed.gains[layer].grad[attribute, 0], normal.weight.grad, atol=1e-5)
            assert torch.allclose(packed.shifts[layer].grad[attribute, 0], normal.bias.grad, atol=1e-5)
        assert torch.allclose(packed.last_weight.grad[:, part].T, linears[-1].weight.grad, atol=1e-5)
        assert torch.allclose(packed.last_bias.grad[part], linears[-1].bias.grad, atol=1e-5)


def test_a_batch_is_taken_apart_by_category():
    torch.manual_seed(0)
    heads = Heads(TAXONOMY, DIMENSION, [6]).eval()
    features = torch.randn(6, DIMENSION)
    category = torch.tensor([1, 0, 2, 1, 0, 1])
    outputs = {name: (rows.tolist(), logits) for name, rows, logits in heads(features, category)}
    assert set(outputs) == {"k", "m"}, "a category without values has no output"
    assert outputs["k"][0] == [1, 4]
    assert outputs["m"][0] == [0, 3, 5]
    assert outputs["k"][1].shape == (2, 6)
    assert torch.allclose(outputs["m"][1], heads.of["1"](features[[0, 3, 5]]))


def test_a_category_that_is_not_in_the_batch_gets_no_gradient():
    heads = Heads(TAXONOMY, DIMENSION)
    ((_, _, logits),) = heads(torch.randn(2, DIMENSION), torch.tensor([1, 1]))
    logits.sum().backward()
    assert all(parameter.grad is None for parameter in heads.of["0"].parameters())
    assert heads.of["1"].last_weight.grad is not None


@pytest.mark.parametrize("name", REGISTRIES["heads"].names())
def test_every_registered_heads_is_built_and_taught(name: str):
    registry = REGISTRIES["heads"]
    heads = registry.build(registry.spec(name), TAXONOMY, DIMENSION)
    outputs = heads(torch.randn(4, DIMENSION), torch.tensor([0, 1, 0, 1]))
    for category, rows, logits in outputs:
        assert logits.shape == (len(rows), TAXONOMY.width(category))
    sum(logits.square().sum() for _, _, logits in outputs).backward()
    assert all(parameter.grad is not None for parameter in heads.parameters())


def test_options_of_mlp():
    registry = REGISTRIES["heads"]
    spec = registry.spec("mlp", hidden=8, layers=2, dropout=0.5, norm="none")
    heads = registry.build(spec, TAXONOMY, DIMENSION)
    assert [tuple(weight.shape) for weight in heads.of["0"].weights] == [(7, 3, 8), (3, 8, 4)]
    assert len(heads.of["0"].gains) == 0
    features, category = torch.randn(3, DIMENSION), torch.zeros(3, dtype=torch.long)
    heads.eval()
    assert torch.equal(heads(features, category)[0][2], heads(features, category)[0][2])
    heads.train()
    assert not torch.equal(heads(features, category)[0][2], heads(features, category)[0][2])
