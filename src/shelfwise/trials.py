"""Trials: choices of a run's options and how they did; their table, and the best of them as a run file.

They do not know how a trial is scored, nor which one comes next. Legend: T trials, K folds.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shelfwise import metrics
from shelfwise.config import RunOptions, make_recipe, to_toml
from shelfwise.errors import ConfigError
from shelfwise.files import write_text
from shelfwise.plaintext import plain, show, text_table
from shelfwise.spaces import chosen

if TYPE_CHECKING:
    import polars as pl

FORMAT = 1
TABLE, BEST = "trials.csv", "best.toml"
NAN = float("nan")
#: Trials that are printed; the table has all.
MOST_SHOWN = 20


@dataclass(frozen=True)
class Trial:
    """One choice of options, and how it did.

    Attributes:
        number: from 1, in the order they were tried.
        options: dotted option to its value.
        score: of the decided answers, out of fold; NaN where the trial failed.
        most_probable: the same of the most probable values, without deciding.
        by_fold: the score on every fold.
        seconds: what it took.
        error: why it failed, empty where it did not.
        same_as: the number of the earlier trial with the same options, whose result this is.
    """

    number: int
    options: Mapping[str, Any]
    score: float = NAN
    most_probable: float = NAN
    by_fold: tuple[float, ...] = ()
    seconds: float = 0.0
    error: str = ""
    same_as: int | None = None

    @property
    def failed(self) -> bool:
        """Whether there is no score."""
        return not math.isfinite(self.score)

    @property
    def words(self) -> str:
        """The options in words."""
        return ", ".join(f"{name} = {_short(value)}" for name, value in self.options.items())


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The trials of a search.

    Attributes:
        run: the run file that was searched from.
        metric: what trials were scored by.
        trials: all finished ones, by number.
        of: how many there are to be.
        folder: where ``trials.csv`` and ``best.toml`` are.
    """

    run: RunOptions
    metric: str
    trials: tuple[Trial, ...]
    of: int
    folder: Path

    @property
    def best(self) -> Trial | None:
        """The trial with the best score, the earliest of equals; None where all failed."""
        sign = -1 if self.metric in metrics.LOWER_IS_BETTER else 1
        scored = [trial for trial in self.trials if not trial.failed]
        return max(scored, key=lambda trial: (sign * trial.score, -trial.number), default=None)

    @property
    def corrected(self) -> float:
        """The best score less what choosing it on these folds flatters it by.

        The mean over folds of how much another trial beats the chosen one there (Tibshirani and Tibshirani 2009, "A
        bias correction for the minimum error rate in cross-validation"). NaN with fewer than two scored trials.
        """
        scored = [
            trial for trial in self.trials if not trial.failed and trial.by_fold and trial.same_as is None
        ]
        best = self.best
        if best is None or len(scored) < 2 or len({len(trial.by_fold) for trial in scored}) > 1:
            return NAN
        sign = -1 if self.metric in metrics.LOWER_IS_BETTER else 1
        scores_TK = sign * np.array([trial.by_fold for trial in scored])
        chosen_K = sign * np.array(best.by_fold)
        gap_K = np.nanmax(np.where(np.isnan(scores_TK), -np.inf, scores_TK), axis=0) - chosen_K
        known_K = np.isfinite(gap_K)
        return best.score - sign * float(gap_K[known_K].mean()) if known_K.any() else NAN

    def line(self, trial: Trial) -> str:
        """Return one trial as one line."""
        sign = -1 if self.metric in metrics.LOWER_IS_BETTER else 1
        before = [sign * each.score for each in self.trials if not each.failed and each.number < trial.number]
        if trial.failed:
            said = f"failed: {trial.error}"
        else:
            best = " (the best so far)" if all(sign * trial.score > score for score in before) else ""
            said = f"{self.metric} {show(trial.score, 4)}{best}"
        same = f", as trial {trial.same_as}" if trial.same_as is not None else f", {trial.seconds:,.1f} s"
        return f"trial {trial.number} of {self.of:,}: {said}, {trial.words}{same}"

    @property
    def written(self) -> tuple[Path, ...]:
        """The files that hold the result: the table, and the best run file where a trial has a score."""
        return (self.folder / TABLE, *((self.folder / BEST,) if self.best is not None else ()))

    @property
    def next_step(self) -> str:
        """What to do now, in words."""
        if self.best is None:
            return f"read why all trials failed, in {self.folder / TABLE}"
        return f"shelfwise fit {self.folder / BEST} -o BUNDLE"

    def frame(self) -> "pl.DataFrame":
        """Return one row per trial: number, score, most_probable, seconds, error, same_as, and its options."""
        import polars as pl

        names = sorted({name for trial in self.trials for name in trial.options})
        rows = [
            {
                "trial": trial.number,
                "score": plain(trial.score),
                "most_probable": plain(trial.most_probable),
                "seconds": round(trial.seconds, 2),
                "error": trial.error or None,
                "same_as": trial.same_as,
                **{name: _text(trial.options[name]) if name in trial.options else None for name in names},
            }
            for trial in self.trials
        ]
        kinds = {"trial": pl.Int64, "score": pl.Float64, "most_probable": pl.Float64, "seconds": pl.Float64}
        texts = dict.fromkeys(("error", *names), pl.String)
        return pl.DataFrame(rows, schema={**kinds, "same_as": pl.Int64, **texts}, orient="row")

    def __str__(self) -> str:
        sign = -1 if self.metric in metrics.LOWER_IS_BETTER else 1
        ordered = sorted(
            self.trials, key=lambda t: (t.failed, -sign * t.score if not t.failed else 0, t.number)
        )
        rows = [
            [
                str(t.number),
                t.error or t.words,
                show(t.score, 4),
                show(t.most_probable, 4),
                f"{t.seconds:,.0f}",
            ]
            for t in ordered[:MOST_SHOWN]
        ]
        head = ["trial", "options", self.metric, "most probable", "seconds"]
        lines = [text_table(head, rows, left=2) if rows else "no trial has finished"]
        if len(ordered) > MOST_SHOWN:
            lines.append(f"... and {len(ordered) - MOST_SHOWN:,} more in {self.folder / TABLE}")
        best = self.best
        if best is not None:
            lines.append(
                f"best of {len(self.trials):,} trials: {self.metric} {show(best.score, 4)}, trial {best.number}: "
                f"{best.words}"
            )
            lines.append(
                "It was chosen on the rows it is scored on, which flatters it"
                + (f": expect about {show(self.corrected, 4)}" if math.isfinite(self.corrected) else "")
                + "; an honest score needs products kept apart."
            )
        return "\n".join(lines) + "\n"


def read_trial(path: Path) -> tuple[str, Trial]:
    """Read one finished trial, and the name it was kept under.

    Raises:
        ConfigError: not a trial that this version wrote.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        if table["format"] != FORMAT:
            raise ValueError(f"format {table['format']!r}, not {FORMAT}")
        return str(table["key"]), _read(table)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} is not a trial of this version ({type(error).__name__}: {error}); move it away"
        ) from error


def write_trial(path: Path, key: str, trial: Trial, metric: str) -> None:
    """Write one finished trial, whole or not at all."""
    table = {
        "format": FORMAT,
        "key": key,
        "metric": metric,
        "number": trial.number,
        "options": trial.options,
        "score": plain(trial.score),
        "most_probable": plain(trial.most_probable),
        "by_fold": [plain(score) for score in trial.by_fold],
        "seconds": round(trial.seconds, 3),
        "error": trial.error,
        "same_as": trial.same_as,
    }
    write_text(path, json.dumps(table, ensure_ascii=False) + "\n")


def _read(table: Mapping[str, Any]) -> Trial:
    def number(value: Any) -> float:
        return NAN if value is None else float(value)

    return Trial(
        int(table["number"]),
        dict(table["options"]),
        number(table["score"]),
        number(table["most_probable"]),
        tuple(number(value) for value in table["by_fold"]),
        float(table["seconds"]),
        str(table["error"]),
        table["same_as"],
    )


def best_toml(result: SearchResult) -> str:
    """Return the best trial as a complete run file, every default written out, paths relative to the folder.

    Raises:
        ConfigError: no trial has a score.
    """
    best = result.best
    if best is None:
        raise ConfigError("no trial has a score, so there is no best run")
    run = chosen(result.run, best.options)
    table = run.table()
    table["recipe"] = _moved(make_recipe(run.recipe).table(), result.folder)
    for name in ("catalog", "images", "attributes"):
        if table["data"].get(name) is not None:
            table["data"][name] = _relative(table["data"][name], result.folder)
    if table["decide"].get("cost") is not None:
        table["decide"]["cost"] = _relative(table["decide"]["cost"], result.folder)
    head = (
        f"# Trial {best.number}, the best of {len(result.trials)}: {result.metric} {show(best.score, 4)} on the rows "
        "it was chosen on.\n"
    )
    return head + to_toml(table)


def _moved(value: Any, folder: Path, key: str = "") -> Any:
    """A recipe's table with its paths relative to a folder: paths, and bundles that are named as members."""
    if isinstance(value, Mapping):
        return {name: _moved(inner, folder, str(name)) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_moved(inner, folder, key) for inner in value]
    named = isinstance(value, str) and key in ("members", "bundle")
    return _relative(Path(value), folder) if named or isinstance(value, Path) else value


def _relative(path: Path, folder: Path) -> str:
    return os.path.relpath(Path(path).resolve(), folder.resolve())


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
