"""Shelfwise reads product photos and text and fills in the catalogue entry.

The public names are loaded when they are first used, so ``import shelfwise`` imports neither torch
nor anything else that is slow.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shelfwise.answers import Answers
    from shelfwise.auditing import audit_table
    from shelfwise.batch.jobs import BatchOptions
    from shelfwise.batch.run import answer_table
    from shelfwise.bundle import Bundle, load
    from shelfwise.catalog import Catalog
    from shelfwise.changes.diff import diff
    from shelfwise.comparison import Comparison
    from shelfwise.config import DecideOptions
    from shelfwise.crossfit import cross_fit
    from shelfwise.data.clean import clean
    from shelfwise.data.download import download
    from shelfwise.data.group import near_duplicates
    from shelfwise.data.terms import DownloadOptions
    from shelfwise.drift.compared import drift
    from shelfwise.errors import ShelfwiseError
    from shelfwise.evaluate import compare, evaluate
    from shelfwise.findings import Finding, Findings
    from shelfwise.fit import fit
    from shelfwise.migrate import migrate
    from shelfwise.models.embed import embed
    from shelfwise.predictions import Machine, Predictions
    from shelfwise.recipes.blend import blend, blend_weights
    from shelfwise.recipes.boost import Boost
    from shelfwise.recipes.cascade import Cascade
    from shelfwise.recipes.ensemble import Ensemble
    from shelfwise.recipes.finetune import FineTune
    from shelfwise.recipes.neighbours import Neighbours
    from shelfwise.recipes.parts import Parts
    from shelfwise.recipes.probe import Probe
    from shelfwise.recipes.treated import Treated
    from shelfwise.recipes.treatments import Treatments
    from shelfwise.recipes.vqa import Vqa
    from shelfwise.registry import Spec, backbone, heads, loss, register, text_encoder
    from shelfwise.report import Report
    from shelfwise.roles import Columns
    from shelfwise.search import search
    from shelfwise.splits import Folds
    from shelfwise.taxonomy import Choice, Number, Taxonomy
    from shelfwise.train.optim import Phase
    from shelfwise.trust.decide import decide
    from shelfwise.trust.evidence import Evidence

_HOMES = {
    "Answers": "answers",
    "BatchOptions": "batch.jobs",
    "Bundle": "bundle",
    "Cascade": "recipes.cascade",
    "Catalog": "catalog",
    "Choice": "taxonomy",
    "Columns": "roles",
    "Comparison": "comparison",
    "DecideOptions": "config",
    "DownloadOptions": "data.terms",
    "Ensemble": "recipes.ensemble",
    "Evidence": "trust.evidence",
    "Finding": "findings",
    "FineTune": "recipes.finetune",
    "Findings": "findings",
    "Folds": "splits",
    "Machine": "predictions",
    "Neighbours": "recipes.neighbours",
    "Number": "taxonomy",
    "Phase": "train.optim",
    "Predictions": "predictions",
    "Boost": "recipes.boost",
    "Parts": "recipes.parts",
    "Probe": "recipes.probe",
    "Report": "report",
    "ShelfwiseError": "errors",
    "Spec": "registry",
    "Taxonomy": "taxonomy",
    "Treated": "recipes.treated",
    "Treatments": "recipes.treatments",
    "Vqa": "recipes.vqa",
    "answer_table": "batch.run",
    "audit_table": "auditing",
    "backbone": "registry",
    "blend": "recipes.blend",
    "blend_weights": "recipes.blend",
    "clean": "data.clean",
    "compare": "evaluate",
    "cross_fit": "crossfit",
    "decide": "trust.decide",
    "diff": "changes.diff",
    "download": "data.download",
    "drift": "drift.compared",
    "embed": "models.embed",
    "evaluate": "evaluate",
    "fit": "fit",
    "heads": "registry",
    "load": "bundle",
    "loss": "registry",
    "migrate": "migrate",
    "near_duplicates": "data.group",
    "register": "registry",
    "search": "search",
    "text_encoder": "registry",
}

__all__ = [
    "Answers",
    "BatchOptions",
    "Boost",
    "Bundle",
    "Cascade",
    "Catalog",
    "Choice",
    "Columns",
    "Comparison",
    "DecideOptions",
    "DownloadOptions",
    "Ensemble",
    "Evidence",
    "Finding",
    "Findings",
    "FineTune",
    "Folds",
    "Machine",
    "Neighbours",
    "Number",
    "Parts",
    "Phase",
    "Predictions",
    "Probe",
    "Report",
    "ShelfwiseError",
    "Spec",
    "Taxonomy",
    "Treated",
    "Treatments",
    "Vqa",
    "answer_table",
    "audit_table",
    "backbone",
    "blend",
    "blend_weights",
    "clean",
    "compare",
    "cross_fit",
    "decide",
    "diff",
    "download",
    "drift",
    "embed",
    "evaluate",
    "fit",
    "heads",
    "load",
    "loss",
    "migrate",
    "near_duplicates",
    "register",
    "search",
    "text_encoder",
]


class _Package(ModuleType):
    """The package; ``fit`` and ``drift`` stay functions when the modules and packages of those names are imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and name in _HOMES:
            if _HOMES[name] != name:
                return  # a package of the function's name; the function is loaded when it is used
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'shelfwise' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"shelfwise.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
