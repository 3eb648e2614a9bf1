"""A small fine-tune in a process of its own: goes on from the last checkpoint, saves after every event."""

import os
import sys
import time
from pathlib import Path

import accelerate  # noqa: F401  (so that it is there before processes are forked)
import torch
import torch._dynamo
from safetensors.torch import save_file

from shelfwise.train.checkpoint import load_last, save
from shelfwise.train.loop import train
from shelfwise.train.optim import Optimiser, Phase
from tiny_training import PAIRS, Step, Tiny, anatomy, data


def main(directory: Path, pause: float) -> None:
    torch.set_num_threads(1)
    network = Tiny()
    given = data(40, 4)
    found = load_last(directory / "checkpoints")
    events = train(
        network,
        Step(network),
        given,
        [Phase(epochs=1, train="heads", lr=0.05), Phase(epochs=2, lr=0.02)],
        Optimiser(accumulate=2, ema=0.9, warm_up=0.1),
        seed=3,
        validate=lambda net: dict(zip(PAIRS, net(given.images).mean((0, 2)).tolist(), strict=True)),
        resume=found.state,
        anatomy=anatomy(),
    )
    directory.mkdir(exist_ok=True)
    (directory / "begun").touch()
    for event in events:
        time.sleep(pause)
        save(directory / "checkpoints", event.state())
    save_file(network.state_dict(), directory / "final.safetensors")


def serve() -> None:
    """Read lines of a folder and a pause; train each in a process of its own; write its id.

    After one more line, wait for it and write its status: until then its id is nobody else's.

    Everything is imported before a process is forked, so what is killed is the training.
    """
    for line in sys.stdin:
        directory, pause = line.rsplit(maxsplit=1)
        process = os.fork()
        if not process:
            main(Path(directory), float(pause))
            os._exit(0)
        print(process, flush=True)
        sys.stdin.readline()
        print(os.waitpid(process, 0)[1], flush=True)


if __name__ == "__main__":
    serve()
