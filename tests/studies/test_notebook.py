"""The page's notebook, run as a reader runs it, and what is shown while a study runs in one."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent.parent
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


def outputs(notebook: nbformat.NotebookNode) -> list[str]:
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.get("name") == "stderr":  # tqdm, which Optuna imports, misses ipywidgets
                continue
            found.append(output.get("text") or output.get("data", {}).get("text/plain", ""))
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of jupyter's own libraries
def test_the_notebook_runs_and_its_assertions_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("STUDIES_HOME", str(tmp_path / "home"))
    kept = nbformat.read(NOTEBOOK, as_version=4)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    assert any("8/8 trials" in text for text in outputs(notebook)), outputs(notebook)
    assert len(outputs(kept)) == len(outputs(notebook)), "run docs/notebook.ipynb again and keep its outputs"
    assert {p.name for p in tmp_path.iterdir()} == {"model"}
