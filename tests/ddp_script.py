"""One process of a training on several: writes the losses of its events, the main one the weights as well."""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from shelfwise.train.loop import train
from shelfwise.train.optim import Optimiser, Phase
from shelfwise.train.place import process
from tiny_training import PAIRS, Step, Tiny, anatomy, data


def main(directory: Path) -> None:
    torch.set_num_threads(1)
    index, processes = process()
    network = Tiny(norm="group", dropout=0.0)
    lines = []
    for event in train(
        network,
        Step(network),
        data(40, 8, process=index, processes=processes),
        [
            Phase(epochs=1, train="heads", lr=0.05),
            Phase(epochs=1, train="each head", lr=0.05),
            Phase(epochs=2, lr=0.05),
        ],
        Optimiser(accumulate=2, clip=0.3, ema=0.9),
        # The main process alone scores; all must stop and keep by it.
        validate=(lambda net: dict.fromkeys(PAIRS, float(net.heads.last.sum())))
        if index == 0
        else (lambda net: {}),
        anatomy=anatomy(),
    ):
        lines.append([event.kind, event.step, event.loss, event.score, event.main])
    (directory / f"{index}-of-{processes}.json").write_text(json.dumps(lines))
    save_file(network.state_dict(), directory / f"{index}-of-{processes}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
