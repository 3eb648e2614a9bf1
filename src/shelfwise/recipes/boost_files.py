"""Boost files: what was learnt of a number on disk: trees as text, arrays as safetensors, words as JSON.

They do not know what the parts mean.
"""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shelfwise.errors import BundleError
from shelfwise.files import write_text
from shelfwise.recipes.estimates import Column, Estimates, Linear, Means, Neighbours
from shelfwise.recipes.number_model import NumberModel
from shelfwise.recipes.siblings import Siblings
from shelfwise.recipes.trees import Forest, Library
from shelfwise.recipes.weights import read_arrays, write_arrays

FILE = "number.json"


def save_number(directory: Path, model: NumberModel) -> None:
    """Write what was learnt of a number into a folder."""
    estimates = model.estimates
    arrays: dict[str, npt.NDArray[Any]] = {"shape": model.shape, "bounds": model.bounds}
    for at, linear in enumerate(estimates.linear):
        arrays[f"linear.{at}"] = linear.weights
    kept = estimates.neighbours
    if kept is not None:
        arrays |= {
            "terms.data": kept.terms.data.astype(np.float16),
            "terms.indices": kept.terms.indices.astype(np.int32),
            "terms.indptr": kept.terms.indptr.astype(np.int64),
            "photos": kept.photos.astype(np.float16),
            "number": kept.number,
            "category": kept.category,
        }
    write_arrays(directory, arrays, {})
    forests = {**model.forests, **({"scale": model.scale} if model.scale is not None else {})}
    card = {
        "forests": {name: len(forest.texts) for name, forest in forests.items()},
        "weights": dict(model.weights),
        "siblings": {
            "agreement": model.siblings.agreement,
            "sums": dict(model.siblings.sums),
        },
        "columns": [[column.name, column.needs] for column in estimates.columns],
        "linear": [[linear.with_text, linear.with_photo, linear.mean] for linear in estimates.linear],
        "means": [{"mean": means.mean, "sums": means.sums} for means in estimates.means],
        "terms": None if kept is None else kept.terms.shape[1],
    }
    write_text(directory / FILE, json.dumps(card, ensure_ascii=False) + "\n")
    for name, forest in forests.items():
        for at, text in enumerate(forest.texts):
            write_text(directory / f"{name.replace(' ', '-')}-{at}.txt", text)


def load_number(directory: Path, library: Library, categories: int) -> NumberModel:
    """Read what ``save_number`` wrote.

    Raises:
        BundleError: it is missing or broken.
    """
    arrays, _ = read_arrays(directory)
    try:
        card = json.loads((directory / FILE).read_text(encoding="utf-8"))
        forests = {
            name: Forest(library, read_trees(directory, name.replace(" ", "-"), count))
            for name, count in card["forests"].items()
        }
        scale = forests.pop("scale", None)
        linear = tuple(
            Linear(bool(text), bool(photo), arrays[f"linear.{at}"].astype(np.float32), float(mean))
            for at, (text, photo, mean) in enumerate(card["linear"])
        )
        means = tuple(Means(_sums(item["sums"]), float(item["mean"])) for item in card["means"])
        columns = tuple(Column(name, needs) for name, needs in card["columns"])
        told = {
            key: (float(a), float(b), float(c), int(n))
            for key, (a, b, c, n) in card["siblings"]["sums"].items()
        }
        siblings = Siblings(told, float(card["siblings"]["agreement"]))
        kept = None if card["terms"] is None else _neighbours(arrays, int(card["terms"]))
        estimates = Estimates(linear, kept, means, categories, columns)
        shape, bounds, weights = arrays["shape"], arrays["bounds"], dict(card["weights"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{directory / FILE}: cannot be read: {error}") from error
    return NumberModel(estimates, forests, scale, weights, shape, bounds, siblings)


def read_trees(directory: Path, name: str, count: int) -> tuple[str, ...]:
    """Return the texts of a forest's boosters."""
    return tuple((directory / f"{name}-{at}.txt").read_text(encoding="utf-8") for at in range(count))


def _sums(given: Any) -> dict[str, tuple[float, int]]:
    return {key: (float(total), int(count)) for key, (total, count) in given.items()}


def _neighbours(arrays: dict[str, npt.NDArray[Any]], width: int) -> Neighbours:
    parts = arrays["terms.data"].astype(np.float32), arrays["terms.indices"], arrays["terms.indptr"]
    shape = (len(arrays["number"]), width)
    terms = importlib.import_module("scipy.sparse").csr_matrix(parts, shape=shape)
    return Neighbours(terms, arrays["photos"].astype(np.float32), arrays["number"], arrays["category"])
