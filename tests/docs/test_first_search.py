"""The notebook of the documentation does what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Jupyter's packages
def test_every_cell_of_the_notebook_runs(monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed")
    client = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    notebook = nbformat.read(ROOT / "docs" / "first_search.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are made by who runs it"
    for cell in notebook.cells:  # what it shows, in small
        cell.source = cell.source.replace("budget=12", "budget=4").replace('"steps": 6', '"steps": 2')
    runner = client.NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(ROOT / "docs")}}
    )
    runner.execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("application/vnd.plotly.v1+json" in output.get("data", {}) for output in shown) == 2
    assert any("candidates" in str(output.get("data", {}).get("text/html", "")) for output in shown)  # the live display
