"""MMD: how far two samples of features lie apart, as a penalty with a gradient.

It does not know where features come from. The squared maximum mean discrepancy (Gretton et al. 2012) is 0 for two
samples of one distribution, on average, and above 0 for samples of two. Legend: N and M rows of a sample, D features,
K kernels.
"""

import torch
from pydantic import Field

from shelfwise.config import Options
from shelfwise.errors import UsageError

#: Bandwidths are the median distance times 2 to these powers.
POWERS = (-2, -1, 0, 1, 2)


def mmd2(x_ND: torch.Tensor, y_MD: torch.Tensor, *, bandwidths: torch.Tensor | None = None) -> torch.Tensor:
    """Return the unbiased estimate of the squared discrepancy, a scalar that may fall below 0.

    The kernel is the mean of Gaussians ``exp(-d^2 / (2 s^2))`` of several bandwidths s.

    Args:
        x_ND: a sample of two rows or more.
        y_MD: another.
        bandwidths: [K]; by default from the median distance of this very pair of samples, see
            ``median_bandwidths``. They have no gradient.

    Raises:
        UsageError: shapes that do not fit, or a sample of fewer than two rows.
    """
    if x_ND.ndim != 2 or y_MD.ndim != 2 or x_ND.shape[1] != y_MD.shape[1]:
        raise UsageError(f"two samples are [N, D] and [M, D], not {list(x_ND.shape)} and {list(y_MD.shape)}")
    n, m = len(x_ND), len(y_MD)
    if n < 2 or m < 2:
        raise UsageError(f"the unbiased discrepancy needs two rows of each sample, not {n} and {m}")
    with torch.autocast(x_ND.device.type, enabled=False):
        squares = _squares(torch.cat([x_ND, y_MD]))
        widths_K = _widths(squares.detach()) if bandwidths is None else bandwidths.detach().to(squares)
        kernel = torch.stack([torch.exp(squares / (-2 * width * width)) for width in widths_K]).mean(dim=0)
        # A row's kernel with itself is left out: that is what makes the estimate unbiased.
        kernel = kernel - torch.diag(torch.diagonal(kernel))
        inside_x, inside_y = kernel[:n, :n].sum() / (n * (n - 1)), kernel[n:, n:].sum() / (m * (m - 1))
        return inside_x + inside_y - 2 * kernel[:n, n:].mean()


def median_bandwidths(x_ND: torch.Tensor, y_MD: torch.Tensor) -> torch.Tensor:
    """Return [K], the median distance between any two rows of both samples, times 2 to the ``POWERS``."""
    return _widths(_squares(torch.cat([x_ND, y_MD]).detach()))


def _squares(z_ND: torch.Tensor) -> torch.Tensor:
    """Squared distances [N, N] in float32 or wider, about the mean: large offsets would cost digits."""
    z_ND = z_ND if z_ND.dtype == torch.float64 else z_ND.float()
    z_ND = z_ND - z_ND.detach().mean(dim=0)
    norm_N = (z_ND * z_ND).sum(dim=1)
    return (norm_N[:, None] + norm_N[None, :] - 2 * (z_ND @ z_ND.T)).clamp(min=0)


def _widths(squares_NN: torch.Tensor) -> torch.Tensor:
    """Bandwidths from the distances of different rows; 1 in the middle where those are all 0."""
    count = len(squares_NN)
    above = torch.triu_indices(count, count, offset=1, device=squares_NN.device)
    median = squares_NN[above[0], above[1]].sqrt().median()
    median = torch.where(median > 0, median, torch.ones_like(median))
    return median * 2.0 ** torch.tensor(POWERS, dtype=median.dtype, device=median.device)


class MMD(Options):
    """A penalty that draws features of the training pictures and of an unlabelled catalogue together.

    Attributes:
        weight: of the squared discrepancy beside the mean loss; 0 for none.
    """

    weight: float = Field(default=0.0, ge=0)

    def loss(self, features_source_BD: torch.Tensor, features_target_BD: torch.Tensor) -> torch.Tensor:
        """Return the penalty, a scalar of the size of a mean loss; see ``Sums.plus``.

        Maps [B, D, h, w] are pooled first. A batch of fewer than two pictures has no penalty.
        """
        source_BD, target_BD = (
            part.mean(dim=(2, 3)) if part.ndim == 4 else part
            for part in (features_source_BD, features_target_BD)
        )
        if not self.weight or min(len(source_BD), len(target_BD)) < 2:
            return source_BD.float().sum() * 0
        return self.weight * mmd2(source_BD, target_BD)
