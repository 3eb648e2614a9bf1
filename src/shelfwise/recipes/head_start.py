"""Head start: linear heads begin as the optimum on features that nobody has tuned yet.

It does not know how a network is trained afterwards. Tuning a network under heads that are drawn at random distorts
its features before the heads have settled; with heads that fit them already it need not (Kumar et al. 2022,
"Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution").
Legend: N products, D features, r axes, V values packed.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shelfwise.catalog import Catalog
from shelfwise.errors import UsageError
from shelfwise.models.heads import CategoryHeads, Heads
from shelfwise.models.towers import one_thread
from shelfwise.predictions import Machine
from shelfwise.recipes.probe import Probe
from shelfwise.recipes.tuned_network import Standardise, TunedNetwork

if TYPE_CHECKING:
    from shelfwise.recipes.tuned import Tuned

#: Principal axes that the optimum is searched in.
AXES = 768


def can_start(network: TunedNetwork) -> bool:
    """Whether the heads of a network are linear ones on standardised vectors."""
    heads = network.heads
    return (
        isinstance(heads, Heads)
        and isinstance(network.norm, Standardise)
        and all(isinstance(part, CategoryHeads) and not part.layers for part in heads.of.values())
    )


def start_heads(tuned: "Tuned", train: Catalog, machine: Machine, *, l2: float, class_weight: float) -> None:
    """Give the heads of an untrained network the optimum on its features, and its norm their mean and spread.

    Args:
        tuned: the network, changed in place.
        train: the products to learn from, their categories as in the network's taxonomy.
        machine: where features are computed.
        l2: strength of the penalty, with features scaled to a total variance of 1.
        class_weight: power of the class weights.

    Raises:
        UsageError: heads that are not linear.
    """
    network = tuned.network
    if not can_start(network) or not isinstance(network.norm, Standardise):
        raise UsageError(
            'start = "probe" is for heads = "linear" with standardise = true; take start = "random" for others'
        )
    vectors_ND, errors = tuned.vectors(train, machine)
    kept = np.setdiff1d(np.arange(len(train)), list(errors))
    vectors_ND = tuned.views(vectors_ND[kept])[0][0].astype(np.float32)
    with one_thread(), torch.no_grad():
        mean_D = vectors_ND.mean(axis=0, dtype=np.float64)
        variance_D = vectors_ND.var(axis=0, dtype=np.float64)
        scaled_ND = torch.from_numpy(
            ((vectors_ND - mean_D) / np.sqrt(variance_D + network.norm.eps)).astype(np.float32)
        )
        gram_DD = (scaled_ND.T @ scaled_ND).double()  # single precision fails where products are few
        axes_Dr = torch.linalg.eigh(gram_DD)[1].flip(1)[:, : min(AXES, len(scaled_ND))].float()
        axes_Dr = axes_Dr / scaled_ND.shape[1] ** 0.5
        solved = Probe(l2=l2, class_weight=class_weight).solve_heads(
            train.select(kept), (scaled_ND @ axes_Dr).numpy(), machine
        )
        network.norm.running_mean.copy_(torch.from_numpy(mean_D))  # type: ignore[union-attr]
        network.norm.running_var.copy_(torch.from_numpy(variance_D))  # type: ignore[union-attr]
        network.norm.settled = True
        for category, (weight_rV, bias_V) in solved:
            part: Any = network.heads.of[str(tuned.taxonomy.category_codes[category])]  # type: ignore[index]
            part.last_weight.copy_(axes_Dr @ torch.from_numpy(weight_rV))
            part.last_bias.copy_(torch.from_numpy(bias_V))
