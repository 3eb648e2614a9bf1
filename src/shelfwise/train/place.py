"""Where training runs: device, precision and processes, by ``accelerate``.

It does not know what is trained. Under ``torchrun`` each process makes a place of its own; sums go over all of
them.
"""

import contextlib
import json
import os
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from shelfwise.errors import TrainingError, UsageError
from shelfwise.train.memory import keep_freed_memory

Precision = Literal["fp32", "bf16", "fp16"]
_ACCELERATE = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
#: The first factor of the loss under fp16; losses are sums over labels, so it is small.
_FIRST_SCALE = 1024.0


def process() -> tuple[int, int]:
    """Return the number of this process and how many there are, as ``torchrun`` has set them."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


class Stepping(nn.Module):
    """A step as a module around the network, so that gradients meet across processes however it is called."""

    def __init__(self, network: nn.Module, step: Callable[[Any], Any]) -> None:
        super().__init__()
        self.network, self.step = network, step

    def forward(self, batch: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return loss, labels, pair_loss, pair_labels."""
        sums = self.step(batch)
        return sums.loss, sums.labels, sums.pair_loss, sums.pair_labels


class Place:
    """Device, precision and processes of one training.

    Args:
        precision: of products and convolutions; ``fp16`` scales the loss.
        device: ``cpu``, ``cuda``, or ``auto`` for what there is.

    Raises:
        UsageError: no such device here, or fp16 without a GPU.
    """

    def __init__(self, precision: Precision, device: str) -> None:
        from accelerate.state import AcceleratorState, GradientState

        kind = device.partition(":")[0]
        if kind == "cuda" and not torch.cuda.is_available():
            raise UsageError("device 'cuda': this machine has no GPU that torch can use; take 'cpu'")
        if precision not in _ACCELERATE:
            raise UsageError(f"there is no precision {precision!r}: fp32, bf16 or fp16")
        # One process may train many networks, each in its own precision; accelerate keeps the first one's.
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        self.precision, self.cpu = precision, kind == "cpu"
        self.accelerator = self._accelerator()
        self.device: torch.device = self.accelerator.device
        if self.device.type == "cpu":
            keep_freed_memory()
        if precision == "fp16" and self.device.type == "cpu":
            raise UsageError("precision 'fp16' needs a GPU; on a CPU take 'fp32' or 'bf16'")
        self.index: int = self.accelerator.process_index
        self.processes: int = self.accelerator.num_processes
        self.main: bool = self.accelerator.is_main_process

    def _accelerator(self) -> Any:
        from accelerate import Accelerator, DistributedDataParallelKwargs, GradScalerKwargs

        return Accelerator(
            cpu=self.cpu,
            mixed_precision=_ACCELERATE[self.precision],
            kwargs_handlers=[
                # A batch need not have products of every category: some heads get no gradient.
                DistributedDataParallelKwargs(find_unused_parameters=True),
                GradScalerKwargs(init_scale=_FIRST_SCALE),
            ],
        )

    def seed(self, seed: int) -> None:
        """Seed what dropout and the like draw from on this device."""
        # torch.manual_seed would also queue a call for GPUs that are not there, each with a stack trace.
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(seed)

    def model(self, network: nn.Module, step: Callable[[Any], Any]) -> nn.Module:
        """Return the step as a module whose gradients are averaged over processes."""
        prepared: nn.Module = self.accelerator.prepare_model(Stepping(network, step))
        return prepared

    def optimiser(self, optimiser: torch.optim.Optimizer) -> Any:
        """Return the optimiser, minding the scale of the loss."""
        return self.accelerator.prepare_optimizer(optimiser)

    def free(self) -> None:
        """Forget models and optimisers of the phase before."""
        if self.device.type != "cpu":
            self.accelerator.free_memory()
        self.accelerator = self._accelerator()

    def move(self, batch: Any) -> Any:
        """Return the batch on the device."""
        if self.device.type == "cpu":
            return batch
        from accelerate.utils import send_to_device

        return send_to_device(batch, self.device, non_blocking=True)

    def unsynchronised(self, model: nn.Module, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Return a context in which gradients only pile up, unless it is the last batch of a step."""
        if last or self.processes == 1:
            return contextlib.nullcontext()
        context: contextlib.AbstractContextManager[Any] = self.accelerator.no_sync(model)
        return context

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over all processes."""
        if self.processes > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def same(self, number: int, what: str) -> None:
        """Make sure that all processes have the same number of something.

        Raises:
            TrainingError: they have not; going on would wait for ever.
        """
        if self.processes == 1:
            return
        numbers: list[int] = self.accelerator.gather(torch.tensor([number], device=self.device)).tolist()
        if len(set(numbers)) > 1:
            raise TrainingError(
                f"the processes have different numbers of {what}: {numbers}; give each the same"
            )

    def told(self, value: Any) -> Any:
        """Return the main process's value, which JSON can hold, on every process."""
        if self.processes == 1:
            return value
        text = json.dumps(value).encode() if self.main else b""
        size = torch.tensor([len(text)], device=self.device)
        torch.distributed.broadcast(size, 0)
        letters = torch.zeros(int(size), dtype=torch.uint8, device=self.device)
        if self.main:
            letters.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        torch.distributed.broadcast(letters, 0)
        return json.loads(bytes(letters.cpu().tolist()))

    @property
    def scaler(self) -> Any:
        """The scaler of the loss, under fp16 only."""
        return self.accelerator.scaler
