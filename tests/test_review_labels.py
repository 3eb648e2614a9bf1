"""What reviewers say on the pages, out as labels, raises the score of what is learnt from them."""

import csv
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi")
import review_samples as samples
import shelfwise as sw
from conftest import Toy
from shelfwise.catalog import Catalog
from shelfwise.evaluate import evaluate
from shelfwise.fit import fit
from shelfwise.predictions import Machine
from shelfwise.service.desk import Desk
from shelfwise.service.doubts import items_of
from shelfwise.service.labels import labels_of
from shelfwise.toys import TOY, toy_catalog
from test_review import HOST, ORIGIN, browser_of, fields, send


def careless(table: Path, out: Path, share: float, seed: int) -> None:
    """Write the table with this share of its labels replaced by other values of their attributes."""
    rng = np.random.default_rng(seed)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for name, values in TOY[row["category"]].items():
            if row[name] and rng.random() < share:
                row[name] = str(rng.choice([value for value in values if value != row[name]]))
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def test_corrections_made_on_the_pages_raise_the_score_of_a_refit(
    tmp_path: Path, toy: Toy, machine: Machine, one_thread: None
):
    clean = toy_catalog(tmp_path / "true", products=240, seed=11, missing=0.0)
    with clean.open(newline="") as file:
        truth = {row["id"]: row for row in csv.DictReader(file)}
    careless(clean, tmp_path / "true" / "careless.csv", 0.3, seed=0)
    recipe = sw.Probe(backbone=sw.backbone("toy"))

    def learnt(table: Path) -> tuple[sw.Bundle, Catalog, float]:
        catalog = Catalog.read(table)
        bundle = fit(catalog, recipe, evidence=3, machine=machine, random_split=False)
        unseen = bundle.read(toy.table)
        return bundle, catalog, evaluate(bundle.predict(unseen, machine), unseen, bootstrap=0).score

    bundle, catalog, before = learnt(tmp_path / "true" / "careless.csv")
    with Desk.open(tmp_path / "desk.sqlite") as desk:
        items = items_of(bundle, catalog, machine=machine)
        desk.fill(items, bundle="b" * 64, taxonomy=catalog.taxonomy, layout=bundle.schema.layout, second=0.0)
        client = browser_of(desk)
        page = client.get("/review").text
        for _ in range(120):
            if 'action="/review/decide"' not in page:
                break
            item = desk.item(fields(page)["key"])
            value = truth[item.id][item.attribute or "category"]
            page = (send(client, "typed", page, value=value) if value else send(client, "skip", page)).text
        labels = labels_of(desk)
        changed = sum(label.value != label.item.stated for label in labels.items)
        assert desk.verify() == ()
        labels.write(tmp_path / "true" / "reviewed.csv", onto=tmp_path / "true" / "careless.csv")
    assert changed > 40  # of the verdicts: what is asked first is mostly wrong
    after = learnt(tmp_path / "true" / "reviewed.csv")[2]
    assert after > before + 0.03, (before, after, changed)


def test_the_service_has_the_pages_with_their_own_policy(tmp_path: Path, saved: Path, machine: Machine):
    from fastapi.testclient import TestClient

    from shelfwise.service.access import Access
    from shelfwise.service.app import make_app
    from shelfwise.service.keys import KeyRing
    from shelfwise.service.serving import Serving

    place = samples.fill(tmp_path / "desk.sqlite", [samples.item(tmp_path, number) for number in range(3)])
    with Desk.open(place) as desk:
        app = make_app(Serving(saved, machine), Access(KeyRing(tmp_path / "keys"), True), desk=desk)
        with TestClient(app, base_url=HOST) as client:
            client.post("/review/name", data={"name": "Ann"}, headers=ORIGIN)
            page = client.get("/review")
            assert "script-src 'self'" in page.headers["content-security-policy"]
            assert page.headers["referrer-policy"] == "same-origin"
            assert client.get("/review/static/review.js").status_code == 200
            assert send(client, "accept", page.text).status_code == 200
            assert client.post("/review/decide", data=fields(page.text)).status_code == 403
        assert [verdict.reviewer for verdict in desk.verdicts()] == ["Ann"]
