"""Heads and losses of Numbers: every loss teaches from everywhere, and no half ever holds a price."""

from typing import Any

import numpy as np
import pytest
import torch

from shelfwise import metrics
from shelfwise.amounts import LEVELS, MEDIAN
from shelfwise.errors import UsageError
from shelfwise.models.number_heads import (
    FEW,
    NumberHeads,
    NumberOptions,
    laplace_quantiles,
    number_targets,
    prior_quantiles,
)
from shelfwise.models.number_losses import NumberObjective, laplace, smape
from shelfwise.registry import REGISTRIES, register
from shelfwise.taxonomy import Number, Taxonomy
from shelfwise.testing import check_number_loss

pytestmark = pytest.mark.usefixtures("one_thread")
PRICE = Number("price", "INR", "log", 6.5, 0.9)
PLAIN = NumberOptions(hidden=(), dropout=0.0, hide=0.0)


@pytest.mark.parametrize("name", REGISTRIES["number_loss"].names())
def test_every_registered_loss_keeps_the_contract(name: str):
    check_number_loss(name)


@pytest.mark.parametrize("options", [{"leak": 0.5}, {"leak": 0.05}])
def test_options_keep_it_too(options: dict[str, Any]):
    check_number_loss("smape", **options)


def faulty(fault: str) -> Any:
    def loss(location: Any, log_scale: Any, target: Any, spread: float) -> Any:
        rest = laplace(location.detach(), log_scale, target, spread)
        if fault == "dead below zero":  # the error of numbers that are cut off at zero
            number = torch.expm1(location * spread).clamp(min=0)
            return (number - torch.expm1(target * spread)).abs() / (number + 1).detach() + rest
        if fault == "flat far away":
            return 2 * torch.tanh((location - target).abs() * spread / 2) + rest
        if fault == "no scale":
            return (location - target).abs() + 0 * log_scale
        return laplace(location, log_scale, target, spread) + (location - location.mean()) ** 2

    return loss


@pytest.mark.parametrize("fault", ["dead below zero", "flat far away", "no scale", "rows meet"])
def test_the_contract_sees_what_breaks_it(fault: str):
    register.number_loss("faulty")(faulty(fault))
    try:
        with pytest.raises(AssertionError, match="faulty"):
            check_number_loss("faulty")
    finally:
        del REGISTRIES["number_loss"].entries["faulty"]


def test_the_loss_smape_is_the_metric():
    truth, said = np.array([12.0, 250.0, 3000.0]), np.array([15.0, 90.0, 3100.0])
    target, location = (torch.tensor(PRICE.forward(each)) for each in (truth, said))
    scale = torch.zeros(3, dtype=torch.float64)
    alone = laplace(location, scale, target, PRICE.scale)
    found = smape(location, scale, target, PRICE.scale, leak=0.0) - alone
    assert float(100 * found.mean()) == pytest.approx(metrics.smape(truth, said), rel=1e-6)
    linear = Taxonomy({"k": (Number("change", "", "linear"),)})
    with pytest.raises(UsageError, match=r"'change' is: take 'laplace'"):
        NumberObjective(linear, REGISTRIES["number_loss"].spec("smape"), 1.0)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_a_price_is_never_rounded_to_a_half(half: torch.dtype):
    """2,048.37 lies between two halves that are 2 apart; the head says it under autocast as it does without."""
    heads = NumberHeads(1, 8, 2, PLAIN).eval()
    last: Any = heads.of[0][-1]  # type: ignore[index]
    with torch.no_grad():
        last.weight.zero_()
        last.bias[0] = float(PRICE.forward(2048.37))
    features_BD, category_B = torch.randn(3, 8), torch.tensor([0, 1, -1])
    with torch.autocast("cpu", dtype=half):
        said_BK2 = heads(features_BD.to(half), category_B)
    assert said_BK2.dtype is torch.float32
    location_B, scale_B = said_BK2[:, 0].detach().numpy().T
    assert laplace_quantiles(PRICE, location_B, scale_B)[:, MEDIAN] == pytest.approx(2048.37, abs=0.01)
    rounded = said_BK2[:, 0, 0].detach().to(half).float().numpy()
    assert (np.abs(laplace_quantiles(PRICE, rounded, scale_B)[:, MEDIAN] - 2048.37) > 0.25).all()


def test_autocast_changes_no_head_and_no_loss():
    torch.manual_seed(0)
    heads = NumberHeads(2, 16, 3, NumberOptions(dropout=0.0, hide=0.0))
    features_BD, category_B = torch.randn(6, 16), torch.tensor([0, 1, 2, 0, -1, 1])
    taxonomy = Taxonomy({name: (PRICE, Number("weight")) for name in "abc"})
    objective = NumberObjective(taxonomy, REGISTRIES["number_loss"].spec("laplace"), 1.0)
    target_BK = torch.randn(6, 2)
    plain_BK2 = heads(features_BD, category_B)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast_BK2 = heads(features_BD, category_B)
        cast = objective.sums(cast_BK2, target_BK, category_B.clamp(min=0)).loss
    assert torch.equal(plain_BK2, cast_BK2)
    assert torch.equal(cast, objective.sums(plain_BK2, target_BK, category_B.clamp(min=0)).loss)


def test_heads_learn_a_distribution_by_category():
    """One category's prices vary ten times as much as the other's; a third category has none."""
    rng = np.random.default_rng(0)
    category = rng.integers(0, 2, 600)
    features = rng.normal(size=(600, 16)).astype(np.float32)
    spread = np.where(category == 0, 0.1, 1.0)
    target = (0.8 * features[:, 0] + category + spread * rng.laplace(size=600)).astype(np.float32)
    taxonomy = Taxonomy(dict.fromkeys("ab", (PRICE,)) | {"c": ()})
    objective = NumberObjective(taxonomy, REGISTRIES["number_loss"].spec("laplace"), 1.0)
    torch.manual_seed(0)
    heads = NumberHeads(1, 16, 3, NumberOptions(hidden=(32,), dropout=0.0))
    given = torch.from_numpy(features), torch.from_numpy(category)
    adam = torch.optim.Adam(heads.parameters(), lr=1e-2)
    for _ in range(150):
        sums = objective.sums(heads(*given), torch.from_numpy(target)[:, None], given[1])
        adam.zero_grad()
        (sums.loss / sums.labels).backward()
        adam.step()
    with torch.no_grad():
        location, log_scale = heads.eval()(*given)[:, 0].numpy().T
    off = np.abs(location - target)
    assert off[category == 0].mean() < 0.35 < off[category == 1].mean()
    scale = np.exp(log_scale)
    assert 0.5 < scale[category == 1].mean() < 1.5
    assert scale[category == 0].mean() < 0.4 * scale[category == 1].mean()
    quantiles = laplace_quantiles(PRICE, location, log_scale)
    truth = PRICE.inverse(target)
    inside = (quantiles[:, 2] <= truth) & (truth <= quantiles[:, -3])
    assert inside.mean() == pytest.approx(LEVELS[-3] - LEVELS[2], abs=0.06)
    with torch.no_grad():
        unknown = heads(given[0][:1].repeat(2, 1), torch.tensor([-1, 1]))
    assert not torch.equal(unknown[0], unknown[1])


def test_quantiles_are_those_of_the_distribution():
    from scipy import stats

    location, log_scale = np.array([-1.0, 0.0, 2.0]), np.log([0.1, 1.0, 0.5])
    found = laplace_quantiles(Number("x", "", "linear", 3.0, 2.0), location, log_scale)
    for row in range(3):
        expected = 3 + 2 * stats.laplace.ppf(LEVELS, location[row], np.exp(log_scale[row]))
        assert found[row] == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert np.array_equal(found[:, MEDIAN], (3 + 2 * location).astype(np.float32))


@pytest.mark.parametrize("transform", ["log", "log1p", "linear"])
def test_quantiles_ascend_and_are_finite_however_wild(transform: Any):
    number = Number("x", "", transform, 2.0, 3.0)
    location, log_scale = np.array([-80.0, -3.0, 0.0, 60.0]), np.array([3.0, -3.9, 0.0, 4.0])
    found = laplace_quantiles(number, location, log_scale)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert (np.diff(found, axis=1) >= 0).all()
    least = {"log": 1e-45, "log1p": 0.0, "linear": -np.inf}[transform]
    assert (found >= least).all()


def test_where_nothing_is_known_the_category_says_it():
    stated = np.concatenate([np.full(FEW, 10.0), np.full(FEW - 1, 90.0), [np.nan]])
    category = np.array([0] * FEW + [1] * FEW)
    prior = prior_quantiles(PRICE, stated, category, 3)
    assert prior.shape == (4, len(LEVELS))
    assert (prior[0] == 10).all()
    for few in (1, 2, 3):
        assert prior[few] == pytest.approx(np.quantile(stated[:-1], LEVELS))


def test_targets_are_standardised_and_missing_ones_stay_missing():
    found = number_targets(
        [PRICE, Number("w", "", "log1p")], [np.array([np.exp(6.5), np.nan]), np.array([0.0, 1.0])]
    )
    assert found.dtype == np.float32
    assert found[0].tolist() == [0, 0]
    assert np.isnan(found[1, 0])
    assert found[1, 1] == pytest.approx(np.log(2))
