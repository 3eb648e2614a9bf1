"""Demo: a small rendered catalogue with known answers, and every verb run on it.

It draws no picture itself and learns nothing itself; each step is one library call, explained in a line.
"""

import time
from collections.abc import Callable
from pathlib import Path

from shelfwise.auditing import audit_table, write_audit_page
from shelfwise.bundle import Bundle, load
from shelfwise.catalog import Catalog
from shelfwise.config import read_run
from shelfwise.errors import UsageError
from shelfwise.evaluate import evaluate
from shelfwise.findings import Findings
from shelfwise.pages import bundle_page, write_page
from shelfwise.predictions import Machine
from shelfwise.rendering import RenderedCatalog, contact_sheet, render_catalog
from shelfwise.report import Report
from shelfwise.roles import Columns
from shelfwise.start import check, fit_run, init
from shelfwise.trust.audit import Audit

Say = Callable[[str], None]
#: The promise that the test table is answered under.
PRECISION = 0.95
#: Look-alikes named beside each stated value, and the share of the audit's rows that is looked at.
LOOK_ALIKES, FIRST = 3, 0.05


def demo(
    directory: Path,
    *,
    products: int = 1500,
    seed: int = 0,
    machine: Machine,
    say: Say = print,
) -> Report:
    """Render a catalogue and run init, check, fit, audit, evaluate and predict on it.

    Args:
        directory: a new or empty folder.
        products: how many products to draw, training and test together.
        seed: of the drawings and of the folds.
        machine: where to compute.
        say: told what happens, a line at a time.

    Returns:
        The score on the test products against their drawn, true values.

    Raises:
        UsageError: the folder is not empty.
    """
    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(f"{directory} is not an empty folder; the demo writes into a new one")
    begun = time.monotonic()

    def step(number: int, text: str) -> None:
        say(f"\n[{number}/7] {text}  ({time.monotonic() - begun:.0f} s)")

    say(
        f"In about a minute, open {directory / 'report.html'} in a browser: what to expect, and how sure it is."
    )
    step(1, f"render: {products:,} products of five categories, drawn with known attributes")
    rendered = _render(directory, products, seed, machine, say)
    step(2, "init: settle the columns, write shelfwise.toml and taxonomy.json")
    run_file = _init(directory, rendered, say)
    step(3, "check: every cell and every image, all problems at once")
    findings, _ = check(run_file, machine=machine)
    findings.write(directory / "findings.csv")
    say(_indented(_compared(findings, rendered)))
    step(4, "fit: learn every attribute, and measure out of fold what to expect on unseen products")
    bundle = _fit(directory, run_file, seed, machine, say)
    step(5, "audit: the labels that were learnt from, judged by the pictures out of fold")
    _audit(directory, bundle, rendered, machine, say)
    step(6, "evaluate: the bundle on the test products, against the values they were drawn with")
    truth = bundle.read(rendered.test_labels, images=rendered.test_images)
    report = evaluate(bundle.answer(truth, every_cell=True, machine=machine), truth, seed=seed)
    report.write(directory / "report.json")
    say(_indented(str(report)))
    step(7, "predict: fill in the test table, which states nothing but id and category")
    _predict(directory, bundle, rendered, truth, machine, say)
    say(
        f"\nScore on {rendered.test_count:,} unseen products: {report.metric} {report.score:.3f}  "
        f"({time.monotonic() - begun:.0f} s in all)"
    )
    say(
        f"In {directory}: contact-sheet.png (the products), findings.csv (what is wrong with the table), "
        "shelfwise.toml (the run), bundle/card.md (what was learnt), audit.csv (every stated value), "
        "submission.csv and promised.csv (the answers)."
    )
    say(f"Next: open {directory / 'report.html'} and {directory / 'audit.html'}")
    return report


def _render(directory: Path, products: int, seed: int, machine: Machine, say: Say) -> RenderedCatalog:
    progress = machine.progress
    drawn = (lambda done, total: progress("drawing", done, total)) if progress is not None else None
    rendered = render_catalog(directory / "catalogue", products=products, seed=seed, progress=drawn)
    contact_sheet(rendered, directory / "contact-sheet.png")
    say(
        f"      {rendered.train_count:,} to learn from, {rendered.test_count:,} to answer; planted: "
        f"{len(rendered.wrong_labels)} wrong labels, {len(rendered.duplicates)} near-duplicates, "
        f"{len(rendered.unreadable)} unreadable files"
    )
    return rendered


def _init(directory: Path, rendered: RenderedCatalog, say: Say) -> Path:
    catalog = Catalog.read(rendered.train, images=rendered.train_images, attributes=rendered.attributes)
    run_file, _ = init(
        catalog,
        rendered.train,
        directory,
        images=rendered.train_images,
        attributes=rendered.attributes,
        columns=Columns(),
    )
    say(_indented(catalog.describe_roles()))
    return run_file


def _fit(directory: Path, run_file: Path, seed: int, machine: Machine, say: Say) -> Bundle:
    """Fit, save, write the page, and return what was read back from disk."""
    bundle, _ = fit_run(read_run(run_file, [f"seed={seed}"]), machine=machine)
    bundle.save(directory / "bundle")
    line = bundle.report.expected
    say(f"      expected {bundle.report.metric}: {line.score:.3f} [{line.low:.3f}, {line.high:.3f}]")
    say(_indented("\n".join(bundle.report.notes)))
    bundle = load(directory / "bundle")
    write_page(directory / "report.html", bundle_page(bundle))
    say(f"      wrote {directory / 'report.html'}")
    return bundle


def _audit(directory: Path, bundle: Bundle, rendered: RenderedCatalog, machine: Machine, say: Say) -> None:
    train = bundle.read(rendered.train, images=rendered.train_images)
    found = audit_table(bundle, train, look_alikes=LOOK_ALIKES, machine=machine)
    found.write(directory / "audit.csv")
    write_audit_page(directory / "audit.html", found, train, bundle, "audit.csv")
    say(f"      {_caught(found, rendered)}")
    say(f"      wrote {directory / 'audit.csv'} and {directory / 'audit.html'}")


def _predict(
    directory: Path,
    bundle: Bundle,
    rendered: RenderedCatalog,
    truth: Catalog,
    machine: Machine,
    say: Say,
) -> None:
    """Answer every cell, and once more only what keeps a promise."""
    test = bundle.read(rendered.test, images=rendered.test_images)
    answers = bundle.answer(test, every_cell=True, machine=machine)
    answers.write(directory / "submission.csv")
    lines = (directory / "submission.csv").read_text(encoding="utf-8").splitlines()
    say(_indented("\n".join(lines[:4])))
    say(f"      {len(answers):,} rows, {len(answers.errors)} of them with an error (submission.errors.csv)")
    promised = bundle.answer(test, precision=PRECISION, machine=machine)
    promised.write(directory / "promised.csv", explain=True)
    say(_indented("\n".join(promised.notes)))
    counted = ", ".join(
        f"{count:,} {state}" for state, count in promised.counts().items() if state != "error"
    )
    say(f"      promised.csv: {counted}")
    if not promised.counts().get("answered"):
        say(f"      Promised {PRECISION:.0%}: of so few products, nothing can be promised.")
        return
    kept = evaluate(promised, truth, coverage=True, bootstrap=0)
    say(
        f"      Promised {PRECISION:.0%}: {kept.line('coverage').score:.1%} of the test cells are answered, "
        f"and {kept.line('cells_right').score:.1%} of those are right."
    )


def _caught(found: Audit, rendered: RenderedCatalog) -> str:
    """How many of the planted wrong labels come first."""
    planted = {(str(label.id), label.column) for label in rendered.wrong_labels}
    frame = found.frame()
    ranked = [cell in planted for cell in zip(frame["id"], frame["column"], strict=True)]
    first = round(len(ranked) * FIRST)
    return (
        f"{len(ranked):,} stated values; of the {sum(ranked)} planted wrong labels with a readable picture, "
        f"{sum(ranked[:first])} are among the first {first:,} ({FIRST:.0%})"
    )


def _compared(findings: Findings, rendered: RenderedCatalog) -> str:
    """What was found beside what was planted."""
    unreadable = {str(item.id) for item in rendered.unreadable if item.split == "train"}
    noticed = {
        finding.id
        for finding in findings
        if finding.kind.startswith("image_") and finding.severity == "error"
    }
    counted = ", ".join(f"{count} {kind}" for kind, count in findings.counts().items())
    return (
        f"{len(findings)} findings: {counted}\n"
        f"unreadable files found: {len(unreadable & noticed)} of {len(unreadable)} planted"
    )


def _indented(text: str) -> str:
    return "\n".join(f"      {line}".rstrip() for line in text.rstrip("\n").split("\n"))
