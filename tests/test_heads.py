"""Heads: the packed computation equals one plain network per attribute, forward, backward and in size."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from shelfwise.errors import UsageError
from shelfwise.models.heads import CategoryHeads, Heads, Layer, reads_map
from shelfwise.models.shared_heads import SharedHeads
from shelfwise.models.squeeze_excitation import complex_heads
from shelfwise.registry import REGISTRIES
from shelfwise.taxonomy import Choice, Taxonomy
from shelfwise.testing import check_head

TAXONOMY = Taxonomy(
    {
        "k": (Choice("a", ("p", "q")), Choice("b", ("r", "s", "t")), Choice("c", ("u",))),
        "m": (Choice("c", ("x", "y", "z", "w")),),
        "none": (),
    }
)
DIMENSION = 7
REGISTRY = REGISTRIES["heads"]
NAMES = ("attention", "linear", "mlp", "shared", "squeeze_excitation")


def build(name: str, taxonomy: Taxonomy = TAXONOMY, dimension: int = DIMENSION, **options: object) -> Any:
    torch.manual_seed(0)
    return REGISTRY.build(REGISTRY.spec(name, **options), taxonomy, dimension)


def shaken(module: nn.Module) -> nn.Module:
    """Gains, shifts and statistics that are not at their start, so that a mix-up shows."""
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    for name, value in module.named_buffers():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + (0.5 if "variance" in name else 0.0))
    return module


def categories(sizes: Sequence[int]) -> Taxonomy:
    """One category with attributes of so many values."""
    choices = (Choice(f"a{at}", tuple(f"v{k}" for k in range(size))) for at, size in enumerate(sizes))
    return Taxonomy({"k": tuple(choices)})


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def plain(packed: CategoryHeads, attribute: int) -> nn.Sequential:
    """The network of one attribute with the packed weights."""
    layers: list[nn.Module] = []
    for place, layer in enumerate(packed.layers):
        weight = packed.weights[place].detach()
        weight = weight[attribute] if place or packed.own else weight[:, attribute]
        linear = nn.Linear(*weight.shape)
        linear.weight.data, linear.bias.data = weight.T.clone(), packed.biases[place][attribute, 0].clone()
        layers.append(linear)
        kinds = {
            "layer": nn.LayerNorm,
            "group": lambda width, groups=layer.groups: nn.GroupNorm(groups, width),
            "batch": nn.BatchNorm1d,
        }
        if layer.norm != "none":
            norm = kinds[layer.norm](layer.width)
            at = packed.normed.index(place)
            norm.weight.data = packed.gains[at][attribute, 0].clone()
            norm.bias.data = packed.shifts[at][attribute, 0].clone()
            if layer.norm == "batch":
                norm.running_mean = packed.get_buffer(f"mean_{place}")[attribute, 0].clone()
                norm.running_var = packed.get_buffer(f"variance_{place}")[attribute, 0].clone()
            layers.append(norm)
        layers.append({"relu": nn.ReLU, "gelu": nn.GELU, "sigmoid": nn.Sigmoid}[layer.activation]())
    part = packed.slices[attribute]
    last = nn.Linear(len(packed.last_weight), part.stop - part.start)
    last.weight.data = packed.last_weight[:, part].detach().T.clone()
    last.bias.data = packed.last_bias[part].detach().clone()
    return nn.Sequential(*layers, last)


def same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", ["layer", "group", "batch", "none"])
@pytest.mark.parametrize("widths", [[], [6], [6, 4]])
def test_packed_equals_separate(widths: list[int], norm: str, training: bool):
    torch.manual_seed(0)
    layers = [Layer(width, norm, groups=2) for width in widths]  # type: ignore[arg-type]
    packed = shaken(CategoryHeads(TAXONOMY.slices("k"), DIMENSION, layers)).train(training)
    networks = [plain(packed, attribute).train(training) for attribute in range(3)]  # type: ignore[arg-type]
    first = torch.randn(5, DIMENSION, requires_grad=True)
    second = first.detach().clone().requires_grad_()
    logits = packed(first)
    expected = torch.cat([network(second) for network in networks], dim=1)
    same(logits, expected)
    slope = torch.randn_like(logits)
    logits.backward(slope)
    expected.backward(slope)
    same(first.grad, second.grad)  # type: ignore[arg-type]
    for attribute, network in enumerate(networks):
        linears = [layer for layer in network if isinstance(layer, nn.Linear)]
        for place, linear in enumerate(linears[:-1]):
            grad = packed.weights[place].grad
            same(grad[attribute].T if place else grad[:, attribute].T, linear.weight.grad)
            same(packed.biases[place].grad[attribute, 0], linear.bias.grad)
        norms = [
            layer for layer in network if isinstance(layer, nn.LayerNorm | nn.GroupNorm | nn.BatchNorm1d)
        ]
        for place, normal in enumerate(norms):
            same(packed.gains[place].grad[attribute, 0], normal.weight.grad)
            same(packed.shifts[place].grad[attribute, 0], normal.bias.grad)
            if isinstance(normal, nn.BatchNorm1d):
                same(packed.get_buffer(f"mean_{place}")[attribute, 0], normal.running_mean)
                same(packed.get_buffer(f"variance_{place}")[attribute, 0], normal.running_var)
        part = packed.slices[attribute]
        same(packed.last_weight.grad[:, part].T, linears[-1].weight.grad)
        same(packed.last_bias.grad[part], linears[-1].bias.grad)
    assert size(packed) == sum(map(size, networks))


def test_a_batch_is_taken_apart_by_category():
    heads = build("mlp", hidden=6).eval()
    features = torch.randn(6, DIMENSION)
    category = torch.tensor([1, 0, 2, 1, 0, 1])
    outputs = {name: (rows.tolist(), logits) for name, rows, logits in heads(features, category)}
    assert set(outputs) == {"k", "m"}, "a category without values has no output"
    assert outputs["k"][0] == [1, 4]
    assert outputs["m"][0] == [0, 3, 5]
    assert outputs["k"][1].shape == (2, 6)
    same(outputs["m"][1], heads.of["1"](features[[0, 3, 5]]))


def test_a_category_that_is_not_in_the_batch_gets_no_gradient():
    heads = build("linear")
    ((_, _, logits),) = heads(torch.randn(2, DIMENSION), torch.tensor([1, 1]))
    logits.sum().backward()
    assert all(parameter.grad is None for parameter in heads.of["0"].parameters())
    assert heads.of["1"].last_weight.grad is not None


def test_these_are_the_registered_heads():
    assert set(NAMES) <= set(REGISTRY.names())


@pytest.mark.parametrize("name", NAMES)
def test_every_registered_head_keeps_the_contract(name: str):
    check_head(name)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mlp", {"norm": "batch", "layers": 3, "hidden": 32}),
        ("mlp", {"norm": "group", "layers": 2, "hidden": 32}),
        ("mlp", {"norm": "none", "layers": 0}),
        ("shared", {"token": 0, "separate": ["c"], "norm": "group"}),
        ("shared", {"layers": 0}),
        ("attention", {"sigmoid": True, "processor": False, "spatial": 64, "hidden": 16}),
        ("squeeze_excitation", {"complex": ["k/b", "m/d"], "hidden": 16}),
        ("squeeze_excitation", {"complex": [], "hidden": 16}),
    ],
)
def test_options_keep_the_contract(name: str, options: dict[str, object]):
    check_head(name, **options)


class Neighbourly(nn.Module):
    """Breaks a promise: a row's logits depend on the batch."""

    takes = "vector"

    def __init__(self, taxonomy: Taxonomy, dimension: int, what: str) -> None:
        super().__init__()
        self.inner, self.what = REGISTRY.build(REGISTRY.spec("linear"), taxonomy, dimension), what
        if what == "idle":
            self.idle = nn.Parameter(torch.zeros(3))

    def forward(self, features: torch.Tensor, category_B: torch.Tensor) -> list[Any]:
        if self.what == "neighbours":
            features = features - features.mean(0)
        if self.what == "chance":
            features = features + torch.randn_like(features)
        found = self.inner(features, category_B)
        return found[:1] if self.what == "lost" else found

    def masks(self, category: str, attribute: str) -> dict[str, torch.Tensor]:
        found = self.inner.masks(category, attribute)
        if self.what == "masks":
            found = {name: torch.ones_like(mask) for name, mask in found.items()}
        return {f"inner.{name}": mask for name, mask in found.items()}


def neighbourly(taxonomy: Taxonomy, dimension: int, *, what: str = "neighbours") -> Neighbourly:
    """For tests of the kit."""
    return Neighbourly(taxonomy, dimension, what)


@reads_map
def mistaken(taxonomy: Taxonomy, dimension: int) -> Neighbourly:
    """Says that it takes a map."""
    return Neighbourly(taxonomy, dimension, "")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads that break promises, registered for one test."""
    for entry in (neighbourly, mistaken):
        monkeypatch.setitem(REGISTRY.entries, entry.__name__, entry)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("neighbours", "in a batch of one category get logits that differ"),
        ("chance", "other logits the second time"),
        ("idle", "the parameter 'idle' has no gradient"),
        ("lost", "outputs for"),
        ("masks", "cover another head too"),
    ],
)
@pytest.mark.usefixtures("broken")
def test_the_kit_finds_broken_promises(what: str, said: str):
    with pytest.raises(AssertionError, match=said):
        check_head("neighbourly", what=what)


@pytest.mark.usefixtures("broken")
def test_the_kit_finds_a_head_that_takes_another_thing():
    check_head("neighbourly", what="nothing")
    with pytest.raises(AssertionError, match="its entry takes a map"):
        check_head("mistaken")


def test_options_of_mlp():
    heads = build("mlp", hidden=8, layers=2, dropout=0.5, norm="none")
    assert [tuple(weight.shape) for weight in heads.of["0"].weights] == [(7, 3, 8), (3, 8, 4)]
    assert len(heads.of["0"].gains) == 0
    features, category = torch.randn(3, DIMENSION), torch.zeros(3, dtype=torch.long)
    heads.eval()
    assert torch.equal(heads(features, category)[0][2], heads(features, category)[0][2])
    heads.train()
    assert not torch.equal(heads(features, category)[0][2], heads(features, category)[0][2])


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("mlp", {"norm": "instance"}, "one of 'batch'|one of 'layer'"),
        ("mlp", {"norm": "group", "hidden": 20}, "a multiple of groups = 8"),
        ("mlp", {"layers": -1}, "layers >= 0"),
        ("mlp", {"hidden": 2, "layers": 2}, "a width of at least 2, not 1"),
        ("mlp", {"dropout": 1.0}, "dropout"),
        ("attention", {}, "groups = 32 has to divide the map's 7 channels"),
        ("attention", {"groups": 7, "spatial": 7, "dropout": [0.1]}, "two dropouts"),
        ("squeeze_excitation", {}, "from 1 to the 7 channels"),
        ("squeeze_excitation", {"reduction": 1, "complex": ["k/d"]}, "there is no 'k/d'. Did you mean 'k/"),
        ("shared", {"norm": "batch"}, "one category at a time"),
        ("shared", {"separate": ["cc"]}, "none is called 'cc'"),
        ("shared", {"token": -1}, "token is at least 0"),
    ],
)
def test_options_that_cannot_be_are_named(name: str, options: dict[str, object], said: str):
    with pytest.raises(UsageError, match=said):
        build(name, **options)


def test_a_single_row_is_normalised_by_earlier_batches_and_does_not_move_them():
    heads = build("mlp", hidden=6, norm="batch").train()
    of = heads.of["1"]
    heads(torch.randn(4, DIMENSION), torch.ones(4, dtype=torch.long))
    before = of.get_buffer("mean_0").clone()
    assert before.abs().sum() > 0
    heads(torch.randn(1, DIMENSION), torch.ones(1, dtype=torch.long))
    assert torch.equal(of.get_buffer("mean_0"), before)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_mlp_has_the_parameters_of_plain_layers(layers: int):
    """Linear, LayerNorm, ReLU, Dropout per hidden layer of half the width, then Linear: 1,024 features."""
    sizes = [4, 2, 2, 3, 2]
    expected = 0
    for values in sizes:
        width, stack = 1024, []
        for place in range(layers):
            following = 512 // 2**place
            stack += [nn.Linear(width, following), nn.LayerNorm(following), nn.ReLU(), nn.Dropout(0.1)]
            width = following
        expected += size(nn.Sequential(*stack, nn.Linear(width, values)))
    assert size(build("mlp", categories(sizes), 1024, hidden=512, layers=layers)) == expected


class PlainAttention(nn.Module):
    """The attention head of one attribute, written plainly."""

    def __init__(self, channels: int, spatial: int, groups: int, hidden: int, values: int, last: nn.Module):
        super().__init__()
        self.spatial = nn.Sequential(
            nn.Conv2d(channels, spatial, 3, padding=1, groups=groups),
            nn.GELU(),
            nn.Conv2d(spatial, spatial, 3, padding=1, groups=groups),
            nn.GELU(),
        )
        self.channel = nn.Sequential(
            nn.Linear(spatial, spatial // 4), nn.GELU(), nn.Linear(spatial // 4, spatial), nn.Sigmoid()
        )
        self.classifier = nn.Sequential(
            nn.Linear(spatial, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Dropout(0.2),
            nn.Linear(hidden, hidden // 2),
            nn.LayerNorm(hidden // 2),
            last,
            nn.Dropout(0.1),
            nn.Linear(hidden // 2, values),
        )

    def forward(self, map_BChw: torch.Tensor) -> torch.Tensor:
        own_BShw = self.spatial(map_BChw)
        gate_BS = self.channel(own_BShw.mean((2, 3)))
        scaled_BS = (own_BShw * gate_BS[:, :, None, None]).mean((2, 3))
        logits: torch.Tensor = self.classifier(scaled_BS)
        return logits


@pytest.mark.parametrize("sigmoid", [False, True])
def test_attention_equals_plain_heads(sigmoid: bool):
    channels, spatial, groups, hidden = 12, 8, 4, 6
    options = {"spatial": spatial, "groups": groups, "hidden": hidden, "sigmoid": sigmoid}
    heads = shaken(build("attention", dimension=channels, **options)).eval()
    category: Any = heads.of["0"]  # type: ignore[index]
    image = torch.randn(3, channels, 5, 4, requires_grad=True)
    ((_, _, found),) = heads(image, torch.zeros(3, dtype=torch.long))
    seen = heads.before(image)  # type: ignore[operator]
    same(seen, nn.functional.gelu(nn.functional.conv2d(image, *heads.before[0].parameters())))  # type: ignore[index]
    for attribute, part in enumerate(TAXONOMY.slices("k")):
        last = nn.Sigmoid() if sigmoid else nn.GELU()
        single = PlainAttention(channels, spatial, groups, hidden, part.stop - part.start, last).eval()
        for place, conv in ((0, category.first), (2, category.second)):
            shape = (groups, 3, spatial // groups)
            single.spatial[place].weight.data = conv.weight.data.unflatten(0, shape)[:, attribute].flatten(
                0, 1
            )
            single.spatial[place].bias.data = conv.bias.data.unflatten(0, shape)[:, attribute].flatten()
        for place, linear in ((0, category.squeeze), (2, category.excite)):
            single.channel[place].weight.data = linear.weight.data[attribute].T.clone()
            single.channel[place].bias.data = linear.bias.data[attribute, 0].clone()
        rest = plain(category.heads, attribute)
        for place, layer in zip((0, 1, 4, 5, 8), (rest[0], rest[1], rest[3], rest[4], rest[6]), strict=True):
            single.classifier[place].load_state_dict(layer.state_dict())
        expected = single(seen)
        same(found[:, part], expected)
        slope = torch.randn_like(expected)
        (grad,) = torch.autograd.grad(found[:, part], image, slope, retain_graph=True)
        (other,) = torch.autograd.grad(expected, image, slope, retain_graph=True)
        same(grad, other)


@pytest.mark.parametrize(
    ("sizes", "documented"),
    [([4, 2, 2, 3, 2], 95_658_253), ([4, 6, 3, 8, 4, 3, 4, 5, 9, 2], 102_711_728)],
)
def test_attention_on_convnext_base_has_the_documented_size(sizes: list[int], documented: int):
    """ConvNeXt-Base as transformers builds it, without its classifier, 1,024 channels."""
    from shelfwise.models.torchvision_repair import import_torchvision

    import_torchvision()
    transformers = pytest.importorskip("transformers")
    config = transformers.ConvNextConfig(depths=[3, 3, 27, 3], hidden_sizes=[128, 256, 512, 1024])
    with torch.device("meta"):
        tower = size(transformers.ConvNextModel(config))
    heads = size(build("attention", categories(sizes), 1024))
    single = sum(size(PlainAttention(1024, 512, 32, 1024, values, nn.GELU())) for values in sizes)
    assert heads == size(nn.Conv2d(1024, 1024, 1)) + single
    assert tower + heads == documented


def test_squeeze_excitation_equals_plain_layers():
    channels = 32
    heads = shaken(build("squeeze_excitation", dimension=channels, complex=["k/b"], hidden=16)).eval()
    image = torch.randn(3, channels, 4, 3)
    ((_, _, found),) = heads(image, torch.zeros(3, dtype=torch.long))
    block: Any = heads.before
    gate_BC = torch.sigmoid(block.excite.weight @ torch.relu(block.squeeze.weight @ image.mean((2, 3)).T)).T
    pooled_BC = (image * gate_BC[:, :, None, None]).mean((2, 3))
    kinds: Any = heads.of["0"].kinds  # type: ignore[index]
    order = [("simple", 0), ("complex", 0), ("simple", 1)]
    for (kind, place), part in zip(order, TAXONOMY.slices("k"), strict=True):
        same(found[:, part], plain(kinds[kind], place).eval()(pooled_BC))
    linears = [layer for layer in plain(kinds["complex"], 0) if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in linears] == [32, 16, 3]


def test_squeeze_excitation_has_the_parameters_of_plain_layers():
    taxonomy = categories([13, 4])
    simple = nn.Sequential(
        nn.Linear(2048, 256), nn.GroupNorm(8, 256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, 4)
    )
    deep = nn.Sequential(
        *(nn.Linear(2048, 512), nn.GroupNorm(8, 512), nn.ReLU(), nn.Dropout(0.4)),
        *(nn.Linear(512, 256), nn.GroupNorm(8, 256), nn.ReLU(), nn.Dropout(0.3)),
        nn.Linear(256, 13),
    )
    block = nn.Sequential(nn.Linear(2048, 128, bias=False), nn.Linear(128, 2048, bias=False))
    heads = build("squeeze_excitation", taxonomy, 2048, complex=["k/a0"])
    assert size(heads) == size(simple) + size(deep) + size(block)


def test_complex_heads_follow_classes_and_entropy():
    taxonomy = categories([4, 4, 3, 9])
    assert complex_heads(taxonomy, None, 4.0) == ("k/a0", "k/a1", "k/a3")
    counts = {"k": np.array([5, 5, 5, 5, 97, 1, 1, 1, 9, 9, 9, 900, *[1] * 8])}
    assert complex_heads(taxonomy, counts, 4.0) == ("k/a0",)
    assert complex_heads(taxonomy, counts, 1.1) == ("k/a0", "k/a1", "k/a2")
    assert complex_heads(taxonomy, {"k": np.zeros(20, dtype=np.int64)}, 1.5) == ()
    spec = REGISTRY.spec("squeeze_excitation", reduction=4)
    heads = REGISTRY.build(spec, taxonomy, 8, counts)
    assert heads.settled == {"complex": ["k/a0"]}


def test_shared_heads_equal_plain_ones_on_features_and_token():
    taxonomy = Taxonomy(
        {
            "k": (Choice("colour", ("red", "blue")), Choice("size", ("s", "l"))),
            "none": (),
            "m": (Choice("fit", ("slim",)), Choice("colour", ("green", "blue", "red"))),
        }
    )
    heads: SharedHeads = shaken(build("shared", taxonomy, token=3, hidden=6)).eval()  # type: ignore[assignment]
    assert heads.names == ("colour", "size", "fit")
    features, category = torch.randn(5, DIMENSION), torch.tensor([2, 0, 2, 1, 0])
    found = {name: (rows, logits) for name, rows, logits in heads(features, category)}
    assert heads.tokens is not None
    values = {"colour": ["red", "blue", "green"], "size": ["s", "l"], "fit": ["slim"]}
    for code, name in ((0, "k"), (2, "m")):
        rows, logits = found[name]
        token = heads.tokens[heads.token_of[code]].expand(len(rows), -1)
        given = torch.cat([features[rows], token], dim=1)
        for choice, part in zip(taxonomy.choices(name), taxonomy.slices(name), strict=True):
            united = plain(heads.heads, heads.names.index(choice.name)).eval()(given)
            same(logits[:, part], united[:, [values[choice.name].index(value) for value in choice.values]])
    single = [nn.Sequential(nn.Linear(10, 6), nn.LayerNorm(6), nn.Linear(6, k)) for k in (3, 2, 1)]
    assert size(heads) == sum(map(size, single)) + 2 * 3


def test_shared_heads_learn_from_every_category_and_separate_ones_do_not():
    features = torch.randn(2, DIMENSION)
    for options, reached in (({}, True), ({"separate": ["c"]}, False)):
        heads = build("shared", hidden=6, **options)
        ((_, _, logits),) = heads(features, torch.tensor([1, 1]))
        logits.sum().backward()
        name = "c" if "c" in heads.names else "k/c"
        grad = heads.heads.weights[0].grad[:, heads.names.index(name)]
        assert bool((grad != 0).any()) is reached


@pytest.mark.parametrize("name", NAMES)
def test_heads_keep_their_layout_in_lower_precision(name: str):
    heads = build(name, dimension=64)
    features = torch.randn(4, 64, 3, 3) if heads.takes == "map" else torch.randn(4, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = heads.eval()(features, torch.tensor([0, 1, 0, 1]))
    for _, rows, logits in outputs:
        assert len(rows) == len(logits) == 2
        assert bool(logits.isfinite().all())


def test_no_two_masks_meet_and_all_of_them_cover_the_heads():
    heads = build("attention", dimension=64)
    pairs = [(category, choice.name) for category, choice in TAXONOMY.pairs()]
    total = {name: torch.zeros(value.shape) for name, value in heads.named_parameters()}
    for pair in pairs:
        for name, mask in heads.masks(*pair).items():
            total[name] += mask
    for name, covered in total.items():
        wanted = 0.0 if name.startswith("before.") else 1.0
        assert bool((covered == wanted).all()), name


def test_heads_of_one_category_see_the_batch_uncopied():
    seen: list[torch.Tensor] = []

    class Watching(nn.Module):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            seen.append(features)
            return features[:, :4]

    heads = Heads(TAXONOMY, lambda category: Watching())
    features = torch.randn(3, DIMENSION)
    heads(features, torch.ones(3, dtype=torch.long))
    assert seen[0].data_ptr() == features.data_ptr()
