"""Two processes learn what one learns from the same batches."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tiny_training import data

SCRIPT = Path(__file__).with_name("ddp_script.py")


def ran(directory: Path, *launcher: str) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, *launcher, str(SCRIPT), str(directory)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    first = next(iter(data(40, 8)(0)))
    shares = [int((first.labels_BA[k::2] >= 0).sum()) for k in (0, 1)]
    assert shares[0] != shares[1], "labels must be uneven, or dividing by each process's own would do"
    ran(tmp_path)
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    ran(tmp_path, *launch)
    one, main, other = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("0-of-1", "0-of-2", "1-of-2")
    )
    assert [line[:2] for line in one] == [line[:2] for line in main] == [line[:2] for line in other]
    assert len(one) == 4 * 3 + 4 + 3
    assert [line[2] for line in main] == pytest.approx([line[2] for line in one], rel=1e-5)
    assert [line[2:4] for line in main] == [line[2:4] for line in other]
    assert (main[0][4], other[0][4]) == (True, False)
    weights, both, same = (
        load_file(tmp_path / f"{name}.safetensors") for name in ("0-of-1", "0-of-2", "1-of-2")
    )
    for name, tensor in weights.items():
        torch.testing.assert_close(both[name], tensor, rtol=1e-4, atol=1e-5)
        assert torch.equal(both[name], same[name])
