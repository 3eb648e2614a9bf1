"""The notebook runs from top to bottom, and is kept without what it printed."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from conftest import ROOT

NOTEBOOK = ROOT / "docs" / "tour.ipynb"


@pytest.fixture(scope="module")
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_kept_without_outputs(notebook: nbformat.NotebookNode) -> None:
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) > 5
    assert not any(cell.outputs or cell.execution_count for cell in cells)


# The kernel is another process and its client speaks asyncio; what they leave open at the end is theirs.
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_it_runs(notebook: nbformat.NotebookNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "TMPDIR": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    done = NotebookClient(
        notebook.copy(),
        timeout=240,
        kernel_name="python3",
        resources={"metadata": {"path": os.fspath(tmp_path)}},
    ).execute()
    printed = "".join(
        output.get("text", "") + str(output.get("data", {}).get("text/plain", ""))
        for cell in done.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )
    assert "harmonic_f1 out of fold: 0." in printed
    assert "at least 0.9 sure" in printed
    caught = re.search(r"(\d+) of \d+ planted errors are in the first tenth; by chance ([\d.]+)", printed)
    assert caught is not None
    assert int(caught[1]) > float(caught[2])
