"""Small values for pages, with names that a supplier might send, and the pages made of them."""

from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image
from scipy.stats import norm

from shelfwise import pages
from shelfwise.amounts import LEVELS, Amounts, ascending
from shelfwise.catalog import Catalog
from shelfwise.describe import Count, Description, describe
from shelfwise.evaluate import compare, evaluate
from shelfwise.findings import Finding, Findings
from shelfwise.predictions import Block, Predictions
from shelfwise.report import Line, Report
from shelfwise.roles import Columns
from shelfwise.taxonomy import Choice, Taxonomy
from shelfwise.trust.evidence import Evidence, EvidenceBlock

SCRIPT = "<script>alert(1)</script>"
LONG = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 2
#: Names as they come: markup, quotes, formulas, right-to-left, emoji with joiners, no place to break, control.
HOSTILE = (
    SCRIPT,
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "$x^2_{}$ \\frac",
    "קטגוריה עם שוליים",
    "\u202egnirts a",
    "👩‍👩‍👧‍👦 family 🧥",
    LONG,
    "nul\x00 bell\x07",
    "</title></svg></style>",
)
CATEGORIES = ("Tops", SCRIPT, "קטגוריה")


def taxonomy(categories: tuple[str, ...] = CATEGORIES) -> Taxonomy:
    entries = {
        name: (
            Choice("sleeve", ("short", "long", "none")),
            Choice(HOSTILE[1], (SCRIPT, "👩‍👩‍👧‍👦", LONG)),
            Choice("only", ("one",)),
        )
        for name in categories
    }
    return Taxonomy(entries)


def evidence(categories: tuple[str, ...] = CATEGORIES, each: int = 60, seed: int = 0) -> Evidence:
    """Rows answered better than chance; of the last attribute, with one value, nothing is stated."""
    rng = np.random.default_rng(seed)
    of, blocks = taxonomy(categories), []
    for number, name in enumerate(categories):
        labels = rng.integers(0, 3, (each, 3)).astype(np.int32)
        labels[:, 2] = -1
        labels[rng.random((each, 3)) < 0.1] = -1
        probs = np.zeros((each, 7), np.float32)
        probs[:, 6] = 1
        for a in range(2):
            score = rng.normal(size=(each, 3)) + 1.6 * (labels[:, [a]] == np.arange(3))
            share = np.exp(score) / np.exp(score).sum(axis=1, keepdims=True)
            probs[:, 3 * a : 3 * a + 3] = share
        rows = np.arange(number * each, (number + 1) * each)
        blocks.append(EvidenceBlock(name, rows, probs, labels))
    n = each * len(categories)
    ids = tuple(f"{HOSTILE[k % len(HOSTILE)]}{k}" for k in range(n))
    return Evidence(of, ids, np.arange(n) // 2, np.arange(n) % 5, tuple(blocks))


def catalogue(directory: Path, categories: tuple[str, ...] = ("Tops", SCRIPT), each: int = 60) -> Catalog:
    """A table with two attributes, a price and pictures, some of them missing."""
    rng = np.random.default_rng(1)
    rows = []
    for k in range(each * len(categories)):
        path = directory / f"{k}.png"
        if k % 7 and not path.exists():
            Image.new("RGB", (40 + k % 3, 60), (k % 255, 90, 120)).save(path)
        rows.append(
            {
                "id": f"p{k}",
                "category": categories[k % len(categories)],
                "image": path.name,
                "sleeve": ("short", "long", "")[int(rng.integers(3))],
                "colour": (SCRIPT, "red", "", "👩‍👩‍👧‍👦")[int(rng.integers(4))],
                "price": f"{rng.lognormal(3, 1.5):.2f}",
            }
        )
    return Catalog.read(pl.DataFrame(rows), images=directory)


def priced(directory: Path, each: int = 90) -> Catalog:
    """A table of two numbers and no attribute; their names are markup, and so are categories and units."""
    rng = np.random.default_rng(2)
    rows = [
        {
            "id": HOSTILE[k % len(HOSTILE)] + str(k),
            "category": CATEGORIES[k % 3],
            SCRIPT: f"{rng.lognormal(4, 1.2):.2f}" if k % 9 else "",
            LONG: f"{rng.normal(0, 30):.1f}",
        }
        for k in range(3 * each)
    ]
    units = {SCRIPT: HOSTILE[1], LONG: "$x_2$"}
    return Catalog.read(pl.DataFrame(rows), columns=Columns(number=(SCRIPT, LONG)), units=units)


def toy_amounts(catalog: Catalog, noise: float = 0.3, seed: int = 0) -> tuple[Amounts, ...]:
    """Distributions of every Number about what is stated, with noise on the standardised scale."""
    rng, found = np.random.default_rng(seed), []
    for name in catalog.taxonomy.number_names:
        number = catalog.taxonomy.number(name)
        middle = np.nan_to_num(number.forward(catalog.numbers(name))) + noise * rng.normal(size=len(catalog))
        spread = middle[:, None] + 0.7 * noise * norm.ppf(LEVELS)
        found.append(Amounts(name, np.arange(len(catalog)), ascending(number.inverse(spread))))
    return tuple(found)


def toy_numbers(catalog: Catalog, noise: float = 0.3) -> Predictions:
    """Predictions of a catalogue of Numbers alone."""
    blocks = tuple(
        Block(c, catalog.rows(c), np.zeros((len(catalog.rows(c)), 0), np.float32)) for c in catalog.present
    )
    return Predictions(catalog.taxonomy, catalog.ids, blocks, {}, amounts=toy_amounts(catalog, noise))


def scored(found: Evidence) -> Report:
    """A report written by hand, learning curves included."""
    lines = [Line("overall", None, None, None, "harmonic_f1", 0.61, 0.58, 0.64, 300)]
    lines.append(Line("overall", None, None, None, "majority", 0.2, support=300))
    for category in found.taxonomy.categories:
        lines.append(Line("category", category, None, None, "harmonic_f1", 0.6, 0.5, 0.7, 100))
        for choice in found.taxonomy.choices(category):
            key = ("attribute", category, choice.name, None)
            lines.append(
                Line(*key, "harmonic_f1", float("nan") if choice.name == "only" else 0.6, 0.5, 0.7, 50)
            )
            for step, (share, score) in enumerate((("0.25", 0.4), ("0.5", 0.5), ("1", 0.6))):
                lines.append(Line(*key, f"harmonic_f1@{share}", score, support=10 * step))
            for value in choice.values:
                for metric in ("precision", "recall", "f1"):
                    lines.append(Line("value", category, choice.name, value, metric, 0.3, support=25))
    return Report("harmonic_f1", tuple(lines), 180, 2, 90, 1000, 0, False, (f"A note with {SCRIPT}.",))


@cache
def all_pages(directory: Path) -> dict[str, str]:
    """Every page once, of hostile values."""
    found = evidence()
    catalog = catalogue(directory)
    thresholds = {pair.name: 0.6 for pair in found.pairs()} | {(SCRIPT, "sleeve"): float("inf")}
    measured = pages.Measured(found, evidence(seed=0), thresholds, 0.9)
    report, facts = scored(found), [(SCRIPT, SCRIPT)]
    description = describe(catalog, groups=np.arange(len(catalog)) // 2)
    findings = Findings.of_all(
        [
            Finding("bad_cell", f"what about {name}", k + 1, name, name, "warning")
            for k, name in enumerate(HOSTILE)
        ]
    )
    pictures = [path for path in catalog.images if path is not None]
    broken = directory / "broken.jpg"
    broken.write_bytes(b"not a picture")
    slips = [
        pages.Mismatch(
            f"n{k}", SCRIPT, HOSTILE[k], HOSTILE[k + 1], "129.00", "10.00 to 16.50", 0.01, 0.9, 5e7,
            image=pictures[k], number=True, fits="a tenth of it, 12.90, would fit" if k else "",
        )
        for k in range(2)
    ]  # fmt: skip
    mismatches = [
        pages.Mismatch(
            HOSTILE[k % len(HOSTILE)], CATEGORIES[k % 3], HOSTILE[(k + 1) % len(HOSTILE)], "attr_1",
            HOSTILE[(k + 2) % len(HOSTILE)], "long", 0.001 * k, 0.9, 900 / (k + 1),
            ((SCRIPT, pictures[0]), ("2", None), ("3", broken)),
            (pictures[k % len(pictures)], None, broken)[k % 3],
        )
        for k in range(12)
    ]  # fmt: skip
    mismatches[1:1] = slips
    truth = catalog
    predictions = toy_predictions(truth)
    comparison = compare(
        [("first", predictions[0]), (SCRIPT, predictions[1])],
        truth,
        bootstrap=50,
        groups=np.arange(len(truth)) // 2,
    )
    numbers = priced(directory)
    groups = np.arange(len(numbers)) // 2
    answered = toy_numbers(numbers)
    of_numbers = evaluate(answered, numbers, groups=groups, bootstrap=50)
    described = Description((*description.counts, *pictured(catalog)), SCRIPT)
    return {
        "fit": pages.fit_page(
            report, measured, source=SCRIPT, advice=HOSTILE, facts=facts, training=training()
        ),
        "evaluation": pages.evaluation_page(report, pages.Measured(found), source=LONG),
        "audit": pages.audit_page(mismatches, source=SCRIPT, total=900, cells=5000, most=10, table="all.csv"),
        "data": pages.data_page(described, catalog, findings),
        "compare": pages.compare_page(comparison, source=SCRIPT),
        "run": pages.run_page(training(), source=SCRIPT, facts=facts),
        "numbers": pages.fit_page(of_numbers, pages.measured_on(answered, numbers, groups), source=SCRIPT),
        "number_data": pages.data_page(describe(numbers), numbers, findings),
        "number_compare": pages.compare_page(
            compare(
                [("first", answered), (SCRIPT, toy_numbers(numbers, 0.6))],
                numbers,
                bootstrap=50,
                groups=groups,
            )
        ),
    }


def training(epochs: int = 6) -> list[dict[str, object]]:
    """The lines of a training in two phases, one attribute without a score, one group not trained at first."""
    lines: list[dict[str, object]] = []
    for epoch in range(epochs):
        scores = [
            [category, choice.name, None if choice.name == "only" else 0.9 - 0.5 / (epoch + 1 + 0.3 * k)]
            for category in CATEGORIES
            for k, choice in enumerate(taxonomy().choices(category))
        ]
        common = {
            "phase": int(epoch > 1),
            "epoch": epoch,
            "of": 10 * epochs,
            "seconds_left": 9.0,
            "best": True,
        }
        rates = {"stem": 0.0 if epoch < 2 else 1e-5 / epoch, SCRIPT: 1e-3 / (epoch + 1), "heads": 0.01}
        more = {"rates": rates, "pictures_per_second": 52.0, "score": None, "loss": 2.0 / (epoch + 1)}
        lines.append({"kind": "step", "step": 10 * epoch + 1, **common, **more})
        lines.append(
            {
                "kind": "epoch", "step": 10 * epoch + 10, **common, **more,
                "score": 0.9 - 0.5 / (epoch + 1), "scores": scores, "pair_loss": scores,
            }
        )  # fmt: skip
    return lines


def pictured(catalog: Catalog) -> list[Count]:
    """Measures of pictures, as a description with facts has them."""
    counts = []
    for category in catalog.present:
        counts.append(Count("category", category, None, None, "readable", 40))
        for measure in ("width", "height", "blur", "brightness", "dark_share", "bright_share"):
            for quantile, number in ((5, 0.1), (50, 0.3), (95, 0.9)):
                counts.append(Count("category", category, None, None, f"{measure}_p{quantile}", number))
        counts.append(Count("together", category, "sleeve", "colour", "phi", 0.45))
        counts.append(Count("together", category, "sleeve", "colour", "both_missing", 12))
    return counts


def toy_predictions(catalog: Catalog) -> list[Predictions]:
    """Two sets of predictions of a catalogue: one right, one at random."""
    rng = np.random.default_rng(3)
    found = []
    for good in (True, False):
        blocks = []
        for category in catalog.present:
            rows, labels = catalog.rows(category), catalog.labels(category)
            probs = rng.random((len(rows), catalog.taxonomy.width(category))).astype(np.float32)
            for a, part in enumerate(catalog.taxonomy.slices(category)):
                if good:
                    known = labels[:, a] >= 0
                    probs[np.flatnonzero(known), part.start + labels[known, a]] += 2
                probs[:, part] /= probs[:, part].sum(axis=1, keepdims=True)
            blocks.append(Block(category, rows, probs))
        amounts = toy_amounts(catalog, 0.2 if good else 0.8)
        found.append(Predictions(catalog.taxonomy, catalog.ids, tuple(blocks), {}, amounts=amounts))
    return found


def evaluated(catalog: Catalog) -> Report:
    return evaluate(toy_predictions(catalog)[0], catalog, bootstrap=20)
