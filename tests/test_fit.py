"""Fit and cross-fit: out of fold, repeatable to the byte, and resumed after the last finished fold."""

from pathlib import Path

import numpy as np
import pytest

import shelfwise as sw
from conftest import Toy
from shelfwise.bundle import Bundle
from shelfwise.catalog import Catalog
from shelfwise.config import DecideOptions
from shelfwise.errors import CatalogError, ConfigError, PredictionError, UsageError
from shelfwise.predictions import Machine, Predictions
from shelfwise.trust.calibrate import out_of_fold
from shelfwise.trust.decide import decided_out_of_fold

pytestmark = pytest.mark.usefixtures("one_thread")


def toy_probe(**options: object) -> sw.Probe:
    return sw.Probe(backbone=sw.backbone("toy"), **options)  # type: ignore[arg-type]


def test_the_report_is_out_of_fold(bundle: Bundle):
    assert 0.5 < bundle.report.score <= 1
    low, high = bundle.report.interval
    assert low < bundle.report.score < high
    notes = " ".join(bundle.report.notes)
    assert "3 folds" in notes
    assert "near-duplicate groups kept whole" in notes


def test_fit_twice_is_the_same_bytes(bundle: Bundle, saved: Path, toy: Toy, tmp_path: Path):
    """In a cache of its own, from a table read again."""
    machine = Machine(cache=tmp_path / "cache", jobs=2, engine="torch")
    again = sw.fit(Catalog.read(toy.table), toy_probe(), evidence=3, machine=machine, random_split=False)
    again.save(tmp_path / "again")
    for path in sorted(saved.iterdir()):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_every_row_is_predicted_by_a_model_that_has_not_seen_it(toy: Toy, machine: Machine):
    """A nearest neighbour that may look at the row itself is always right; out of fold it is not."""
    recipe = sw.Neighbours(backbone=sw.backbone("toy"), k=1)
    folds = toy.catalog.folds(3, seed=0)
    found = sw.cross_fit(recipe, toy.catalog, folds, machine=machine)
    seen = recipe.fit(toy.catalog, None, machine, 0).predict(toy.catalog, machine)

    def accuracy(predictions: Predictions) -> float:
        return sw.evaluate(predictions, toy.catalog, metric="accuracy", bootstrap=0).score

    assert accuracy(seen) == 1
    assert accuracy(found) < 0.99
    for fold in range(3):
        train, test = toy.catalog.select(folds.train(fold)), toy.catalog.select(folds.test(fold))
        part = recipe.fit(train, None, machine, 0).predict(test, machine)
        for block in part.blocks:
            whole = found.select(folds.test(fold)).block(block.category)
            assert whole is not None
            assert np.array_equal(whole.probs, block.probs)


class Counting:
    """A recipe that counts how often it learns, and may be interrupted."""

    def __init__(self, recipe: sw.Probe, stop_at: int = 99) -> None:
        self.recipe, self.stop_at, self.fits = recipe, stop_at, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.recipe, name)

    def fit(self, *given: object) -> object:
        if self.fits == self.stop_at:
            raise KeyboardInterrupt
        self.fits += 1
        return self.recipe.fit(*given)  # type: ignore[arg-type]


def test_cross_fit_goes_on_after_the_last_finished_fold(toy: Toy, machine: Machine, tmp_path: Path):
    folds = toy.catalog.folds(4, seed=0)
    stopped = Counting(toy_probe(), stop_at=2)
    with pytest.raises(KeyboardInterrupt):
        sw.cross_fit(stopped, toy.catalog, folds, machine=machine, out=tmp_path)  # type: ignore[arg-type]
    resumed = Counting(toy_probe())
    found = sw.cross_fit(resumed, toy.catalog, folds, machine=machine, out=tmp_path)  # type: ignore[arg-type]
    assert (stopped.fits, resumed.fits) == (2, 2)
    undisturbed = sw.cross_fit(toy_probe(), toy.catalog, folds, machine=machine)
    for first, second in zip(found.blocks, undisturbed.blocks, strict=True):
        assert np.array_equal(first.probs, second.probs)
    again = Counting(toy_probe())
    sw.cross_fit(again, toy.catalog, folds, machine=machine, out=tmp_path)  # type: ignore[arg-type]
    assert again.fits == 0
    other = Counting(toy_probe(l2=0.5))
    sw.cross_fit(other, toy.catalog, folds, machine=machine, out=tmp_path)  # type: ignore[arg-type]
    assert other.fits == 4, "another recipe must not be given the folds of this one"


def test_changed_labels_are_not_given_old_folds(toy: Toy, machine: Machine, tmp_path: Path):
    from dataclasses import replace

    folds = toy.catalog.folds(2, seed=0)
    sw.cross_fit(toy_probe(), toy.catalog, folds, machine=machine, out=tmp_path)
    changed = replace(
        toy.catalog,
        codes=np.maximum(toy.catalog.codes, 0) * (toy.catalog.codes >= 0) - (toy.catalog.codes < 0),
    )
    changed.codes[0, 0] = -1
    counting = Counting(toy_probe())
    sw.cross_fit(counting, changed, folds, machine=machine, out=tmp_path)  # type: ignore[arg-type]
    assert counting.fits == 2


def test_folds_of_other_products_are_refused(toy: Toy, machine: Machine):
    folds = toy.catalog.folds(3)
    with pytest.raises(PredictionError, match="folds are of other products"):
        sw.cross_fit(toy_probe(), toy.catalog.select(range(50)), folds, machine=machine)


def test_a_holdout_and_the_random_split(toy: Toy, machine: Machine):
    decide = DecideOptions(metric="accuracy")
    bundle = sw.fit(toy.catalog, toy_probe(), evidence=0.3, decide=decide, machine=machine)
    notes = " ".join(bundle.report.notes)
    assert "holdout of" in notes
    assert "random split that ignores near-duplicates would have said" in notes
    assert bundle.report.metric == "accuracy"
    assert bundle.run.data.evidence == 0.3
    assert bundle.run.decide.metric == "accuracy"


def test_duplicates_flatter_a_random_split_and_not_the_grouped_one(tmp_path: Path, machine: Machine):
    """Every product twice, labels at random: whoever scores above chance has seen the twin."""
    import polars as pl

    from shelfwise.testing import toy_catalog

    table = toy_catalog(tmp_path, products=120)
    frame = pl.read_csv(table, infer_schema=False)
    rng = np.random.default_rng(0)
    frame = frame.with_columns(
        pl.Series("colour", rng.choice(["red", "blue"], 120)), pl.lit("Cups").alias("category")
    )
    frame = frame.select("id", "image", "category", "colour")
    twins = pl.concat([frame, frame.with_columns(("twin" + pl.col("id")).alias("id"))])
    catalog = Catalog.read(twins, images=tmp_path)
    groups = sw.near_duplicates(catalog)
    assert all(groups[k] == groups[k + 120] for k in range(120))
    recipe = sw.Neighbours(backbone=sw.backbone("toy"), k=1)

    def score(given: np.ndarray | None) -> float:
        found = sw.cross_fit(recipe, catalog, catalog.folds(4, groups=given), machine=machine)
        return sw.evaluate(found, catalog, metric="accuracy", bootstrap=0).score

    assert score(None) > 0.8
    assert score(groups) < 0.62


def test_wrong_evidence(toy: Toy, machine: Machine):
    with pytest.raises(UsageError, match="groups cannot be split"):
        sw.fit(toy.catalog, toy_probe(), evidence=1000, machine=machine)


def test_nothing_stated_is_nothing_to_learn(toy: Toy, machine: Machine):
    import polars as pl

    blank = toy.catalog.frame.with_columns(
        pl.lit(None, pl.String).alias(c) for c in ("colour", "size", "pattern")
    )
    catalog = Catalog.read(blank, images=toy.directory)
    with pytest.raises(CatalogError, match="nothing to learn"):
        sw.fit(catalog, toy_probe(), machine=machine)


def test_the_report_is_that_of_answers_decided_without_their_fold(bundle: Bundle, toy: Toy):
    """And the calibration in it that of probabilities calibrated without their fold."""
    evidence, report = bundle.evidence, bundle.report
    assert evidence is not None
    assert len(np.unique(evidence.fold)) == 3
    for fold in range(3):
        inside = evidence.fold == fold
        assert not set(evidence.group[inside]) & set(evidence.group[~inside])
    decided = decided_out_of_fold(evidence, report.metric)
    again = sw.evaluate(decided, toy.catalog, metric=report.metric, bootstrap=0, min_values=2)
    assert report.score == pytest.approx(again.score)
    calibrated = sw.evaluate(out_of_fold(evidence).predictions(), toy.catalog, bootstrap=0, min_values=2)
    before = sw.evaluate(evidence.predictions(), toy.catalog, bootstrap=0, min_values=2)
    for name, source in (("ece", calibrated), ("log_loss", calibrated)):
        assert report.line(name, "Plates", "size").score == source.line(name, "Plates", "size").score
    assert report.line("ece_before").score == pytest.approx(before.line("ece").score)
    gain = report.line("gain")
    assert gain.low <= gain.score <= gain.high
    assert gain.score == pytest.approx(again.score - before.score)
    for share in ("0.25", "0.5", "1"):
        assert 0 < report.line(f"harmonic_f1@{share}").score <= 1
        assert 0 < report.line(f"harmonic_f1@{share}", "Plates", "colour").score <= 1
    assert report.line("harmonic_f1@1").score == report.score


def test_costs_and_a_promise_from_the_options(toy: Toy, machine: Machine, tmp_path: Path):
    (tmp_path / "costs.csv").write_text("attribute,truth,answer,cost\nsize,small,large,1000\n")
    decide = DecideOptions(cost=tmp_path / "costs.csv", precision=0.9, over="catalogue")
    options = {"evidence": 2, "machine": machine, "random_split": False, "curve": False}
    bundle = sw.fit(toy.catalog, toy_probe(), decide=decide, **options)  # type: ignore[arg-type]
    assert bundle.rule is not None
    assert set(bundle.rule.costs) == {("Plates", "size")}
    assert "over the whole catalogue" in " ".join(bundle.report.notes)
    every = bundle.answer(toy.catalog, every_cell=True, machine=machine)
    sizes = {every.of(row)["size"]["value"] for row in range(180) if "size" in every.of(row)}
    assert sizes == {"small"}, "calling a small one large is dear, the reverse next to nothing"
    held = bundle.answer(toy.catalog, machine=machine)
    assert held.counts().get("unsure", 0) > 0
    easier = bundle.answer(toy.catalog, precision=0.5, over="attribute", machine=machine)
    assert easier.counts()["answered"] >= held.counts().get("answered", 0)
    (tmp_path / "costs.csv").write_text("attribute,truth,answer,cost\nweight,a,b,1\n")
    with pytest.raises(ConfigError, match="no attribute 'weight'"):
        sw.fit(toy.catalog, toy_probe(), decide=decide, **options)  # type: ignore[arg-type]
