"""Explaining: which cells of a table get a heat map, and what each is compared with.

It does not know how a map is drawn (``recipes.saliency``) nor how it is shown (``pages.heat``).
Legend: n products of one category, A its attributes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from shelfwise.answers import STATES, Answers
from shelfwise.bundle import Bundle, load
from shelfwise.catalog import Catalog
from shelfwise.choosing import stated_codes
from shelfwise.errors import ImageError, UsageError, listing, suggest
from shelfwise.pages.heat import HeatMap, write_heat_maps
from shelfwise.predictions import Block, Machine
from shelfwise.roles import Columns
from shelfwise.single import one_product
from shelfwise.taxonomy import Taxonomy

if TYPE_CHECKING:
    from shelfwise.recipes.saliency import Contrast, Looking

#: Products of a category that its answers are compared with, at most.
REFERENCES = 250
#: What may be asked for instead of attributes.
UNSURE, MISMATCH = "unsure", "mismatch"


@dataclass(frozen=True)
class Cell:
    """A cell to be explained.

    Attributes:
        row: position in the table.
        category: its category.
        attribute: the attribute's position in it.
        value: code of the answer.
    """

    row: int
    category: str
    attribute: int
    value: int


@dataclass(frozen=True)
class Explain:
    """What ``predict --explain-image`` asks for.

    Attributes:
        folder: where maps go.
        only, most: as in ``explain_images``.
        beside: a table of the products compared with.
        images: the folder of their photos, and of those asked about.
    """

    folder: Path
    only: str = ""
    most: int = 50
    beside: Path | None = None
    images: Path | None = None

    def table(self, bundle: Path, table: Path, columns: Columns, machine: Machine) -> str:
        """Explain a table's answers, write the folder and say so."""
        loaded = load(bundle)
        return self._write(
            loaded, loaded.read(table, images=self.images, columns=columns), table.name, machine
        )

    def photo(self, bundle: Path, photo: Path, category: str | None, machine: Machine) -> str:
        """Explain one photo's answers, write the folder and say so.

        Raises:
            UsageError: there is nothing to compare them with.
        """
        if self.beside is None:
            raise UsageError(
                "to explain one photo, name a table of products to compare it with: --explain-beside TABLE"
            )
        loaded = load(bundle)
        return self._write(loaded, one_product(loaded.schema, photo, category=category), photo.name, machine)

    def _write(self, bundle: Bundle, catalog: Catalog, source: str, machine: Machine) -> str:
        beside = None if self.beside is None else bundle.read(self.beside, images=self.images)
        maps = explain_images(
            bundle, catalog, only=self.only, most=self.most, reference=beside, machine=machine
        )
        write_heat_maps(self.folder, maps, source)
        return f"wrote {len(maps):,} heat maps: {self.folder / 'index.html'}, maps.jsonl and a PNG each"


def explain_images(
    bundle: Bundle,
    catalog: Catalog,
    *,
    only: str = "",
    most: int = 50,
    values: Mapping[tuple[str, str], str] | None = None,
    reference: Catalog | None = None,
    machine: Machine | None = None,
) -> tuple[HeatMap, ...]:
    """Return where in its photo each answer comes from, in table order.

    An answer is compared with up to ``REFERENCES`` other products of its category, by what they state or, where they
    state nothing, by what this bundle answers them; where fewer than three have it, or fewer than three another one,
    there is no map. The first photo of a product is looked at.

    Args:
        bundle: a probe of photos, its backbone with ``levels = "all"`` and ``fit = "stretch"``, as by default.
        catalog: the products asked about.
        only: names of attributes separated by commas; ``unsure``: cells that a promise leaves open; ``mismatch``: cells
            that state another value; all cells if left out.
        most: cells at most, the first ones.
        values: by (id, attribute), exactly these cells, and the value that each map is to speak for.
        reference: the products compared with; by default those of ``catalog``.
        machine: where to compute answers; maps are computed by torch on the CPU.

    Raises:
        UsageError: another kind of bundle, or an attribute that there is not.
        MissingExtra: torch is not installed.
    """
    from shelfwise.recipes.saliency import Contrast, Looking

    catalog = catalog.under(bundle.schema).first_photos().remembering()
    looking = Looking.of(bundle.predictor)
    answers = bundle.answer(catalog, every_cell=only != UNSURE, machine=machine)
    cells = _cells(catalog, answers, only) if values is None else _named(bundle, catalog, values)
    beside = catalog if reference is None else reference.under(bundle.schema).first_photos().remembering()
    same = reference is None and only != UNSURE
    told = answers if same else bundle.answer(beside, every_cell=True, machine=machine)
    cells = [cell for cell in cells if catalog.images[cell.row] is not None][:most]
    found: dict[int, HeatMap] = {}
    for block in bundle.predict(catalog, machine).blocks:
        mine = {at: cell for at, cell in enumerate(cells) if cell.category == block.category}
        if mine:
            contrast = Contrast.learn(looking, *_references(beside, told, block.category))
            found |= _drawn(bundle.taxonomy, catalog, looking, contrast, block, mine)
    return tuple(found[at] for at in sorted(found))


def _drawn(
    taxonomy: Taxonomy,
    catalog: Catalog,
    looking: "Looking",
    contrast: "Contrast",
    block: Block,
    cells: Mapping[int, Cell],
) -> dict[int, HeatMap]:
    """The maps of one category's cells, by the cells' keys; a photo is read once."""
    from shelfwise.recipes.saliency import draw

    found: dict[int, HeatMap] = {}
    seen: Path | None = None
    looked: tuple[npt.NDArray[np.float16], npt.NDArray[np.float64]] | None = None
    for key, cell in sorted(cells.items(), key=lambda entry: (entry[1].row, entry[0])):
        path, at = catalog.images[cell.row], np.flatnonzero(block.rows == cell.row)
        if path is None or not len(at):
            continue
        if path != seen:
            try:
                seen, looked = path, (looking.maps(path), looking.foreground(path))
            except ImageError:
                seen, looked = path, None
        if looked is None:
            continue
        part = taxonomy.slices(cell.category)[cell.attribute]
        head_rv = looking.expert.heads[cell.category][0][:, part].astype(np.float64)
        probs_v = block.probs[int(at[0]), part].astype(np.float64)
        heat_GG = draw(looking, contrast, head_rv, probs_v, (cell.attribute, cell.value), *looked)
        if heat_GG is not None:
            choice = taxonomy.choices(cell.category)[cell.attribute]
            names = choice.name, choice.values[cell.value], float(probs_v[cell.value])
            found[key] = HeatMap(catalog.ids[cell.row], cell.category, *names, heat_GG, path)
    return found


def _references(
    beside: Catalog, told: Answers, category: str
) -> tuple[list[Path | None], npt.NDArray[np.int32]]:
    """Photos and values, stated before answered, of the products that answers are compared with, by their ids."""
    block = told.block(category)
    if block is None:
        return [], np.zeros((0, 0), np.int32)
    stated_nA = stated_codes(beside, category, block.rows)
    codes_nA = np.where(stated_nA >= 0, stated_nA, block.candidate).astype(np.int32)
    order = sorted(range(len(block.rows)), key=lambda at: (beside.ids[block.rows[at]], at))
    chosen = [order[round(at)] for at in np.linspace(0, len(order) - 1, min(REFERENCES, len(order)))]
    return [beside.images[block.rows[at]] for at in chosen], codes_nA[chosen]


def _cells(catalog: Catalog, answers: Answers, only: str) -> list[Cell]:
    """The cells asked for, in table order."""
    names = {part.strip() for part in only.split(",") if part.strip()} - {UNSURE, MISMATCH}
    known = {choice.name for _, choice in catalog.taxonomy.pairs()}
    for name in sorted(names - known):
        hint = suggest(name, known) or f"There are: {listing(sorted(known))}."
        raise UsageError(
            f"there is no attribute {name!r} to explain. {hint} Or ask for {UNSURE} or {MISMATCH}."
        )
    found = []
    for block in answers.blocks:
        rows, stated_nA = catalog.rows(block.category), catalog.labels(block.category)
        place = {int(row): at for at, row in enumerate(rows)}
        for at, row in enumerate(block.rows.tolist()):
            for column, choice in enumerate(catalog.taxonomy.choices(block.category)):
                value = int(block.candidate[at, column])
                said = int(stated_nA[place[row], column]) if row in place else -1
                asked = (
                    (not names or choice.name in names)
                    and (UNSURE not in only or block.state[at, column] == STATES.index("unsure"))
                    and (MISMATCH not in only or (said >= 0 and said != value))
                )
                if value >= 0 and asked:
                    found.append(Cell(row, block.category, column, value))
    return sorted(found, key=lambda cell: cell.row)


def _named(bundle: Bundle, catalog: Catalog, values: Mapping[tuple[str, str], str]) -> list[Cell]:
    """The cells with an id, an attribute and a value, in their order."""
    rows = {id_: row for row, id_ in enumerate(catalog.ids)}
    found = []
    for (id_, attribute), value in values.items():
        code = int(catalog.category[rows[id_]])
        if code < 0:
            continue
        category = catalog.taxonomy.categories[code]
        names = [choice.name for choice in bundle.taxonomy.choices(category)]
        if attribute in names:
            at = names.index(attribute)
            found.append(Cell(rows[id_], category, at, bundle.taxonomy.choices(category)[at].codes[value]))
    return found
