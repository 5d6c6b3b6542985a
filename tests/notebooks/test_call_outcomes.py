"""The notebook runs on any lake, and is stored without outputs."""

import os
import runpy
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

REPOSITORY = Path(__file__).parents[2]
NOTEBOOK = REPOSITORY / "notebooks" / "call_outcomes.ipynb"
_BUILDER = runpy.run_path(str(REPOSITORY / "tests" / "sql" / "conftest.py"))


def _text_outputs(notebook: nbformat.NotebookNode) -> str:
    return "\n".join(
        output.get("data", {}).get("text/plain", "") + output.get("text", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )


def _execute(lake: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    monkeypatch.setenv("CALLFOLD_LAKE", str(lake))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    client = NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(lake)}}
    )
    client.execute()
    return _text_outputs(notebook)


@pytest.mark.filterwarnings("ignore")  # the kernel's own libraries warn about themselves
def test_it_runs_on_a_small_lake_and_shows_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, at = _BUILDER["call"], _BUILDER["at"]
    lake = _BUILDER["Lake"](tmp_path / "lake")
    lake.hot(
        call("1", talk_seconds=42.0, ended_at=at("09:01:00")),
        call("2", outcome="busy", failure_class="recipient", is_answered=False, answered_by=None),
        call("3", provider="recho", talk_seconds=8.0),
    )
    shown = _execute(lake.root, monkeypatch)
    assert "whippy" in shown
    assert "recho" in shown
    assert "busy" in shown


@pytest.mark.filterwarnings("ignore")
def test_it_runs_on_a_lake_without_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = _BUILDER["Lake"](tmp_path / "lake")
    assert "Empty DataFrame" in _execute(lake.root, monkeypatch)


def test_it_is_stored_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in code] == [[]] * len(code)
    assert [cell.execution_count for cell in code] == [None] * len(code)
