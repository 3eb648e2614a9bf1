"""Weights: a predictor's arrays on disk, as safetensors.

It knows arrays and text, not what they mean. Loading is strict and runs no code.
"""

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
    """Write named arrays and a few texts to ``weights.safetensors``."""
    save_file(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()},
        directory / FILE,
        dict(metadata),
    )


def read_arrays(directory: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Read what ``write_arrays`` wrote.

    Raises:
        BundleError: the file is missing or broken.
    """
    try:
        with safe_open(directory / FILE, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{directory / FILE}: cannot be read: {error}") from error
