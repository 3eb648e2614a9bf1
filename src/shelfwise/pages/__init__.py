"""Pages: a report, an audit, a comparison, drift, a training or a catalogue as one self-contained HTML file.

They do not know how anything was computed. A page loads nothing, prints, and is read without colour, without
a script, with the keyboard and on a phone.
"""

from shelfwise.pages.curves import Measured, measured_on
from shelfwise.pages.differences import compare_page
from shelfwise.pages.drift import drift_page
from shelfwise.pages.gallery import Mismatch, audit_page
from shelfwise.pages.parts import check_ending, write_page
from shelfwise.pages.run import run_page
from shelfwise.pages.scores import bundle_page, evaluation_page, fit_page
from shelfwise.pages.stock import data_page

__all__ = [
    "Measured",
    "Mismatch",
    "audit_page",
    "bundle_page",
    "check_ending",
    "compare_page",
    "data_page",
    "drift_page",
    "evaluation_page",
    "fit_page",
    "measured_on",
    "run_page",
    "write_page",
]
