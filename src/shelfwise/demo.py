"""Demo: a small rendered catalogue with known answers, and every verb run on it.

It draws no picture itself and learns nothing itself; each step is one library call, explained in a line.
"""

import time
from collections.abc import Callable
from pathlib import Path

from shelfwise.bundle import load
from shelfwise.catalog import Catalog
from shelfwise.config import read_run
from shelfwise.errors import UsageError
from shelfwise.evaluate import evaluate
from shelfwise.findings import Findings
from shelfwise.predictions import Machine
from shelfwise.rendering import RenderedCatalog, contact_sheet, render_catalog
from shelfwise.report import Report
from shelfwise.roles import Columns
from shelfwise.start import check, fit_run, init


def demo(
    directory: Path,
    *,
    products: int = 1500,
    seed: int = 0,
    machine: Machine,
    say: Callable[[str], None] = print,
) -> Report:
    """Render a catalogue and run init, check, fit, evaluate and predict on it.

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
    progress = machine.progress

    def step(number: int, text: str) -> None:
        say(f"\n[{number}/6] {text}  ({time.monotonic() - begun:.0f} s)")

    step(1, f"render: {products:,} products of five categories, drawn with known attributes")
    drawn = (lambda done, total: progress("drawing", done, total)) if progress is not None else None
    rendered = render_catalog(directory / "catalogue", products=products, seed=seed, progress=drawn)
    contact_sheet(rendered, directory / "contact-sheet.png")
    say(
        f"      {rendered.train_count:,} to learn from, {rendered.test_count:,} to answer; planted: "
        f"{len(rendered.wrong_labels)} wrong labels, {len(rendered.duplicates)} near-duplicates, "
        f"{len(rendered.unreadable)} unreadable files"
    )

    step(2, "init: settle the columns, write shelfwise.toml and taxonomy.json")
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

    step(3, "check: every cell and every image, all problems at once")
    findings, _ = check(run_file, machine=machine)
    findings.write(directory / "findings.csv")
    say(_indented(_compared(findings, rendered)))

    step(4, "fit: learn every attribute, and measure out of fold what to expect on unseen products")
    options = read_run(run_file, [f"seed={seed}"])
    bundle, _ = fit_run(options, machine=machine)
    bundle.save(directory / "bundle")
    line = bundle.report.expected
    say(f"      expected {bundle.report.metric}: {line.score:.3f} [{line.low:.3f}, {line.high:.3f}]")
    say(_indented("\n".join(bundle.report.notes)))

    step(5, "evaluate: the bundle on the test products, against the values they were drawn with")
    bundle = load(directory / "bundle")
    truth = bundle.read(rendered.test_labels, images=rendered.test_images)
    report = evaluate(bundle.predict(truth, machine), truth, seed=seed)
    report.write(directory / "report.json")
    say(_indented(str(report)))

    step(6, "predict: fill in the test table, which states nothing but id and category")
    test = bundle.read(rendered.test, images=rendered.test_images)
    answers = bundle.answer(test, machine=machine)
    answers.write(directory / "submission.csv")
    lines = (directory / "submission.csv").read_text(encoding="utf-8").splitlines()
    say(_indented("\n".join(lines[:4])))
    say(f"      {len(answers):,} rows, {len(answers.errors)} of them with an error (submission.errors.csv)")

    say(
        f"\nScore on {rendered.test_count:,} unseen products: {report.metric} {report.score:.3f}  "
        f"({time.monotonic() - begun:.0f} s in all)"
    )
    say(
        f"Where to look: {directory / 'contact-sheet.png'} (the products), {directory / 'shelfwise.toml'} (the run), "
        f"{directory / 'bundle' / 'card.md'} (what was learnt), {directory / 'submission.csv'} (the answers), "
        f"{directory / 'findings.csv'} (what is wrong with the table)."
    )
    say(f"Next: shelfwise show {directory / 'bundle'}")
    return report


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
