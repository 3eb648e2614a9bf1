"""Scores on products that a bundle has learnt from: by what was said of them out of fold."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import shelfwise as sw
from conftest import Shell, Toy
from shelfwise.bundle import Bundle
from shelfwise.evaluate import evaluate
from shelfwise.expect import counted_cells
from shelfwise.predictions import Machine
from shelfwise.trust.decide import decided_out_of_fold
from shelfwise.unseen import Learnt, answer_unseen, left_out, predict_unseen

QUICK = ("--jobs", "1", "--engine", "torch")


@pytest.fixture(scope="module")
def held(toy: Toy, machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles that hold out a third: one that learnt from all of it afterwards, one that did not."""
    from shelfwise.models.towers import one_thread

    found = {}
    for name in ("everything", "split"):
        with one_thread():
            recipe = sw.Probe(backbone=sw.backbone("toy"))
            made = sw.fit(
                toy.catalog,
                recipe,
                evidence=0.34,
                learn_from=name,
                machine=machine,
                random_split=False,
                curve=False,
            )
        found[name] = tmp_path_factory.mktemp("held") / name
        made.save(found[name])
    return found


def test_every_product_learnt_from_is_answered_out_of_fold(
    bundle: Bundle, toy: Toy, machine: Machine, one_thread
):
    learnt = Learnt.of(bundle, toy.catalog, machine)
    assert learnt.learnt.all()
    assert learnt.fair.all()
    answers = answer_unseen(bundle, toy.catalog, learnt, machine)
    told = decided_out_of_fold(bundle.evidence, bundle.rule.metric, costs=bundle.rule.costs)
    for block in told.blocks:
        own, rows = answers.block(block.category), [bundle.evidence.ids[row] for row in block.rows]
        at = np.searchsorted(own.rows, [toy.catalog.ids.index(id_) for id_ in rows])
        assert (own.codes[at] == block.codes).all()
        assert (own.probability[at] == block.probability).all()
    plain = bundle.answer(toy.catalog, every_cell=True, machine=machine)
    assert any(
        (a.probability != b.probability).any() for a, b in zip(plain.blocks, answers.blocks, strict=True)
    )
    # To the last digit what `fit` said to expect, of the cells that it counts.
    report = evaluate(answers, toy.catalog, bootstrap=0, **counted_cells(toy.catalog))
    assert report.score == pytest.approx(bundle.report.score, abs=1e-12)
    sure = predict_unseen(bundle, toy.catalog, learnt, machine)
    assert any(
        (a.probs != b.probs).any()
        for a, b in zip(bundle.predict(toy.catalog, machine).blocks, sure.blocks, strict=True)
    )


def test_other_products_and_other_pictures_are_answered_as_ever(bundle: Bundle, toy: Toy, machine: Machine):
    frame = pl.read_csv(toy.table, infer_schema=False)
    renamed = bundle.read(frame.with_columns(id=pl.lit("new-") + pl.col("id")), images=toy.directory)
    learnt = Learnt.of(bundle, renamed, machine)
    assert not learnt.learnt.any()
    assert left_out("b", learnt, np.ones(len(renamed), bool)) == ""
    # The same ids with each other's photos are other products.
    turned = frame.with_columns(image=pl.col("image").reverse(), category=pl.col("category").reverse())
    assert not Learnt.of(bundle, bundle.read(turned, images=toy.directory), machine).learnt.any()


def test_a_holdout_is_what_can_be_judged(held: dict[str, Path], toy: Toy, machine: Machine, one_thread):
    both, split = (sw.load(held[name]) for name in ("everything", "split"))
    learnt = Learnt.of(both, toy.catalog, machine)
    assert learnt.learnt.all()
    assert set(np.array(toy.catalog.ids)[learnt.fair]) == set(both.evidence.ids)
    apart = Learnt.of(split, toy.catalog, machine)
    assert (apart.learnt == ~learnt.fair).all(), "what was held out was never learnt from"
    assert (apart.fair == learnt.fair).all()


def test_what_is_scored_from_memory_is_not_said_to_be_left_out():
    """Two bundles that held out different products: together they can be judged on none."""
    whole = np.ones(4, bool)
    first = Learnt(whole, np.array([0, 1, -1, -1]))
    said = left_out("b", first, whole)
    assert "2 have out-of-fold answers; 2 have none and are scored all the same" in said
    assert "left out" not in said
    assert "2 have none and are left out" in left_out("b", first, first.fair)


def test_the_verbs_say_what_they_judge_by(
    shell: Shell, saved: Path, held: dict[str, Path], toy: Toy, machine: Machine, tmp_path: Path
):
    given = ("--cache", str(machine.cache), *QUICK)
    ran = shell("evaluate", saved, toy.table, *given, "--html", tmp_path / "e.html")
    assert "has learnt from 180 of the 180 products: 180 have out-of-fold answers" in ran.out
    apart = shell("evaluate", held["split"], toy.table, *given)
    assert "have none and are left out" in apart.out
    ran = shell(
        "compare", saved, held["everything"], held["split"], toy.table, *given, "-o", tmp_path / "c.json"
    )
    assert ran.code == 0
    assert ran.out.count("has learnt from") == 3
    frame, images = pl.read_csv(toy.table, infer_schema=False), ("--images", toy.directory)
    frame.with_columns(id=pl.lit("n") + pl.col("id")).write_csv(tmp_path / "new.csv")
    ran = shell("evaluate", saved, tmp_path / "new.csv", *images, *given)
    assert (ran.code, "learnt from" in ran.out) == (0, False)
    evidence = sw.load(held["everything"]).evidence
    frame.filter(~pl.col("id").is_in(evidence.ids)).write_csv(tmp_path / "learnt.csv")
    ran = shell("evaluate", held["everything"], tmp_path / "learnt.csv", *images, *given)
    assert "this is what it remembers, not what it knows of others" in ran.out
    # A file of answers is scored on the products that a bundle beside it can be judged on.
    out = tmp_path / "out.csv"
    assert shell("predict", saved, toy.table, "-o", out, *given).code == 0
    ran = shell("compare", out, held["split"], toy.table, *given)
    assert (ran.code, "are left out" in ran.out) == (0, True), ran.err
