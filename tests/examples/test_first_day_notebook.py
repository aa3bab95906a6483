"""The notebook of the first day runs from start to end, and has the steps of the page."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.hangs import HANG_S

CHECKOUT = Path(__file__).resolve().parents[2]
NOTEBOOK = CHECKOUT / "examples/first_day.ipynb"
# Less of the same: a reader waits two minutes for it, a test must not.
SMALLER = {
    '"--count",\n    8,': '"--count",\n    2,',
    '"--count", 16)': '"--count", 8)',
    '"--members",\n    3,': '"--members",\n    2,',
    '"--steps",\n    60,': '"--steps",\n    10,',
    '"--calibrate",\n    256,': '"--calibrate",\n    64,\n    "--parity-samples",\n    2,',
    '"batch_size": 16,': '"batch_size": 4,',
    '"end_index": 128}': '"end_index": 32}',
}


def read() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_stored_without_outputs_and_has_the_steps_of_the_page() -> None:
    notebook = read()
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    page = (CHECKOUT / "docs/first_day.md").read_text("utf-8")
    steps = re.findall(r"(?m)^## (\d\. .+)$", page)
    assert len(steps) == 9 and re.findall(r"(?m)^## (\d\. .+)$", text) == steps


def make_smaller(cells: list[Any]) -> None:
    """Replaces every text of SMALLER, each of which is in one place."""
    for printed, less in SMALLER.items():
        (cell,) = (cell for cell in cells if printed in cell.source)
        cell.source = cell.source.replace(printed, less)


@pytest.mark.long
def test_it_runs_from_start_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")  # this Python, not a kernel of the user's
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = read()
    make_smaller(notebook.cells)
    client = NotebookClient(
        notebook, timeout=int(HANG_S), resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 3 + 1 + 1
    said = "".join(output.get("text", "") for output in outputs)
    assert "mIoU" in said and "step 2: loss" in said and "continues at tensor([" in said
