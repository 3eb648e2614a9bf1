"""Distillation: learning from a teacher's probabilities, attribute by attribute.

It does not know who the teacher is or how its probabilities were found. Legend: B products of a batch, n those of
one category, A attributes, V their values packed side by side, C the most values of any attribute.
"""

from dataclasses import dataclass

import torch

from shelfwise.errors import UsageError


@dataclass(frozen=True, eq=False)
class Teacher:
    """What a teacher says of the products of a batch.

    Attributes:
        probs_BV: float [B, most values of any category], the packed probabilities of each product's own category
            from the first column on; NaN or 0 at every value of an attribute where the teacher has nothing to say.
        temperature: T of Hinton, Vinyals and Dean 2015; above 1 the small probabilities count for more.
        weight: the share of the loss that is the teacher's, where a cell has both a label and a teacher.
    """

    probs_BV: torch.Tensor
    temperature: float = 2.0
    weight: float = 0.5

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise UsageError(f"a teacher's temperature is above 0, not {self.temperature}")
        if not 0 <= self.weight <= 1:
            raise UsageError(f"a teacher's weight is a share from 0 to 1, not {self.weight}")

    def to(self, device: torch.device | str) -> "Teacher":
        """Return the same on another device."""
        return Teacher(self.probs_BV.to(device, non_blocking=True), self.temperature, self.weight)


def distillation(
    logits_nAC: torch.Tensor, probs_nAC: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return [n, A], the divergence from the teacher of each cell, and whether the teacher says anything of it.

    It is KL(teacher || student), both at the temperature, times the temperature squared, which keeps gradients of the
    size that they have at 1 (Hinton, Vinyals and Dean 2015).

    Args:
        logits_nAC: ``-inf`` at values an attribute does not have.
        probs_nAC: the teacher's; all 0 or NaN where it has nothing to say.
        temperature: of both sides.
    """
    real_nAC = logits_nAC > float("-inf")
    soft_nAC = probs_nAC.float().nan_to_num(nan=0.0).clamp(min=0).masked_fill(~real_nAC, 0)
    total_nA1 = soft_nAC.sum(dim=2, keepdim=True)
    taught_nA = total_nA1.squeeze(2) > 0
    soft_nAC = (soft_nAC / total_nA1.clamp(min=1e-30)) ** (1 / temperature)
    soft_nAC = soft_nAC / soft_nAC.sum(dim=2, keepdim=True).clamp(min=1e-30)
    log_probs_nAC = (logits_nAC / temperature).log_softmax(dim=2).masked_fill(~real_nAC, 0)
    divergence_nA = (torch.xlogy(soft_nAC, soft_nAC) - soft_nAC * log_probs_nAC).sum(dim=2)
    return torch.where(taught_nA, divergence_nA * temperature**2, 0.0), taught_nA
