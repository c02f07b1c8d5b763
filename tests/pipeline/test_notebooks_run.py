"""The notebooks run on a finished checkout, from its folder, and are committed without outputs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_the_four_notebooks_of_the_workflow_are_there() -> None:
    expected = {"ingestion_quality", "feature_diagnostics", "regime_comparison", "training_diagnostics"}
    assert {path.stem for path in NOTEBOOKS} == expected


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert not any(cell.outputs or cell.execution_count for cell in code)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_on_a_finished_checkout(path: Path, small_run: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    (small_run / "notebooks").mkdir(exist_ok=True)
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(small_run / "notebooks")}})
    client.execute()
    assert any(cell.get("outputs") for cell in client.nb.cells)
