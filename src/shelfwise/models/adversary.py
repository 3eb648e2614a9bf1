"""Adversary: training pictures moved by one step towards what the network gets wrong.

It does not know networks or labels. The step is the fast gradient sign method (Goodfellow et al. 2015,
https://arxiv.org/abs/1412.6572) from a random place within reach (Wong et al. 2020, https://arxiv.org/abs/2001.03994).
Legend: B pictures, H height, W width.
"""

from collections.abc import Callable

import torch
from pydantic import Field

from shelfwise.config import Options


class Adversary(Options):
    """How far pictures are moved.

    Attributes:
        epsilon: grey levels, of 255, by which a pixel may change; 0 for none. Every step of training takes up to
            twice as long. A short fine-tune (fashion, one seed) with 2 scored +0.022 [0.001, 0.047] on photos as they
            are, -0.025 [-0.048, -0.006] on dark ones, and no kind of bad photo but small ones gained.
        step: of the sign of the gradient, as a share of ``epsilon``.
    """

    epsilon: float = Field(default=0.0, ge=0)
    step: float = Field(default=1.25, gt=0, le=2)

    def moved(self, images_BHWC: torch.Tensor, loss: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Return pictures within reach that cost more.

        Args:
            images_BHWC: uint8 or float in 0..255.
            loss: of such pictures, a scalar.
        """
        if not self.epsilon:
            return images_BHWC
        plain = images_BHWC.detach().float()
        away = torch.empty_like(plain).uniform_(-self.epsilon, self.epsilon).requires_grad_()
        cost = loss(plain + away)
        if not cost.requires_grad:  # a batch without a label has nothing to be wrong about
            return images_BHWC
        (gradient,) = torch.autograd.grad(cost, away)
        reached = away.detach() + self.step * self.epsilon * gradient.sign()
        return (plain + reached.clamp_(-self.epsilon, self.epsilon)).clamp_(0, 255)
