"""Solver: regularised softmax regressions, many at once, to their optimum.

It does not know pictures or tables. Each attribute of each category is one convex problem: weighted
cross-entropy over its labelled rows plus ``l2 / 2`` times the squared weights. All attributes of a
category share its rows, so their products are one matrix product; small categories are solved side by
side in one batch. No problem sees another: steps, line searches and curvature are kept per problem.

The method is L-BFGS (Liu and Nocedal 1989) in coordinates in which the Hessian is nearly the identity.
Rows are rotated to the principal axes of their category (for fewer rows than features, found from the
rows' Gram matrix), where the bound of Boehning (1992) on the softmax Hessian is diagonal; dividing by its
root leaves little for the quasi-Newton pairs to learn, and about 25 iterations reach the optimum.

Legend: C categories in the batch, n rows, D features, r axes, A attributes, V values packed, m pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

#: Iterations; convergence is a matter of the coordinates, not of luck, so the number is fixed.
ITERATIONS = 30
#: Kept pairs of L-BFGS.
MEMORY = 8
#: Mean curvature of a softmax as a share of the bound's 1/2.
CURVATURE = 0.25
#: Axes with less than this share of the largest variance are left out: they are rounding.
FLAT = 1e-6
#: Features (total variance 1) that are nowhere farther than this from their mean are the same but for rounding.
SAME = 1e-6
#: Logit of a value that no row states.
NEVER = -30.0


@dataclass(frozen=True, eq=False)
class Problems:
    """A batch of categories with the same number of attributes, padded to common sizes.

    Attributes:
        features_CnD: float32, padding rows zero.
        labels_CnA: int64, -1 where missing (padding rows too).
        weights_CnA: float32, row weights, 0 where missing.
        sizes: the number of values of each attribute, the largest over the batch; V is their sum.
    """

    features_CnD: torch.Tensor
    labels_CnA: torch.Tensor
    weights_CnA: torch.Tensor
    sizes: Sequence[int]


def solve(problems: Problems, l2: float, iterations: int = ITERATIONS) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the optimal weights [C, D, V] and biases [C, V] of every problem of a batch.

    Values without a labelled row get zero weights and the bias ``NEVER``.

    Args:
        problems: the batch.
        l2: strength of the penalty on the weights; biases are free.
        iterations: of L-BFGS.
    """
    real_Cn = (problems.labels_CnA >= 0).any(dim=2).float()
    count_C = real_Cn.sum(dim=1).clamp(min=1)
    mean_CD = (problems.features_CnD * real_Cn[..., None]).sum(dim=1) / count_C[:, None]
    centred_CnD = (problems.features_CnD - mean_CD[:, None]) * real_Cn[..., None]
    centred_CnD *= (centred_CnD.abs().amax(dim=(1, 2)) > SAME)[:, None, None]
    axes_CDr, spread_Cr = principal_axes(centred_CnD)
    found_CVr, bias_CV = _Search(centred_CnD @ axes_CDr, spread_Cr, problems, l2).run(iterations)
    weight_CDV = axes_CDr @ found_CVr.transpose(1, 2)
    shift_CV = (mean_CD[:, None] @ weight_CDV).squeeze(1)
    return weight_CDV, torch.where(bias_CV > NEVER, bias_CV - shift_CV, bias_CV)


def principal_axes(centred_CnD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return axes [C, D, r] in which the rows' Gram matrix is diagonal, and its diagonal [C, r].

    Flat axes are zero, with zero spread; r is the smaller of n and D.
    """
    n, dimension = centred_CnD.shape[1:]
    if n < dimension:
        spread_Cr, left_Cnr = torch.linalg.eigh(centred_CnD @ centred_CnD.transpose(1, 2))
        kept_Cr = spread_Cr > FLAT * spread_Cr[:, -1:].clamp(min=1e-30)
        scale_Cr = torch.where(kept_Cr, spread_Cr.clamp(min=1e-30).rsqrt(), 0.0)
        axes_CDr = centred_CnD.transpose(1, 2) @ (left_Cnr * scale_Cr[:, None])
    else:
        spread_Cr, axes_CDr = torch.linalg.eigh(centred_CnD.transpose(1, 2) @ centred_CnD)
        kept_Cr = spread_Cr > FLAT * spread_Cr[:, -1:].clamp(min=1e-30)
        axes_CDr = axes_CDr * kept_Cr[:, None]
    return axes_CDr, torch.where(kept_Cr, spread_Cr, 0.0)


class _Search:
    """One run of L-BFGS over a batch, with a step length of its own for every attribute."""

    def __init__(
        self, rows_Cnr: torch.Tensor, spread_Cr: torch.Tensor, problems: Problems, l2: float
    ) -> None:
        self.rows_Cnr, self.l2 = rows_Cnr, l2
        labels_CnA, self.weights_CnA = problems.labels_CnA, problems.weights_CnA
        categories, n, _ = rows_Cnr.shape
        ends = [0]
        for size in problems.sizes:
            ends.append(ends[-1] + size)
        self.parts = [slice(a, a + size) for a, size in zip(ends, problems.sizes, strict=False)]
        values = ends[-1]
        self.member_VA = torch.zeros(values, len(self.parts))
        self.target_CnV = torch.zeros(categories, n, values)
        for attribute, part in enumerate(self.parts):
            if part.start == part.stop:  # an attribute that no product states has no value yet
                continue
            self.member_VA[part, attribute] = 1
            stated_Cn = labels_CnA[:, :, attribute].clamp(min=0)
            self.target_CnV[:, :, part].scatter_(
                2, stated_Cn[..., None], self.weights_CnA[:, :, attribute, None]
            )
        self.seen_CV = self.target_CnV.sum(dim=1) > 0
        mass_CV = self.weights_CnA.sum(dim=1) @ self.member_VA.T
        mean_CV = CURVATURE * mass_CV / (labels_CnA >= 0).any(dim=2).sum(dim=1).clamp(min=1)[:, None]
        self.scale_CVr = (mean_CV[..., None] * spread_Cr[:, None] + l2).sqrt()
        self.bias_scale_CV = (CURVATURE * mass_CV + 1e-8).sqrt()

    def start(self) -> torch.Tensor:
        """Zero weights and the biases that give every value its share: [C, V, r + 1], scaled."""
        count_CV = self.target_CnV.sum(dim=1)
        log_CV = torch.where(self.seen_CV, count_CV.clamp(min=1e-30).log(), 0.0)
        seen_CA = (self.seen_CV.float() @ self.member_VA).clamp(min=1)
        bias_CV = log_CV - (log_CV @ self.member_VA / seen_CA) @ self.member_VA.T
        weights_CVr = torch.zeros_like(self.scale_CVr)
        return torch.cat([weights_CVr, (bias_CV * self.bias_scale_CV)[..., None]], dim=2)

    def value(self, point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the objective of every attribute [C, A], in double precision, and the gradient."""
        weights_CVr = point[..., :-1] / self.scale_CVr
        bias_CV = torch.where(self.seen_CV, point[..., -1] / self.bias_scale_CV, NEVER)
        logits_CnV = torch.baddbmm(bias_CV[:, None], self.rows_Cnr, weights_CVr.transpose(1, 2))
        loss_CA = torch.empty(len(point), len(self.parts), dtype=torch.float64)
        for attribute, part in enumerate(self.parts):
            log_probs_CnK = logits_CnV[:, :, part].log_softmax(dim=2)
            loss_CA[:, attribute] = -(self.target_CnV[:, :, part] * log_probs_CnK).sum(dim=(1, 2)).double()
            logits_CnV[:, :, part] = log_probs_CnK.exp_().mul_(self.weights_CnA[:, :, attribute, None])
        slope_CnV = logits_CnV.sub_(self.target_CnV)
        slope_CVr = (
            torch.bmm(slope_CnV.transpose(1, 2), self.rows_Cnr) + self.l2 * weights_CVr
        ) / self.scale_CVr
        slope_CV = slope_CnV.sum(dim=1) / self.bias_scale_CV
        gradient = torch.cat([slope_CVr, slope_CV[..., None]], dim=2) * self.seen_CV[..., None]
        penalty_CA = self.l2 / 2 * ((weights_CVr * weights_CVr).sum(dim=2) @ self.member_VA).double()
        return loss_CA + penalty_CA, gradient

    def dot(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Inner product per attribute, [C, A]."""
        return (first * second).sum(dim=2) @ self.member_VA

    def spread_out(self, per_CA: torch.Tensor) -> torch.Tensor:
        """A number per attribute, as a factor of its values' parameters: [C, V, 1]."""
        return (per_CA.float() @ self.member_VA.T)[..., None]

    def run(self, iterations: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weights [C, V, r] and biases [C, V]."""
        point = self.start()
        loss_CA, gradient = self.value(point)
        pairs: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        length_CA = torch.ones_like(loss_CA)
        gain_CA = torch.ones(loss_CA.shape)
        for _ in range(iterations):
            direction, gain_CA = self._direction(gradient, pairs, gain_CA)
            slope_CA = self.dot(gradient, direction)
            uphill_CA = slope_CA >= 0
            direction = torch.where(self.spread_out(uphill_CA) > 0, -gradient, direction)
            slope_CA = torch.where(uphill_CA, -self.dot(gradient, gradient), slope_CA)
            step = self.spread_out(length_CA) * direction
            tried_CA, tried_gradient = self.value(point + step)
            enough_CA = loss_CA + 1e-4 * length_CA * slope_CA.double() + 1e-6 * loss_CA.abs()
            taken_CA = tried_CA <= enough_CA
            taken = self.spread_out(taken_CA) > 0
            step = torch.where(taken, step, 0.0)
            change = torch.where(taken, tried_gradient - gradient, 0.0)
            bend_CA = self.dot(step, change)
            inverse_CA = torch.where(taken_CA & (bend_CA > 1e-10), 1 / bend_CA.clamp(min=1e-30), 0.0)
            pairs = [*pairs, (step, change, inverse_CA)][-MEMORY:]
            point, gradient = point + step, torch.where(taken, tried_gradient, gradient)
            loss_CA = torch.where(taken_CA, tried_CA, loss_CA)
            length_CA = torch.where(taken_CA, 1.0, length_CA * 0.4)
        bias_CV = torch.where(self.seen_CV, point[..., -1] / self.bias_scale_CV, NEVER)
        return torch.where(self.seen_CV[..., None], point[..., :-1] / self.scale_CVr, 0.0), bias_CV

    def _direction(
        self,
        gradient: torch.Tensor,
        pairs: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
        gain_CA: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The two-loop recursion, and the initial curvature it used, kept where the last step was refused."""
        direction = -gradient
        factors = []
        for step, change, inverse_CA in reversed(pairs):
            factor_CA = self.dot(step, direction) * inverse_CA
            direction = direction - self.spread_out(factor_CA) * change
            factors.append(factor_CA)
        if pairs:
            step, change, _ = pairs[-1]
            bend_CA, size_CA = self.dot(step, change), self.dot(change, change)
            gain_CA = torch.where(bend_CA > 0, bend_CA / size_CA.clamp(min=1e-30), gain_CA)
        direction = self.spread_out(gain_CA) * direction
        for (step, change, inverse_CA), factor_CA in zip(pairs, reversed(factors), strict=True):
            back_CA = self.dot(change, direction) * inverse_CA
            direction = direction + self.spread_out(factor_CA - back_CA) * step
        return direction, gain_CA
