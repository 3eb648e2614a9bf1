"""Search: the options of a run that score best, found by trials on one split and kept one by one.

It does not know what an option means. Every trial is a cross-fit of the recipe with other options on the same grouped
folds (or on the same holdout), scored as ``fit`` scores: by the metric of ``[decide]``, on answers decided out of fold.
A finished trial is a file, so that a process killed at any moment loses the trial under way at most; the sampler is
told of every finished trial, and draws each next one from them and the trial's number alone.
Legend: n rows of one category, m of them in a fold.
"""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shelfwise import metrics
from shelfwise.answers import Answers
from shelfwise.catalog import Catalog
from shelfwise.config import Range, RunOptions, make_recipe, read_run
from shelfwise.data.group import near_duplicates
from shelfwise.errors import ConfigError, ShelfwiseError, require
from shelfwise.evaluate import evaluate
from shelfwise.expect import counted_cells
from shelfwise.files import cache_directory, write_text
from shelfwise.gathering import Split
from shelfwise.predictions import Machine, Recipe
from shelfwise.spaces import chosen, grid, how_many, inside, listed, same
from shelfwise.start import read_data
from shelfwise.tables import write_frame
from shelfwise.trials import BEST, TABLE, SearchResult, Trial, best_toml, read_trial, write_trial
from shelfwise.trust.costs import read_costs
from shelfwise.trust.decide import decided_out_of_fold
from shelfwise.trust.evidence import Evidence

#: Folders inside that of a search: finished trials, and finished folds of the trial under way.
TRIALS, FOLDS = "trials", "folds"
NAN = float("nan")


@dataclass(frozen=True, eq=False)
class _Judge:
    """Scores recipes on one split of one catalogue."""

    run: RunOptions
    machine: Machine

    @cached_property
    def catalog(self) -> Catalog:
        return read_data(self.run.data).remembering()

    @cached_property
    def group(self) -> npt.NDArray[np.int64]:
        cache, machine = cache_directory(self.machine.cache), self.machine
        return near_duplicates(self.catalog, cache=cache, jobs=machine.jobs, progress=machine.progress)

    @cached_property
    def split(self) -> Split:
        return Split.of(self.catalog, self.run.data.evidence, self.group, self.run.seed)

    @cached_property
    def costs(self) -> Any:
        cost = self.run.decide.cost
        return read_costs(cost, self.catalog.taxonomy) if cost is not None else {}

    @cached_property
    def digest(self) -> str:
        """Everything a score depends on besides the recipe and its seed."""
        digest = hashlib.sha256()
        costs = [[*pair, *table] for pair, table in self.costs.items()]
        parts = [self.catalog.taxonomy.hash, self.split.folds.fingerprint, self.run.data.evidence, costs]
        digest.update(json.dumps([*parts, self.run.decide.metric]).encode())
        digest.update(self.catalog.codes.tobytes() + self.catalog.category.tobytes())
        names = (path.name if path is not None else "" for path in self.catalog.images)
        digest.update("\x1f".join(names).encode())
        return digest.hexdigest()

    def key(self, run: RunOptions) -> str:
        """Name a trial by its recipe, its seed and the data."""
        table = [make_recipe(run.recipe).table(), run.seed, self.digest]
        return hashlib.sha256(json.dumps(table, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def trial(self, number: int, options: Mapping[str, Any], run: RunOptions, folder: Path) -> Trial:
        """Score one choice; what goes wrong on purpose is its result."""
        begun = time.monotonic()
        try:
            recipe = make_recipe(run.recipe)
            decided, probable, by_fold = self._scores(recipe, run.seed, folder)
            error = "" if math.isfinite(decided) else "nothing could be scored: no attribute has two values"
        except ShelfwiseError as problem:
            decided, probable, by_fold, error = NAN, NAN, (), str(problem).strip() or type(problem).__name__
        return Trial(number, dict(options), decided, probable, by_fold, time.monotonic() - begun, error)

    def _scores(self, recipe: Recipe, seed: int, folder: Path) -> tuple[float, float, tuple[float, ...]]:
        gathered = self.split.gather(recipe, self.machine, seed, out=folder)
        evidence, truth, found = gathered.evidence, gathered.truth, gathered.found
        metric, counted = self.run.decide.metric, counted_cells(truth)
        answers = decided_out_of_fold(evidence, metric, costs=self.costs)
        answers = Answers(answers.taxonomy, answers.ids, answers.blocks, {**answers.errors, **found.errors})
        shared = {"metric": metric, "bootstrap": 0, **counted}
        decided = evaluate(answers, truth, **shared).score
        return decided, evaluate(found, truth, **shared).score, _by_fold(evidence, answers, metric)


def _by_fold(evidence: Evidence, answers: Answers, metric: str) -> tuple[float, ...]:
    """The score on the rows of every fold: the mean over categories of the mean over their attributes."""
    scores = []
    for fold in np.unique(evidence.fold).tolist():
        found, category = [], []
        for number, (block, answer) in enumerate(zip(evidence.blocks, answers.blocks, strict=True)):
            inside_m = evidence.fold[block.rows] == fold
            for at, part in enumerate(evidence.taxonomy.slices(block.category)):
                label_n, width = block.labels[:, at], part.stop - part.start
                if len(np.unique(label_n[label_n >= 0])) > 1:
                    found.append(metrics.score(metric, label_n[inside_m], answer.codes[inside_m, at], width))
                    category.append(number)
        scores.append(float(metrics.mean_of_means(np.array(found), np.array(category))) if found else NAN)
    return tuple(scores)


@dataclass(eq=False)
class Search:
    """A search that goes on where it was left.

    Attributes:
        run: the run file, with its ``[search]`` table.
        folder: gets ``trials/``, ``trials.csv`` and ``best.toml``.
        machine: where to compute.
        found: the finished trials.
    """

    run: RunOptions
    folder: Path
    machine: Machine = field(default_factory=Machine)
    found: list[Trial] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.run.search is None:
            place = "recipe.choices.l2" if "choices" in self.run.recipe else "recipe.l2"
            raise ConfigError(
                'the run file has no [search] table, such as: method = "tpe", and below [search.space] '
                f'"{place}" = {{ low = 1e-3, high = 1.0, log = true }}'
            )
        self.options = self.run.search
        if self.options.method != "grid":
            require("optuna", extra="search")
        self.machine = replace(self.machine, track=self.run.track)
        self.judge = _Judge(self.run, self.machine)
        self.of = how_many(self.options)

    @property
    def result(self) -> SearchResult:
        """What has been found so far."""
        return SearchResult(self.run, self.run.decide.metric, tuple(self.found), self.of, self.folder)

    def trials(self) -> Iterator[Trial]:
        """Yield every trial as it ends, those of earlier runs first; the files are up to date at each."""
        keys = self._read()
        yield from list(self.found)
        for number, options in self._next(keys):
            run = chosen(self.run, options)
            key = self.judge.key(run)
            if key in keys:
                known = keys[key]
                earlier = known.same_as if known.same_as is not None else known.number
                scores = known.score, known.most_probable, known.by_fold
                trial = Trial(number, dict(options), *scores, 0.0, known.error, earlier)
            else:
                trial = self.judge.trial(number, options, run, self.folder / FOLDS / key)
                keys[key] = trial
            self._keep(trial, key)
            yield trial

    def _next(self, keys: Mapping[str, Trial]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the number and options of each trial that is still to be made."""
        if self.options.method == "grid":
            for options in grid(self.options, self.run.seed):
                if self.judge.key(chosen(self.run, options)) not in keys:
                    yield self._number(), options
            return
        while len(self.found) < self.of:
            number = self._number()
            history = self.found if self.options.method == "tpe" else []
            yield number, suggest_options(self.run, history, number)

    def _number(self) -> int:
        return 1 + max((trial.number for trial in self.found), default=0)

    def _read(self) -> dict[str, Trial]:
        """Read the finished trials that are of this data, this recipe and this space."""
        self.found.clear()
        keys: dict[str, Trial] = {}
        for path in sorted((self.folder / TRIALS).glob("*.json")):
            key, trial = read_trial(path)
            if not inside(self.options, trial.options):
                continue
            if self.judge.key(chosen(self.run, trial.options)) == key:
                self.found.append(trial)
                if trial.same_as is None:
                    keys[key] = trial
        self.found.sort(key=lambda trial: trial.number)
        return keys

    def _keep(self, trial: Trial, key: str) -> None:
        """Write a trial, then what is made of all of them."""
        path = self.folder / TRIALS / f"{trial.number:05d}-{key}.json"
        write_trial(path, key, trial, self.run.decide.metric)
        shutil.rmtree(self.folder / FOLDS / key, ignore_errors=True)
        self.found.append(trial)
        self.write()

    def write(self) -> None:
        """Write the table of trials and the best run file."""
        result = self.result
        self.folder.mkdir(parents=True, exist_ok=True)
        write_frame(result.frame(), self.folder / TABLE)
        if result.best is not None:
            write_text(self.folder / BEST, best_toml(result))


def search(
    source: str | Path | RunOptions,
    out: str | Path,
    *,
    overrides: Sequence[str] = (),
    machine: Machine | None = None,
) -> SearchResult:
    """Try options of a run file on one split and return the trials, the best run file written beside them.

    Run again with the same arguments, it goes on after the last finished trial.

    Args:
        source: a run file with a ``[search]`` table, or what was read from one.
        out: a folder; gets ``trials.csv``, ``best.toml`` and one file per trial.
        overrides: ``key=value``, where ``source`` is a file.
        machine: where to compute.

    Raises:
        ConfigError: everything that is wrong with the run file or its search, before anything is computed.
        MissingExtra: optuna is not installed and the method is not ``grid``.
    """
    run = source if isinstance(source, RunOptions) else read_run(source, overrides)
    hunt = Search(run, Path(out), machine or Machine())
    for _ in hunt.trials():
        pass
    return hunt.result


def suggest_options(run: RunOptions, history: Sequence[Trial], number: int) -> dict[str, Any]:
    """Draw the options of a trial, from the finished ones and its number alone.

    Random draws, or the tree-structured Parzen estimator (Bergstra et al. 2011), both as optuna has them. The sampler
    is made anew for every trial and told the history, so a search that was stopped goes on as if it had not been.

    Args:
        run: with its search.
        history: finished trials; failed ones count as failed.
        number: of the trial.
    """
    optuna = require("optuna", extra="search")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options = run.search
    assert options is not None
    draw = hashlib.blake2b(f"{run.seed}:{number}".encode(), digest_size=4).digest()
    samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    sampler = samplers[options.method](seed=int.from_bytes(draw))
    lower = run.decide.metric in metrics.LOWER_IS_BETTER
    study = optuna.create_study(sampler=sampler, direction="minimize" if lower else "maximize")
    names = sorted(options.space)
    kinds = {name: _distribution(options.space[name], optuna.distributions) for name in names}
    for trial in history:
        places = {name: _place(options.space[name], trial.options[name]) for name in names}
        state = optuna.trial.TrialState.FAIL if trial.failed else optuna.trial.TrialState.COMPLETE
        value = None if trial.failed else trial.score
        study.add_trial(
            optuna.trial.create_trial(state=state, params=places, distributions=kinds, value=value)
        )
    drawn = study.ask(fixed_distributions=kinds).params
    return {name: _value(options.space[name], drawn[name]) for name in names}


def _distribution(values: Range | Sequence[Any], kinds: Any) -> Any:
    """Lists are unordered choices by position, stepped ranges ordered positions, other ranges numbers."""
    if not isinstance(values, Range):
        return kinds.CategoricalDistribution(range(len(values)))
    if values.step is not None:
        return kinds.IntDistribution(0, len(listed(values)) - 1)
    if isinstance(values.low, int) and isinstance(values.high, int):
        return kinds.IntDistribution(values.low, values.high, log=values.log)
    return kinds.FloatDistribution(float(values.low), float(values.high), log=values.log)


def _place(values: Range | Sequence[Any], value: Any) -> Any:
    if isinstance(values, Range) and values.step is None:
        return value
    every = listed(values)
    if isinstance(values, Range):
        return min(range(len(every)), key=lambda k: abs(every[k] - value))
    return next(k for k, each in enumerate(every) if same(each, value))


def _value(values: Range | Sequence[Any], place: Any) -> Any:
    return place if isinstance(values, Range) and values.step is None else listed(values)[place]
