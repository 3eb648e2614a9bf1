"""Run the benchmarks in turn, each in a fresh process, and print the JSON line of each."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = (
    "decode",
    "embed",
    "heads",
    "train_step",
    "neighbours",
    "probe_quality",
    "memory",
    "categories",
    "familiar",
    "saliency",
    "audit",
    "decide",
    "promise",
    "expected",
    "treatments",
    "shift",
    "claims",
    "frozen_claims",
    "robustness",
    "student",
    "lora",
    "short_tunes",
    "download",
    "brands",
    "choice_text",
    "price_quality",
    "price_claims",
    "price_ranges",
    "price_fusion",
    "label_next",
    "review",
    "drift",
    "drift_values",
    "cascade",
    "photos",
    "engines",
    "service",
    "batch",
    "approaches",
    "members",
    "few_labels",
    "rivals",
)
#: Benchmarks that know ``--quick``: a small size that shows they work, not what they measure.
SMALL = (
    "heads",
    "train_step",
    "neighbours",
    "probe_quality",
    "categories",
    "familiar",
    "saliency",
    "audit",
    "decide",
    "promise",
    "expected",
    "shift",
    "claims",
    "robustness",
    "student",
    "lora",
    "short_tunes",
    "download",
    "brands",
    "choice_text",
    "price_quality",
    "price_claims",
    "batch",
    "label_next",
    "review",
    "cascade",
    "photos",
    "drift",
    "drift_values",
    "engines",
    "approaches",
    "members",
    "few_labels",
    "rivals",
)


def run(name: str, quick: bool) -> dict[str, object]:
    """Return what a benchmark printed, or what went wrong."""
    command = [sys.executable, str(HERE / f"{name}.py"), *(["--quick"] if quick and name in SMALL else [])]
    # Waiting threads leave the processors to others, on every side of a comparison.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines()
        return {"benchmark": name, "error": said[-1] if said else f"exit status {done.returncode}"}
    found: dict[str, object] = json.loads(lines[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=NAMES, help="run this one; may be given again")
    parser.add_argument("--quick", action="store_true", help="small sizes, and only what has them")
    given = parser.parse_args()
    failed = False
    for name in given.only or (SMALL if given.quick else NAMES):
        found = run(name, given.quick)
        failed |= "error" in found
        print(json.dumps(found), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
