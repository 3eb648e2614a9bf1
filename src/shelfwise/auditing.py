"""Auditing a table with a bundle: what its cells and texts state, beside what the pictures show.

It does not know how anything is ranked. Products that the bundle was learnt from are judged by their
out-of-fold probabilities, never by the model that has seen their labels.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shelfwise.bundle import Bundle, load
from shelfwise.catalog import Catalog
from shelfwise.data.clean import clean
from shelfwise.errors import BundleError, UsageError
from shelfwise.files import cache_directory
from shelfwise.findings import Findings
from shelfwise.predictions import Machine, Predictions
from shelfwise.roles import Columns
from shelfwise.trust.audit import Audit, audit
from shelfwise.trust.learnt import look_alike_ids, out_of_fold
from shelfwise.trust.mispriced import NumberAudit, audit_numbers

if TYPE_CHECKING:
    from shelfwise.pages import Mismatch

#: Look-alikes that are asked for, for each that is named: not every one confirms the attribute.
ASKED = 10
#: Mismatches on a page.
SHOWN = 200


def audit_table(
    bundle: Bundle,
    catalog: Catalog,
    *,
    weights: Mapping[str, float] | None = None,
    look_alikes: int = 0,
    machine: Machine | None = None,
) -> Audit:
    """Judge every stated value of a table by its picture, most suspicious first.

    Args:
        bundle: what was learnt.
        catalog: the products, read by ``Bundle.read`` or ``Catalog.read``.
        weights: per attribute name, what an error there weighs; 1 where not named.
        look_alikes: how many of the nearest confirmed training products are named beside each value.
        machine: where to compute.

    Raises:
        BundleError: look-alikes are asked for, and the bundle keeps no index.
        TaxonomyError: a weight for an attribute that there is not.
    """
    machine, catalog = bundle.on(machine), catalog.under(bundle.schema).remembering()
    evidence, index, reader = bundle.calibrated, bundle.index, bundle.claims
    if look_alikes and (index is None or evidence is None):
        raise BundleError("the bundle keeps no index of its training products, so there are no look-alikes")
    predictions = bundle.predict(catalog, machine)
    if evidence is not None:
        predictions = out_of_fold(predictions, catalog, evidence)
    found = audit(
        predictions,
        catalog,
        claims=None if reader is None else reader.read(catalog),
        weights=weights,
        reference=evidence,
    )
    found = replace(
        found, numbers=_numbers(bundle, predictions, catalog), category_of=_category_cells(catalog)
    )
    if look_alikes and index is not None and evidence is not None:
        near = index.look_alikes(catalog, ASKED * look_alikes, machine).positions
        found = found.with_evidence(look_alike_ids(found, near, index.ids, evidence, look_alikes))
    return found


def _numbers(bundle: Bundle, predictions: Predictions, catalog: Catalog) -> tuple[NumberAudit, ...]:
    """Judge stated numbers; those of products learnt from by what was said of them out of fold."""
    found = []
    for item in predictions.amounts:
        stated_N = catalog.numbers(item.name)
        if np.isfinite(stated_N).any():
            number, coverage = catalog.taxonomy.number(item.name), bundle.run.decide.coverage
            found.append(audit_numbers(item, number, stated_N, catalog.ids, coverage=coverage))
    return tuple(found)


def _category_cells(catalog: Catalog) -> tuple[str | None, ...]:
    names = (*catalog.taxonomy.categories, None)
    return tuple(names[max(code, -1)] for code in catalog.category.tolist())


def find_suspects(bundle: Bundle, catalog: Catalog, *, machine: Machine | None = None) -> Findings:
    """Return the stated values of a table that are probably wrong, as findings; changes nothing.

    Args:
        bundle: fitted on this table, which is then judged out of fold, or on another.
        catalog: the products.
        machine: where to compute.
    """
    return audit_table(bundle, catalog, machine=machine).findings()


def clean_table(
    table: Path,
    *,
    images: Path | None = None,
    attributes: Path | None = None,
    columns: Columns | None = None,
    bundle: Path | None = None,
    suspects: bool = False,
    machine: Machine | None = None,
) -> Findings:
    """Find what is wrong with a table's pictures and labels; changes nothing.

    Args:
        table, images, attributes, columns: as ``Catalog.read`` takes them.
        bundle: judges the labels; it also says how the table is read.
        suspects: also return doubtful labels and claims, after the other findings of their severity.
        machine: where to compute.

    Raises:
        UsageError: suspects without a bundle, or a bundle without suspects.
    """
    if suspects != (bundle is not None):
        raise UsageError("--suspects and --bundle go together: doubtful labels are judged by a bundle")
    machine = machine or Machine()
    if bundle is None:
        judge, catalog = None, Catalog.read(table, images=images, attributes=attributes, columns=columns)
    else:
        judge = load(bundle)
        catalog = judge.read(table, images=images, columns=columns)
    found = clean(catalog, cache=cache_directory(machine.cache), jobs=machine.jobs, progress=machine.progress)
    return found if judge is None else found + find_suspects(judge, catalog, machine=machine)


def summary(found: Audit, bundle: Bundle) -> tuple[str, ...]:
    """Return what an audit found, in sentences: counts, the noise that was estimated, how texts were read."""
    in_words = int(found.in_words.sum())
    numbers_only = bool(found.numbers) and not any(bundle.taxonomy.pairs())
    lines = [f"{len(found):,} stated values, {in_words:,} of them in words; {found.suspects:,} are suspects."]
    lines = [] if numbers_only else lines
    for item in found.numbers:
        many = int(item.suspect.sum())
        lines.append(
            f"{len(item):,} stated numbers of {item.number.name!r}; {many:,} are far outside their range, more likely "
            "wrong than right."
        )
    for name, noise, many in (
        ("cells", found.cells, len(found) - in_words),
        ("texts", found.words, in_words),
    ):
        if many:
            lines.append(
                f"Estimated in {name}: {noise.slip:.1%} of the values are slips, {noise.mix_up:.1%} mixed up with "
                "the value most alike."
            )
    if found.unseen:
        lines.append(f"{found.unseen:,} products with stated values have no readable picture: not judged.")
    reader = bundle.claims
    return (*lines, *(reader.notes() if reader is not None and not numbers_only else ()))


def mismatches(found: Audit, catalog: Catalog, most: int = SHOWN) -> "list[Mismatch]":
    """Return the suspects for a page, with the pictures that lie in the audited table; the likeliest errors first."""
    from shelfwise.pages import Mismatch

    picture = dict(zip(catalog.ids, catalog.images, strict=True))
    places = np.flatnonzero(found.suspect)[:most].tolist()
    shown = []
    for at, row in zip(places, found.values()[places].iter_rows(named=True), strict=True):
        names = found.evidence[at] if found.evidence else ()
        row["evidence"] = tuple((name, picture.get(name)) for name in names)
        image = catalog.images[int(found.row[at])]
        shown.append((float(found.odds[at]) * found.prior, Mismatch(**row, image=image)))
    for item in found.numbers:
        columns = item.columns(found.category_of)
        for at in np.flatnonzero(item.suspect)[:most].tolist():
            row = {name: cells[at] for name, cells in columns.items()} | {"evidence": ()}
            image, wrong = catalog.images[int(item.row[at])], float(item.probability[at])
            number = Mismatch(**row, image=image, number=True, fits=item.fits(at))
            shown.append((wrong / max(1 - wrong, 1e-12), number))
    shown.sort(key=lambda entry: -entry[0])
    return [each for _, each in shown[:most]]


def write_audit_page(
    path: str | Path,
    found: Audit,
    catalog: Catalog,
    bundle: Bundle,
    table: str = "",
    explain: int = 0,
    machine: Machine | None = None,
) -> None:
    """Write the page of an audit: a gallery of its suspects, a heat map beside the first ``explain``.

    Raises:
        UsageError: the path does not end in ``.html``, or maps are asked of a bundle that has none.
    """
    from shelfwise.pages import audit_page, write_page

    shown = mismatches(found, catalog)
    page = audit_page(
        _explained(shown, explain, catalog, bundle, machine) if explain else shown,
        source=Path(catalog.source).name,
        total=found.suspects + sum(int(item.suspect.sum()) for item in found.numbers),
        cells=len(found) + sum(map(len, found.numbers)),
        table=table,
        notes=summary(found, bundle),
    )
    write_page(path, page)


def _explained(
    shown: "list[Mismatch]", first: int, catalog: Catalog, bundle: Bundle, machine: Machine | None
) -> "list[Mismatch]":
    """Draw where the values seen come from, for the first mismatches."""
    from shelfwise.explaining import explain_images

    wanted = {(each.id, each.attribute): each.seen for each in shown[:first] if not each.number}
    maps = explain_images(bundle, catalog, values=wanted, most=first, machine=machine)
    drawn = {(each.id, each.attribute): each for each in maps}
    return [replace(each, heat=drawn.get((each.id, each.attribute))) for each in shown]


def weights_of(text: str) -> dict[str, float]:
    """Read ``name=weight[,name=weight]``.

    Raises:
        UsageError: a part without ``=``, or a weight that is not a number.
    """
    weights: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.rpartition("=")
        try:
            weights[name.strip()] = float(value)
        except ValueError:
            equals = ""
        if not equals or not name.strip():
            raise UsageError(f"weights are written name=number, such as colour=2, not {part!r}")
    return weights


def check_paths(out: Path, html: Path | None) -> None:
    """Refuse a path that could not be written, before anything is computed.

    Raises:
        UsageError: another ending than .csv or .parquet, or than .html.
    """
    if out.suffix not in (".csv", ".parquet"):
        raise UsageError(f"an audit is written to .csv or .parquet, not {out.suffix or 'no ending'!r}: {out}")
    if html is not None:
        from shelfwise.pages import check_ending

        check_ending(html)
