"""The contract of registered number losses, checked.

It knows no recipe and how no loss works inside. Each check raises ``AssertionError`` with a sentence that says what was
promised and what was found.
Legend: M cells, B rows, K Numbers.
"""

import math
from typing import TYPE_CHECKING, Any

from shelfwise.registry import REGISTRIES
from shelfwise.taxonomy import Number, Taxonomy

if TYPE_CHECKING:
    from torch import Tensor

#: Of these numbers the first is always above zero, the second never below.
TAXONOMY = Taxonomy(
    {
        "k": (Number("price", "INR", "log", 6.0, 0.8), Number("weight", "", "log1p", 2.0, 1.5)),
        "m": (Number("price", "INR", "log", 6.0, 0.8),),
    }
)
#: How far predictions are from what is stated, in standard units: a price of e^-60 and one of e^60 are among them.
AWAY = (0.01, 0.3, 2.0, 20.0, 90.0)


def check_number_loss(name: str, **options: Any) -> None:
    """Make sure that a registered number loss teaches from everywhere, and that a number not stated teaches nothing.

    However far a prediction is off, on either side, its location is pulled towards what is stated by a gradient that
    is not zero: no number is too small, too large, zero or below zero. Among scales one near the error is the cheapest,
    so that the quantiles mean something. Losses of rows do not depend on each other. Through the objective a number
    that is not stated, or that the category does not have, adds nothing.

    Args:
        name: the registered loss.
        options: its options.

    Raises:
        AssertionError: the first promise that is not kept.
    """
    import torch

    spec = REGISTRIES["number_loss"].spec(name, **options)
    entry = REGISTRIES["number_loss"].get(name)

    def losses(location_M: "Tensor", log_scale_M: "Tensor", target_M: "Tensor") -> "Tensor":
        found: Tensor = entry(location_M, log_scale_M, target_M, 0.8, **options)
        assert found.shape == target_M.shape, (
            f"{name}: {tuple(found.shape)} losses of {tuple(target_M.shape)} cells"
        )
        assert bool(found.isfinite().all()), f"{name}: a loss is not finite: {found.tolist()}"
        return found

    target_M = torch.full((2 * len(AWAY),), 0.25)
    location_M = (target_M + torch.tensor([*AWAY, *(-away for away in AWAY)])).requires_grad_()
    log_scale_M = torch.full_like(target_M, -0.5)
    whole_M = losses(location_M, log_scale_M, target_M)
    whole_M.sum().backward()  # type: ignore[no-untyped-call]
    grad_M = location_M.grad
    assert grad_M is not None, f"{name}: gives no gradient at all"
    for location, gradient in zip(location_M.tolist(), grad_M.tolist(), strict=True):
        right = abs(gradient) > 1e-4 and math.copysign(1, gradient) == math.copysign(1, location - 0.25)
        assert right, f"{name}: at {location:.4g}, with 0.25 stated, the gradient is {gradient:.3g}"
    for at in range(len(target_M)):
        here = slice(at, at + 1)
        alone = losses(location_M[here], log_scale_M[here], target_M[here])
        same = torch.allclose(alone, whole_M[here])
        assert same, f"{name}: a cell's loss depends on the cells beside it"
    tried = torch.linspace(-3, 3, 121)
    costs = losses(torch.full_like(tried, 0.75), tried, torch.full_like(tried, 0.25))
    best = float(tried[int(costs.argmin())])
    assert 0.2 < math.exp(best) < 1.2, (
        f"{name}: with an error of 0.5 the cheapest scale is {math.exp(best):.3g}"
    )
    _check_masks(name, spec)


def _check_masks(name: str, spec: Any) -> None:
    """Through the objective: what is not stated, or no attribute of the category, adds nothing."""
    import torch

    from shelfwise.models.number_losses import NumberObjective

    objective = NumberObjective(TAXONOMY, spec, 2.0)
    pairs = objective.pairs
    assert pairs == (("k", "price"), ("k", "weight"), ("m", "price")), f"{name}: the pairs are {pairs}"
    none = float("nan")
    target_BK = torch.tensor([[0.1, none], [none, none], [-0.4, 7.0], [0.3, 0.2]])
    category_B = torch.tensor([0, 0, 1, 0])
    said_BK2 = torch.randn(4, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    sums = objective.sums(said_BK2, target_BK, category_B)
    sums.loss.backward()  # type: ignore[no-untyped-call]
    assert said_BK2.grad is not None
    reached = (said_BK2.grad != 0).any(dim=2).tolist()
    wanted = [[True, False], [False, False], [True, False], [True, True]]
    assert reached == wanted, f"{name}: gradients reach {reached}, not {wanted}"
    assert sums.pair_labels.tolist() == [2, 1, 1], f"{name}: counts {sums.pair_labels.tolist()} labels"
    assert float(sums.labels) == 8, f"{name}: with the weight 2, four numbers are {float(sums.labels)} labels"
    total = 2 * float(sums.pair_loss.sum())
    assert abs(float(sums.loss.detach()) - total) < 1e-4, (
        f"{name}: the pairs' losses do not add up to the whole"
    )
