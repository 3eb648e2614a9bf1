"""Brands found in titles, learnt on grouped training folds, and the speed of ways to look them up.

``seen_right``: share of titles whose stated brand occurs among the stated brands of the training folds and is the one
found. ``unseen``: titles whose stated brand does not; ``unseen_unknown`` is the share answered "unknown", which is
right, ``unseen_wrong`` the share given another brand. ``silent_found``: titles that state no brand and get one, learnt
from how names begin. ``leading_*``: the same where no product of the training folds states its brand. Titles a second
are measured over the titles of both catalogues with the brands of flipkart; the rival is spaCy's PhraseMatcher on
lower-cased words, the longest match kept, where spaCy is installed.

The catalogues are found through ``SHELFWISE_DATA`` and are not part of this repository.
"""

import argparse
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from shelfwise.catalog import Catalog
from shelfwise.data.brands import UNKNOWN, Brands, learn_brands
from shelfwise.data.group import near_duplicates
from shelfwise.files import cache_directory

DATA = Path(os.environ.get("SHELFWISE_DATA") or Path(__file__).resolve().parents[1] / "../shared/data")
FOLDS = 5


def texts(catalog: Catalog, column: str) -> list[str]:
    return [text or "" for text in catalog.texts(column)]


def scored(catalog: Catalog, seed: int, use_stated: bool) -> Counter[str]:
    """Count what is found in the titles of each fold with brands learnt on the others."""
    folds = catalog.folds(FOLDS, groups=near_duplicates(catalog, cache=cache_directory()), seed=seed)
    titles, stated = texts(catalog, "title"), texts(catalog, "brand")
    counts: Counter[str] = Counter()
    for fold in range(FOLDS):
        train = folds.train(fold).tolist()
        brands = learn_brands([titles[i] for i in train], [stated[i] for i in train] if use_stated else ())
        known = learn_brands([titles[i] for i in train], [stated[i] for i in train]).stated
        for row in folds.test(fold).tolist():
            found, true = brands.find(titles[row]), " ".join(stated[row].split())
            if not true:
                counts["silent"] += 1
                counts["silent_found"] += found != UNKNOWN
                continue
            alone = Brands(known, {}).find("", true)
            kind = "seen" if alone in known.values() else "unseen"
            same = found.casefold() == true.casefold()
            counts[kind] += 1
            counts[f"{kind}_right"] += same
            counts[f"{kind}_unknown"] += found == UNKNOWN
            counts[f"{kind}_wrong"] += not same and found != UNKNOWN
    return counts


def rate(find: Callable[[str], str], titles: Sequence[str]) -> float:
    """Return titles a second, the best of three runs."""
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        for title in titles:
            find(title)
        best = min(best, time.perf_counter() - start)
    return len(titles) / best


def phrases(brands: Brands) -> Callable[[str], str]:
    """Return a look-up by spaCy's PhraseMatcher over the same brands."""
    spacy, matcher_module = importlib.import_module("spacy"), importlib.import_module("spacy.matcher")
    nlp = spacy.blank("en")
    matcher = matcher_module.PhraseMatcher(nlp.vocab, attr="LOWER")
    matcher.add("brand", [nlp.make_doc(name) for name in brands.stated.values()])

    def find(title: str) -> str:
        doc = nlp.make_doc(title)
        spans = [(start, start - end) for _, start, end in matcher(doc)]
        if not spans:
            return UNKNOWN
        start, less = min(spans)
        return str(doc[start : start - less].text)

    return find


def import_seconds(module: str) -> float:
    """Return how long a fresh interpreter takes to import a module."""
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main(quick: bool = False) -> dict[str, Any]:
    result: dict[str, Any] = {"benchmark": "brands"}
    if not (DATA / "flipkart" / "catalog.csv").is_file():
        return {**result, "skipped": f"the catalogues are not at {DATA}: set SHELFWISE_DATA"}
    catalog = Catalog.read(DATA / "flipkart" / "catalog.csv")
    seeds = (0,) if quick else (0, 1, 2)
    for prefix, use_stated in (("", True), ("leading_", False)):
        counts = sum((scored(catalog, seed, use_stated) for seed in seeds), Counter[str]())
        for kind, ways in (
            ("seen", ("right", "unknown", "wrong")),
            ("unseen", ("right", "unknown", "wrong")),
        ):
            result[prefix + kind] = round(counts[kind] / len(seeds), 1)
            result |= {
                f"{prefix}{kind}_{way}": round(counts[f"{kind}_{way}"] / counts[kind], 4) for way in ways
            }
        result[f"{prefix}silent"] = counts["silent"] // len(seeds)
        result[f"{prefix}silent_found"] = round(counts["silent_found"] / counts["silent"], 4)
    brands = learn_brands(titles := texts(catalog, "title"), texts(catalog, "brand"))
    if (DATA / "fashion" / "catalog.csv").is_file():
        titles = titles + texts(Catalog.read(DATA / "fashion" / "catalog.csv"), "title")
    result |= {"titles": len(titles), "brands": len(brands.stated) + len(brands.leading)}
    result["titles_a_second"] = round(rate(brands.find, titles))
    if importlib.util.find_spec("spacy") is not None:
        ours, theirs = Brands(brands.stated, {}).find, phrases(brands)
        result["spacy_titles_a_second"] = round(rate(theirs, titles))
        result["spacy_import_seconds"] = round(import_seconds("spacy"), 2)
        result["spacy_same_answer"] = round(
            sum(ours(t).casefold() == theirs(t).casefold() for t in titles) / len(titles), 4
        )
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    print(json.dumps(main(**vars(parser.parse_args()))))
