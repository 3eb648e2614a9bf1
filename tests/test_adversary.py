"""Moved pictures cost more, stay within reach, and are none where nothing is asked for or known."""

import pytest
import torch
from pydantic import ValidationError

from shelfwise.models.adversary import Adversary


def linear(weight_HWC: torch.Tensor):
    return lambda images_BHWC: (images_BHWC * weight_HWC).sum()


def test_the_step_goes_up_the_loss_and_no_further_than_epsilon():
    torch.manual_seed(0)
    images = torch.randint(20, 230, (3, 8, 8, 3), dtype=torch.uint8)
    weight = torch.randn(8, 8, 3)
    loss = linear(weight)
    moved = Adversary(epsilon=4).moved(images, loss)
    away = moved - images.float()
    assert float(away.abs().max()) <= 4 + 1e-4
    assert float(loss(moved)) > float(loss(images.float()))
    # From wherever it starts, a step of 1.25 epsilon of a linear loss ends at most 0.75 epsilon short of the corner.
    assert bool((away * weight.sign() >= 4 * 0.25 - 1e-3).all())


def test_pictures_stay_pictures():
    black = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
    moved = Adversary(epsilon=30).moved(black, linear(-torch.ones(4, 4, 3)))
    assert float(moved.min()) >= 0


def test_nothing_moves_by_default_or_without_labels():
    images = torch.randint(0, 255, (2, 4, 4, 3), dtype=torch.uint8)
    assert Adversary().moved(images, linear(torch.ones(4, 4, 3))) is images
    assert Adversary(epsilon=2).moved(images, lambda moved: torch.zeros(())) is images


def test_no_gradient_is_left_in_the_weights():
    weight = torch.ones(4, 4, 3, requires_grad=True)
    Adversary(epsilon=2).moved(torch.zeros(1, 4, 4, 3), linear(weight))
    assert weight.grad is None


@pytest.mark.parametrize("options", [{"epsilon": -1}, {"step": 0}, {"step": 3}])
def test_impossible_options_are_refused(options: dict[str, float]):
    with pytest.raises(ValidationError):
        Adversary(**options)
