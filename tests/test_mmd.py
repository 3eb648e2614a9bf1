"""MMD: against a double loop, without bias, with a gradient, and above 0 for samples that differ."""

import math

import pytest
import torch

from shelfwise.errors import UsageError
from shelfwise.models.losses import Sums
from shelfwise.models.mmd import MMD, median_bandwidths, mmd2

SEEDS = 200


def sample(rows: int, seed: int, *, shift: float = 0.0, spread: float = 1.0, width: int = 6) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=draw) * spread + shift


def by_hand(x: torch.Tensor, y: torch.Tensor, widths: list[float]) -> float:
    def kernel(a: torch.Tensor, b: torch.Tensor) -> float:
        square = sum((float(p) - float(q)) ** 2 for p, q in zip(a, b, strict=True))
        return sum(math.exp(-square / (2 * s * s)) for s in widths) / len(widths)

    n, m = len(x), len(y)
    xx = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(kernel(a, b) for a in x for b in y) / (n * m)


def test_it_is_the_double_loop():
    x, y = sample(5, 1), sample(7, 2, shift=0.5)
    widths = [0.5, 1.0, 3.0]
    assert float(mmd2(x, y, bandwidths=torch.tensor(widths))) == pytest.approx(
        by_hand(x, y, widths), abs=1e-6
    )
    median = torch.pdist(torch.cat([x, y])).median()
    expected = [float(median) * 2.0**i for i in (-2, -1, 0, 1, 2)]
    assert median_bandwidths(x, y).tolist() == pytest.approx(expected, rel=1e-5)
    assert float(mmd2(x, y)) == pytest.approx(by_hand(x, y, expected), abs=1e-6)
    assert float(mmd2(x, y)) == pytest.approx(float(mmd2(y, x)), abs=1e-7)


def test_an_offset_of_both_samples_costs_no_digits():
    x, y = sample(20, 1), sample(20, 2, shift=0.3)
    assert float(mmd2(x + 1000, y + 1000)) == pytest.approx(float(mmd2(x, y)), abs=1e-4)


def test_two_samples_of_one_distribution_are_zero_on_average():
    found = torch.stack([mmd2(sample(16, 2 * s), sample(24, 2 * s + 1)) for s in range(SEEDS)])
    error = float(found.std()) / SEEDS**0.5
    assert abs(float(found.mean())) < 3 * error
    assert bool((found < 0).any()), "an estimate without bias falls below 0 about as often as above"
    # The biased estimate, with each row's kernel with itself, would be far off.
    assert 3 * error < 0.3 / 16


@pytest.mark.parametrize("other", [{"shift": 0.7}, {"spread": 2.5}])
def test_two_distributions_are_apart(other: dict[str, float]):
    found = torch.stack([mmd2(sample(32, 2 * s), sample(32, 2 * s + 1, **other)) for s in range(40)])
    assert float(found.mean()) > 10 * float(found.std()) / 40**0.5
    assert bool((found > 0).all())


def test_the_gradient_draws_the_samples_together():
    x, y = sample(24, 0, shift=1.5).requires_grad_(), sample(24, 1)
    (grad,) = torch.autograd.grad(mmd2(x, y), x)
    assert float(grad.norm(dim=1).min()) > 1e-4, "every row is drawn"
    assert float(grad.sum(dim=0).min()) > 0, "a step down moves the shifted sample back in every direction"
    moved = x.detach().clone()
    for _ in range(60):
        moved.requires_grad_()
        (step,) = torch.autograd.grad(mmd2(moved, y), moved)
        moved = (moved - 20 * step).detach()
    assert mmd2(moved, y).item() < 0.1 * mmd2(x, y).item()


def test_the_gradient_is_right():
    x, y = sample(4, 0, width=3).double().requires_grad_(), sample(5, 1, width=3).double().requires_grad_()
    widths = torch.tensor([0.5, 2.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a, b: mmd2(a, b, bandwidths=widths), (x, y))


def test_equal_rows_have_a_finite_gradient():
    x = torch.ones(4, 3, requires_grad=True)
    value = mmd2(x, torch.ones(4, 3))
    value.backward()
    assert float(value.detach()) == pytest.approx(0, abs=1e-6)
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())


def test_it_is_computed_in_float32_under_autocast():
    x, y = sample(16, 0), sample(16, 1, shift=0.2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert float(mmd2(x, y)) == float(mmd2(x, y))
        inside = mmd2(x, y)
    assert inside.dtype == torch.float32
    assert float(inside) == pytest.approx(float(mmd2(x, y)), abs=1e-7)


def test_what_does_not_fit_is_refused():
    with pytest.raises(UsageError, match="two rows of each sample, not 1 and 5"):
        mmd2(sample(1, 0), sample(5, 1))
    with pytest.raises(UsageError, match=r"not \[4, 6\] and \[4, 5\]"):
        mmd2(sample(4, 0), sample(4, 1, width=5))


def test_the_penalty():
    x, y = sample(8, 0), sample(8, 1, shift=1.0)
    assert float(MMD(weight=0.5).loss(x, y)) == pytest.approx(0.5 * float(mmd2(x, y)))
    assert float(MMD().loss(x, y)) == 0
    assert float(MMD(weight=1.0).loss(x[:1], y)) == 0
    maps = x[:, :, None, None] + torch.tensor([-1.0, 1.0])[None, None, None, :]
    assert float(MMD(weight=1.0).loss(maps, y)) == pytest.approx(float(mmd2(x, y)), abs=1e-6)


def test_a_penalty_is_added_to_the_mean_loss():
    sums = Sums(torch.tensor(12.0), torch.tensor(4.0), torch.zeros(1), torch.zeros(1))
    more = sums.plus(torch.tensor(0.5))
    assert float(more.loss / more.labels) == pytest.approx(3.5)
