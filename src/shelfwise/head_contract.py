"""The contract of registered heads, checked.

It knows no recipe and how no kind of heads works inside. Each check raises ``AssertionError`` with a
sentence that says what was promised and what was found.
Legend: B batch, D features or channels, h and w a map's sides, n rows of one category, V values packed.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shelfwise.registry import REGISTRIES
from shelfwise.taxonomy import Choice, Taxonomy

if TYPE_CHECKING:
    from torch import Tensor, nn

#: A name that two categories share, one value that both have, an attribute of one value, an empty category.
TAXONOMY = Taxonomy(
    {
        "k": (Choice("a", ("p", "q")), Choice("b", ("r", "s", "t")), Choice("c", ("x",))),
        "none": (),
        "m": (Choice("c", ("v", "w", "x", "y", "z")), Choice("d", ("i", "j"))),
    }
)
#: Logits that are promised to be the same may differ by this much.
CLOSE = 1e-4
_BATCH = (0, 2, 1, 2, 0, 0, 2, 1, 0, 2)


@dataclass(frozen=True, eq=False)
class _Case:
    """One kind of heads with its options, and a batch for it."""

    name: str
    options: Mapping[str, Any]
    features: "Tensor"
    category_B: "Tensor"

    def build(self, seed: int) -> "nn.Module":
        import torch

        registry = REGISTRIES["heads"]
        entry = registry.get(self.name)
        counts = {
            category: np.arange(1, TAXONOMY.width(category) + 1, dtype=np.int64)
            for category in TAXONOMY.categories
        }
        extra = (counts,) if "counts" in inspect.signature(entry).parameters else ()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            spec = registry.spec(self.name, **self.options)
            heads: nn.Module = registry.build(spec, TAXONOMY, self.features.shape[1], *extra)
        return heads


def check_head(name: str, *, dimension: int = 64, **options: Any) -> None:
    """Make sure that a registered kind of heads keeps the contract of every kind.

    It says whether it takes vectors or maps; gives every category of a batch its rows and one logit per
    value, and nothing to a category without attributes; a row's logits depend on that row alone in
    evaluation, and on no dropout; every parameter has a gradient; a seed gives the same weights; a state dict
    loads strictly and gives the same logits; a single row of a category can be trained on; and the masks
    of an attribute's head change that attribute alone.

    Args:
        name: the registered heads.
        dimension: features, or channels of the map.
        options: their options.

    Raises:
        AssertionError: the first promise that is not kept.
    """
    import torch

    takes = getattr(REGISTRIES["heads"].get(name), "takes", "vector")
    assert takes in ("vector", "map"), f"{name}: takes {takes!r}, neither a vector nor a map"
    shape = (len(_BATCH), dimension) if takes == "vector" else (len(_BATCH), dimension, 3, 2)
    features = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    case = _Case(name, options, features, torch.tensor(_BATCH))
    heads = case.build(0)
    found = getattr(heads, "takes", None)
    assert found == takes, f"{name}: its entry takes a {takes}, the module says {found!r}"
    _check_shapes(case, heads)
    _check_rows(case, heads)
    _check_gradients(case, heads)
    _check_weights(case, heads)
    _check_masks(case, heads)


def _outputs(case: _Case, heads: "nn.Module") -> "dict[str, tuple[Tensor, Tensor]]":
    return {category: (rows, logits) for category, rows, logits in heads(case.features, case.category_B)}


def _check_shapes(case: _Case, heads: "nn.Module") -> None:
    """Every category its rows and values; an empty one nothing; one row is enough, in training too."""
    for mode in (True, False):
        found = _outputs(case, heads.train(mode))
        assert set(found) == {"k", "m"}, f"{case.name}: outputs for {sorted(found)}, not for 'k' and 'm'"
        for category, (rows, logits_nV) in found.items():
            code = TAXONOMY.category_codes[category]
            expected = [row for row, of in enumerate(_BATCH) if of == code]
            assert rows.tolist() == expected, f"{case.name}: {category!r} has the rows {rows.tolist()}"
            shape, wanted = tuple(logits_nV.shape), (len(expected), TAXONOMY.width(category))
            assert shape == wanted, f"{case.name}: logits {shape} for {category!r}, not {wanted}"
            assert bool(logits_nV.isfinite().all()), f"{case.name}: logits of {category!r} are not finite"
        ((category, rows, logits_nV),) = heads(case.features[:1], case.category_B[:1])
        assert (category, rows.tolist(), len(logits_nV)) == ("k", [0], 1), f"{case.name}: one row by itself"
    empty = heads(case.features[:2], case.category_B.new_full((2,), 1))
    assert empty == [], f"{case.name}: a category without attributes has the output {empty}"


def _check_rows(case: _Case, heads: "nn.Module") -> None:
    """In evaluation a row's logits do not depend on the rows beside it, nor on chance."""
    import torch

    heads.eval()
    whole = _outputs(case, heads)
    again = _outputs(case, heads)
    for category, (rows, logits_nV) in whole.items():
        same = torch.equal(logits_nV, again[category][1])
        assert same, f"{case.name}: {category!r} gets other logits the second time, in evaluation"
        ((_, _, alone_nV),) = heads(case.features[rows], case.category_B[rows])
        first = rows[:1]
        ((_, _, one_nV),) = heads(case.features[first], case.category_B[first])
        for what, other in (("in a batch of one category", alone_nV), ("by themselves", one_nV)):
            off = float((logits_nV[: len(other)] - other).detach().abs().max())
            assert off <= CLOSE, (
                f"{case.name}: rows of {category!r} {what} get logits that differ by {off:.2g}"
            )


def _check_gradients(case: _Case, heads: "nn.Module") -> None:
    """Every parameter is reached by the gradient of a batch that has all categories."""
    import torch

    heads.eval().zero_grad(set_to_none=True)
    generator = torch.Generator().manual_seed(2)
    loss = torch.zeros(())
    for _, logits_nV in _outputs(case, heads).values():
        loss = loss + (logits_nV * torch.randn(logits_nV.shape, generator=generator)).sum()
    torch.autograd.backward(loss)
    for name, parameter in heads.named_parameters():
        reached = parameter.grad is not None and bool((parameter.grad != 0).any())
        assert reached, f"{case.name}: the parameter {name!r} has no gradient"
    heads.zero_grad(set_to_none=True)


def _check_weights(case: _Case, heads: "nn.Module") -> None:
    """A seed gives the same weights, another one others; a state dict loads strictly, with the same logits."""
    import torch

    state, again, other = (module.state_dict() for module in (heads, case.build(0), case.build(1)))
    fresh = case.build(0).state_dict()
    same = all(torch.equal(fresh[key], again[key]) for key in fresh)
    assert same, f"{case.name}: one seed gives two sets of weights"
    drawn = any(not torch.equal(again[key], other[key]) for key in again)
    assert drawn, f"{case.name}: the seed does not change the weights"
    loaded = case.build(1)
    loaded.load_state_dict(state, strict=True)
    expected, found = _outputs(case, heads.eval()), _outputs(case, loaded.eval())
    for category, (_, logits_nV) in expected.items():
        same = torch.equal(found[category][1], logits_nV)
        assert same, f"{case.name}: other logits of {category!r} after loading its state dict"


def _check_masks(case: _Case, heads: "nn.Module") -> None:
    """What the masks of one attribute's head cover changes its logits, and no other attribute's."""
    import torch

    find: Any = getattr(heads, "masks", None)
    if find is None:
        return
    heads.eval()
    parameters = dict(heads.named_parameters())
    for category, choice in TAXONOMY.pairs():
        masks = find(category, choice.name)
        with torch.no_grad():
            before_nV = _outputs(case, heads)[category][1]
            kept = {name: parameters[name].clone() for name in masks}
            for name, mask in masks.items():
                parameters[name][mask] += 0.5
            moved_V = (_outputs(case, heads)[category][1] - before_nV).abs().amax(0) > CLOSE
            for name, value in kept.items():
                parameters[name].copy_(value)
        place = [item.name for item in TAXONOMY.choices(category)].index(choice.name)
        inside = torch.zeros_like(moved_V)
        inside[TAXONOMY.slices(category)[place]] = True
        what = f"{case.name}: the masks of '{category}/{choice.name}'"
        assert bool(moved_V[inside].all()), f"{what} do not cover its head"
        assert not bool(moved_V[~inside].any()), f"{what} cover another head too"
