"""Peak memory while 10,000 photos are embedded, against 1,000 photos: near 1 where memory is bounded.

Each number of photos is a process of its own with a cache of its own; the engine was chosen before. The
photos are 500 distinct JPEGs with a few bytes appended after the end of the picture, so that each file
has content of its own and every vector is computed.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from shelfwise.models.embed import embed_stream
from shelfwise.models.engines import choose_engine
from shelfwise.registry import REGISTRIES

DISTINCT = 500
FEW, MANY = 1_000, 10_000


def photos(directory: Path, count: int) -> None:
    """Write ``count`` JPEGs of 240 x 320 with different content."""
    rng = np.random.default_rng(0)
    drawn: list[bytes] = []
    for row in range(min(DISTINCT, count)):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 6, 3), np.uint8))
        path = directory / f"{row:06d}.jpg"
        coarse.resize((240, 320), Image.Resampling.BICUBIC).save(path, quality=85)
        drawn.append(path.read_bytes())
    for row in range(len(drawn), count):
        (directory / f"{row:06d}.jpg").write_bytes(drawn[row % DISTINCT] + row.to_bytes(8, "little"))


def child(directory: Path, cache: Path, count: int) -> None:
    """Embed and print the peak of this process in MB, and the seconds it took."""
    paths = sorted(directory.iterdir())[:count]
    begin = time.perf_counter()
    computed = sum(part.computed for _, part in embed_stream(paths, _spec(), cache=cache))
    took = time.perf_counter() - begin
    if computed != count:
        raise SystemExit(f"{computed} vectors were computed, not {count}")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    print(json.dumps([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, took]))


def _spec() -> Any:
    return REGISTRIES["backbone"].spec("lite0")


def main(few: int = FEW, many: int = MANY) -> dict[str, Any]:
    peaks: dict[int, float] = {}
    seconds: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "photos"
        directory.mkdir()
        photos(directory, many)
        for count in (few, many):
            cache = Path(name) / f"cache-{count}"
            choose_engine(_spec(), cache=cache)
            command = [sys.executable, __file__, str(directory), str(cache), str(count)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            peaks[count], seconds[count] = json.loads(done.stdout)
    result = {
        "benchmark": "memory",
        "ratio_peak": round(peaks[many] / peaks[few], 3),
        "peak_mb": {str(count): round(peak) for count, peak in peaks.items()},
        "images_per_second": round(many / seconds[many], 1),
    }
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    if len(sys.argv) == 4:
        child(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
