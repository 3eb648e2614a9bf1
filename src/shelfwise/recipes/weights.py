"""Weights: a predictor's arrays on disk, as safetensors.

It knows arrays and text, not what they mean. Loading is strict and runs no code.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from shelfwise.errors import BundleError

FILE = "weights.safetensors"


def write_arrays(
    directory: Path, arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]
) -> None:
    """Write named arrays and a few texts to ``weights.safetensors``; the same content is the same bytes.

    The texts go in as one entry: safetensors writes several in an order that differs from run to run.
    """
    save_file(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()},
        directory / FILE,
        {"texts": json.dumps(dict(metadata), sort_keys=True, ensure_ascii=False)},
    )


def read_arrays(directory: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Read what ``write_arrays`` wrote.

    Raises:
        BundleError: the file is missing or broken.
    """
    try:
        with safe_open(directory / FILE, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return arrays, dict(json.loads((file.metadata() or {})["texts"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{directory / FILE}: cannot be read: {error}") from error
