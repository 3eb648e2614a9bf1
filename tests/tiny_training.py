"""A tiny network with packed heads, its batches and a step, for tests of training; needs torch only."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shelfwise.train.anatomy import Anatomy, Pair

#: Attributes with three values each.
PAIRS: tuple[Pair, ...] = (("Shirts", "colour"), ("Shirts", "sleeve"), ("Shoes", "colour"))
VALUES, WIDTH, SIDE = 3, 6, 5


class Heads(nn.Module):
    """Hidden layers of all heads in one tensor, their last layers in another."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(WIDTH, len(PAIRS), 4) / 2)
        self.biases = nn.Parameter(torch.zeros(len(PAIRS), 1, 4))
        self.last = nn.Parameter(torch.randn(4, len(PAIRS) * VALUES) / 2)
        self.dropout = nn.Dropout(0.2)

    def forward(self, features_BD: Tensor) -> Tensor:
        hidden_BAH = torch.einsum("bd,dah->bah", features_BD, self.weights) + self.biases[:, 0]
        last_HAV = self.last.view(4, len(PAIRS), VALUES)
        return torch.einsum("bah,hav->bav", self.dropout(hidden_BAH.relu()), last_HAV)


class Tiny(nn.Module):
    """A tower of a convolution with batch norm and a linear layer, then heads."""

    def __init__(self, seed: int = 0, norm: str = "batch", dropout: float = 0.2) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.tower = nn.ModuleDict(
                {
                    "stem": nn.Conv2d(3, 4, 3),
                    "norm": nn.BatchNorm2d(4) if norm == "batch" else nn.GroupNorm(1, 4),
                    "last": nn.Linear(4, WIDTH),
                }
            )
            self.heads = Heads()
        self.heads.dropout.p = dropout

    def forward(self, images_BCHW: Tensor) -> Tensor:
        maps = self.tower["norm"](self.tower["stem"](images_BCHW)).relu()
        return self.heads(self.tower["last"](maps.mean((2, 3))))

    @property
    def layer_groups(self) -> list[tuple[str, list[str]]]:
        names = [name for name, _ in self.named_parameters()]
        return [
            ("stem", [n for n in names if n.startswith(("tower.stem", "tower.norm"))]),
            ("last", [n for n in names if n.startswith("tower.last")]),
            ("heads", [n for n in names if n.startswith("heads.")]),
        ]


def anatomy() -> Anatomy:
    """The heads as slices of the packed tensors."""
    whole = slice(None)
    heads = {
        pair: (
            ("heads.weights", (whole, slice(a, a + 1))),
            ("heads.biases", (slice(a, a + 1),)),
            ("heads.last", (whole, slice(a * VALUES, (a + 1) * VALUES))),
        )
        for a, pair in enumerate(PAIRS)
    }
    return Anatomy(pairs=PAIRS, heads=heads)


@dataclass(frozen=True, eq=False)
class Batch:
    ids: Sequence[str]
    images: Tensor
    labels_BA: Tensor

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        return Batch(self.ids, self.images.to(device), self.labels_BA.to(device))


@dataclass(frozen=True, eq=False)
class Sums:
    loss: Tensor
    labels: Tensor
    pair_loss: Tensor
    pair_labels: Tensor


class Step:
    """Cross-entropy over labelled cells, summed."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __call__(self, batch: Batch) -> Sums:
        logits_BAV = self.network(batch.images)
        there_BA = batch.labels_BA >= 0
        loss_BA = nn.functional.cross_entropy(
            logits_BAV.transpose(1, 2), batch.labels_BA.clamp(min=0), reduction="none"
        )
        loss_BA = loss_BA.where(there_BA, 0.0)
        return Sums(loss_BA.sum(), there_BA.sum(), loss_BA.detach().sum(0), there_BA.sum(0).to(loss_BA.dtype))


@dataclass(frozen=True, eq=False)
class Data:
    """Products in an order that the seed and the epoch alone decide; labels are missing unevenly."""

    images: Tensor
    labels: Tensor
    size: int
    process: int = 0
    processes: int = 1

    def __call__(self, epoch: int) -> "Epoch":
        order = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(epoch))
        return Epoch(self, order)


@dataclass(frozen=True, eq=False)
class Epoch:
    data: Data
    order: Tensor

    def __len__(self) -> int:
        return -(-len(self.order) // self.data.size)

    def __iter__(self) -> Iterator[Batch]:
        for whole in self.order.split(self.data.size):
            rows = whole[self.data.process :: self.data.processes]
            ids = [f"p{row}" for row in rows.tolist()]
            yield Batch(ids, self.data.images[rows], self.data.labels[rows])


def data(products: int = 20, size: int = 8, seed: int = 0, process: int = 0, processes: int = 1) -> Data:
    draws = torch.Generator().manual_seed(seed)
    images = torch.randn(products, 3, SIDE, SIDE, generator=draws)
    labels = torch.randint(-1, VALUES, (products, len(PAIRS)), generator=draws)
    labels[: products // 3, 1:] = -1
    return Data(images, labels, size, process, processes)
