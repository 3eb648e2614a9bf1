"""Embedding from JPEG files, against decoding plus the raw engine, and against torch float32 eager.

Everything is measured in one process, in turns, on synthetic photos of 480 x 640; medians of the rounds.
``ratio_pipeline`` is the whole job over 1 / (1 / decode + 1 / engine), each of which has all processors.
``ratio_torch_eager`` is the whole job over the same job with torch eager in batches of 32;
``ratio_torch_eager_ready`` is the whole job over torch eager on ready tensors, decoding not counted.
"""

import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from shelfwise.models.backbones import build_backbone
from shelfwise.models.embed import embed
from shelfwise.models.engines import choose_engine, cores, vectors
from shelfwise.registry import REGISTRIES

# Torch at its best beside other work: waiting threads leave the processors to others.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
PHOTOS = 96
ROUNDS = 3
BATCH = 32


def jpeg(seed: int, width: int = 480, height: int = 640) -> bytes:
    """Return a JPEG with large shapes and fine texture, about as costly to decode as a shop photo."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    texture = rng.normal(0, 6, (height, width, 1)).astype(np.float32)
    image = Image.fromarray(np.clip(smooth + texture, 0, 255).astype(np.uint8))
    with io.BytesIO() as file:
        image.save(file, "JPEG", quality=85)
        return file.getvalue()


def seconds(work: Callable[[], object]) -> float:
    """Return how long one call takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def main(photos: int = PHOTOS, rounds: int = ROUNDS, backbone: str = "lite0") -> dict[str, Any]:
    import torch

    spec = REGISTRIES["backbone"].spec(backbone)
    built = build_backbone(spec)
    chosen = choose_engine(built)
    preprocess, jobs = built.preprocess, cores()
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(jobs) as pool:
        paths = [Path(name) / f"{row}.jpg" for row in range(photos)]
        for row, path in enumerate(paths):
            path.write_bytes(jpeg(row))

        def decode(some: list[Path]) -> np.ndarray[Any, np.dtype[np.uint8]]:
            return np.stack(list(pool.map(lambda path: preprocess.array(path.read_bytes()), some)))

        def eager(images: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
            with torch.inference_mode():
                for start in range(0, len(images), BATCH):
                    built.module(torch.from_numpy(images[start : start + BATCH]))

        def eager_from_files() -> None:
            for start in range(0, photos, BATCH):
                eager(decode(paths[start : start + BATCH]))

        ready = decode(paths)
        jobs_of_interest: dict[str, Callable[[], object]] = {
            "decode": lambda: decode(paths),
            "engine": lambda: vectors(chosen.engine, ready, jobs=jobs),
            "pipeline": lambda: embed(paths, chosen, jobs=jobs),
            "torch_eager": eager_from_files,
            "torch_eager_ready": lambda: eager(ready),
        }
        times: dict[str, list[float]] = {key: [] for key in jobs_of_interest}
        for turn in range(rounds + 1):
            for key, work in jobs_of_interest.items():
                took = seconds(work)
                if turn:
                    times[key].append(took)
    bound = [d + e for d, e in zip(times["decode"], times["engine"], strict=True)]

    def ratio(slow: list[float]) -> float:
        pairs = zip(slow, times["pipeline"], strict=True)
        return round(statistics.median(a / b for a, b in pairs), 3)

    result = {
        "benchmark": "embed",
        "ratio_pipeline": ratio(bound),
        "ratio_torch_eager": ratio(times["torch_eager"]),
        "ratio_torch_eager_ready": ratio(times["torch_eager_ready"]),
        "images_per_second": {key: round(photos / statistics.median(took), 1) for key, took in times.items()},
        "backbone": backbone,
        "engine": str(chosen.record),
        "photos": photos,
        "cores": jobs,
    }
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    main()
