"""Trees: gradient boosting by LightGBM or XGBoost, kept as text and run on one thread.

They know arrays, neither products nor prices. A missing feature is NaN: which way it goes is learnt.
Legend: N rows, F features, K classes, B boosters.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from shelfwise.errors import require

Floats = npt.NDArray[np.float32]
Float = npt.NDArray[np.float64]
Library = Literal["lightgbm", "xgboost"]
Objective = Literal["l2", "l1", "huber", "classes"]
#: What each library calls an objective.
NAMES = {
    "lightgbm": {"l2": "regression", "l1": "regression_l1", "huber": "huber", "classes": "multiclass"},
    "xgboost": {
        "l2": "reg:squarederror",
        "l1": "reg:absoluteerror",
        "huber": "reg:pseudohubererror",
        "classes": "multi:softprob",
    },
}
#: Distinct values that a feature is binned to: fewer cost less time and nothing that could be measured.
BINS = 63


@dataclass(frozen=True)
class Growth:
    """How trees are grown.

    Attributes:
        library: ``lightgbm`` or ``xgboost``.
        rounds: trees, of each class.
        learning_rate: what each tree counts.
        leaves: of a tree at most; 0 for no limit but the depth.
        depth: of a tree at most; 0 for no limit but the leaves.
        min_rows: rows of a leaf at least.
        l2: penalty of the leaves' values.
        columns, rows: shares of features and rows that a tree sees.
    """

    library: Library
    rounds: int
    learning_rate: float
    leaves: int
    depth: int
    min_rows: int
    l2: float
    columns: float
    rows: float

    def grow(
        self,
        features_NF: Floats,
        target_N: npt.NDArray[Any],
        objective: Objective,
        seed: int,
        classes: int = 0,
    ) -> str:
        """Return boosted trees as text.

        Args:
            features_NF: NaN where a feature is missing.
            target_N: numbers, or class codes.
            objective: what the trees lower; ``classes`` for class codes.
            seed: of the shares of features and rows.
            classes: K, of ``classes``.
        """
        grow = self._lightgbm if self.library == "lightgbm" else self._xgboost
        return grow(features_NF, target_N, NAMES[self.library][objective], seed, classes)

    def _lightgbm(
        self, features_NF: Floats, target_N: npt.NDArray[Any], objective: str, seed: int, classes: int
    ) -> str:
        lightgbm = importlib.import_module("lightgbm")
        options = {
            "objective": objective,
            "learning_rate": self.learning_rate,
            "num_leaves": self.leaves or 2 ** min(self.depth, 16),
            "max_depth": self.depth or -1,
            "min_data_in_leaf": self.min_rows,
            "lambda_l2": self.l2,
            "feature_fraction": self.columns,
            "bagging_fraction": self.rows,
            "bagging_freq": int(self.rows < 1),
            "max_bin": BINS,
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": 1,
            "verbose": -1,
        }
        options |= {"num_class": classes} if classes else {}
        data = lightgbm.Dataset(features_NF, target_N, free_raw_data=True)
        return str(lightgbm.train(options, data, self.rounds).model_to_string())

    def _xgboost(
        self, features_NF: Floats, target_N: npt.NDArray[Any], objective: str, seed: int, classes: int
    ) -> str:
        xgboost = require("xgboost", extra="xgboost")
        options = {
            "objective": objective,
            "learning_rate": self.learning_rate,
            "max_leaves": self.leaves,
            "max_depth": self.depth,
            "grow_policy": "lossguide" if self.leaves else "depthwise",
            "min_child_weight": self.min_rows,
            "lambda": self.l2,
            "colsample_bytree": self.columns,
            "subsample": self.rows,
            "tree_method": "hist",
            "seed": seed,
            "nthread": 1,
            "verbosity": 0,
        }
        options |= {"num_class": classes} if classes else {}
        data = xgboost.DMatrix(features_NF, target_N, nthread=1)
        raw = xgboost.train(options, data, self.rounds).save_raw("json")
        return bytes(raw).decode("utf-8")


@dataclass(frozen=True, eq=False)
class Forest:
    """Boosters whose answers are averaged, such as those of the folds of a cross-fit.

    Attributes:
        library: that grew them.
        texts: [B] what ``Growth.grow`` gave.
    """

    library: Library
    texts: tuple[str, ...]

    @cached_property
    def _boosters(self) -> Sequence[Any]:
        if self.library == "lightgbm":
            lightgbm = importlib.import_module("lightgbm")
            return [lightgbm.Booster(model_str=text) for text in self.texts]
        xgboost = require("xgboost", extra="xgboost")
        boosters = []
        for text in self.texts:
            booster = xgboost.Booster({"nthread": 1})
            booster.load_model(bytearray(text.encode("utf-8")))
            boosters.append(booster)
        return boosters

    def predict(self, features_NF: Floats) -> Float:
        """Return float64 [N], or [N, K] of classes; each row's depends on its own features alone."""
        return np.asarray(np.mean([self._one(booster, features_NF) for booster in self._boosters], axis=0))

    def _one(self, booster: Any, features_NF: Floats) -> Float:
        if self.library == "lightgbm":
            found = booster.predict(features_NF, num_threads=1)
        else:
            data = require("xgboost", extra="xgboost").DMatrix(features_NF, nthread=1)
            found = booster.predict(data)
        return np.asarray(found, np.float64)
