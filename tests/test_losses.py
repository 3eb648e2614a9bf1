"""Losses: hand-worked values, gradients of every registered loss, masks and class weights."""

import math

import numpy as np
import pytest
import torch

from conftest import Toy
from shelfwise.models.losses import (
    Objective,
    class_weights,
    cross_entropy,
    focal,
    padded_columns,
    value_counts,
)
from shelfwise.registry import REGISTRIES, Spec
from shelfwise.taxonomy import Choice, Taxonomy
from shelfwise.testing import check_loss

TAXONOMY = Taxonomy(
    {
        "k": (Choice("a", ("p", "q")), Choice("b", ("r", "s", "t"))),
        "m": (Choice("c", ("x", "y")),),
        "empty": (),
    }
)
INF = float("inf")


@pytest.mark.parametrize("name", REGISTRIES["loss"].names())
def test_every_registered_loss_teaches(name: str):
    check_loss(name)


@pytest.mark.parametrize(
    ("name", "options"),
    [("cross_entropy", {"label_smoothing": 0.1}), ("focal", {"gamma": 0.0}), ("focal", {"gamma": 1.5})],
)
def test_losses_teach_with_options(name: str, options: dict[str, float]):
    check_loss(name, **options)


def test_the_check_can_fail():
    from shelfwise.registry import register

    @register.loss("lazy")
    def lazy(logits_MC: torch.Tensor, target_M: torch.Tensor) -> torch.Tensor:
        """Says the same whatever it is given."""
        return logits_MC.masked_fill(logits_MC.isinf(), 0).sum(dim=1) * 0 + 1

    try:
        with pytest.raises(AssertionError, match="lazy: a labelled cell has the gradient"):
            check_loss("lazy")
    finally:
        del REGISTRIES["loss"].entries["lazy"]


def test_cross_entropy_by_hand():
    logits = torch.log(torch.tensor([[0.25, 0.75, 0.0], [0.2, 0.3, 0.5]]))
    assert cross_entropy(logits, torch.tensor([0, 2])).tolist() == pytest.approx([math.log(4), math.log(2)])
    smooth = cross_entropy(logits, torch.tensor([0, 2]), label_smoothing=0.3)
    first = 0.7 * math.log(4) + 0.3 * (math.log(4) + math.log(4 / 3)) / 2
    second = 0.7 * math.log(2) - 0.3 * (math.log(0.2) + math.log(0.3) + math.log(0.5)) / 3
    assert smooth.tolist() == pytest.approx([first, second])


def test_focal_by_hand():
    logits = torch.log(torch.tensor([[0.25, 0.75], [0.9, 0.1]]))
    got = focal(logits, torch.tensor([0, 0]), gamma=2.0).tolist()
    assert got == pytest.approx([0.75**2 * math.log(4), 0.1**2 * -math.log(0.9)], rel=1e-5)
    assert focal(logits, torch.tensor([0, 0]), gamma=0.0).tolist() == pytest.approx(
        [math.log(4), -math.log(0.9)]
    )


def test_a_sure_answer_has_a_finite_gradient():
    for name in REGISTRIES["loss"]:
        logits = torch.tensor([[60.0, -60.0, -INF], [-60.0, 60.0, -INF]], requires_grad=True)
        REGISTRIES["loss"].get(name)(logits, torch.tensor([0, 0])).sum().backward()
        assert logits.grad is not None
        assert torch.isfinite(logits.grad[:, :2]).all(), name


def test_class_weights_have_mean_one_over_labels():
    counts = np.array([90, 9, 1, 0])
    assert class_weights(counts, 0).tolist() == [1, 1, 1, 0]
    for power in (0.5, 0.75, 1.0):
        weight = class_weights(counts, power)
        assert (weight * counts).sum() / counts.sum() == pytest.approx(1)
        assert weight[1] / weight[0] == pytest.approx(10**power)
    assert class_weights([30, 10], 1).tolist() == pytest.approx([2 / 3, 2])
    assert class_weights([0, 0], 1).tolist() == [0, 0]


def test_the_objective_is_the_mean_over_labelled_cells():
    objective = Objective(TAXONOMY, Spec("loss", "cross_entropy"))
    k = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    m = torch.randn(2, 2, generator=torch.Generator().manual_seed(2))
    labels_k, labels_m = torch.tensor([[1, -1], [-1, -1], [0, 2]]), torch.tensor([[-1], [1]])
    got = float(objective([("k", k, labels_k), ("m", m, labels_m)]))
    parts = [
        -k[0, :2].log_softmax(0)[1],
        -k[2, :2].log_softmax(0)[0],
        -k[2, 2:].log_softmax(0)[2],
        -m[1].log_softmax(0)[1],
    ]
    assert got == pytest.approx(float(torch.stack(parts).mean()), rel=1e-6)
    nothing = objective([("k", k, torch.full((3, 2), -1))])
    assert float(nothing) == 0


def test_the_objective_weighs_classes():
    counts = {"k": np.array([30, 10, 5, 5, 0]), "m": np.array([4, 4]), "empty": np.zeros(0, np.int64)}
    objective = Objective(TAXONOMY, Spec("loss", "cross_entropy"), counts=counts, power=1.0)
    logits = torch.zeros(1, 5)
    rare = float(objective([("k", logits, torch.tensor([[1, -1]]))]))
    often = float(objective([("k", logits, torch.tensor([[0, -1]]))]))
    assert rare == pytest.approx(2 * math.log(2))
    assert often == pytest.approx(2 / 3 * math.log(2))


def test_an_unknown_option_is_refused_before_training():
    from shelfwise.errors import UsageError

    with pytest.raises(UsageError, match="no option 'gama'"):
        REGISTRIES["loss"].spec("focal", gama=2.0)


def test_padded_columns():
    gather, real = padded_columns(TAXONOMY.slices("k"))
    assert gather.tolist() == [[0, 1, 0], [2, 3, 4]]
    assert real.tolist() == [[True, True, False], [True, True, True]]


def test_value_counts(toy: Toy):
    counts = value_counts(toy.catalog, "Plates")
    frame = toy.catalog.frame.filter(toy.catalog.frame["category"] == "Plates")
    by_hand = [
        (frame[choice.name] == value).sum()
        for choice in toy.catalog.taxonomy.choices("Plates")
        for value in choice.values
    ]
    assert counts.tolist() == by_hand
