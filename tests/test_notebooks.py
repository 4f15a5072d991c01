"""The notebooks run from their first cell to their last, and are kept without outputs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SMALLER = "TRAJECTORIES, STEPS = 48, 4"
"""In place of a cell tagged `parameters`."""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    made = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(made) >= 4
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in made)


@pytest.mark.slow  # a kernel of its own, half a minute each
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_its_first_cell_to_its_last(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat = pytest.importorskip("nbformat", reason="what runs notebooks is not installed")
    client = pytest.importorskip("nbclient", reason="what runs notebooks is not installed")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("checkpoints", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    notebook: Any = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            assert re.fullmatch(r"TRAJECTORIES, STEPS = \d+, \d+", cell.source)
            cell.source = SMALLER
    folder = {"metadata": {"path": str(tmp_path)}}
    client.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=folder).execute()
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
