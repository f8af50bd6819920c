"""The notebook as a reader runs it, and what is stored of it."""

import base64
import json

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

from data.sample_model import sample_model
from helpers.commands import whole_commands
from helpers.paths import PROJECT


NOTEBOOK = PROJECT / "notebooks" / "adjust_and_measure.ipynb"


def read() -> NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell: NotebookNode, kind: str) -> list[str]:
    """What a cell shows of a MIME type."""
    return [output.data[kind] for output in cell.outputs if kind in output.get("data", {})]


def check_outputs(notebook: NotebookNode) -> None:
    """Every cell that shows something shows it, and none an error."""
    cells = code_cells(notebook)
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert [k for k, cell in enumerate(cells, 1) if cell.outputs] == [2, 3, 4, 5, 6, 7, 9, 10]
    (picture,) = shown(cells[6], "image/png")
    assert base64.b64decode(picture).startswith(b"\x89PNG")
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "error:" not in printed
    assert "Traceback" not in printed


def test_it_has_ten_cells_and_few_bytes():
    notebook = read()
    nbformat.validate(notebook)
    assert len(code_cells(notebook)) == 10
    assert NOTEBOOK.stat().st_size < 200_000
    scripts = [word for words in whole_commands(NOTEBOOK) for word in words if word.endswith(".py")]
    assert scripts == ["run_xsr.py", "run_align.py", "run_xsr.py", "compare_runs.py"]


def test_the_stored_outputs_are_of_a_run_from_top_to_bottom():
    notebook = read()
    check_outputs(notebook)
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, 11))
    assert str(PROJECT) not in NOTEBOOK.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.xdist_group("sample model")
def test_it_runs_and_adjustment_gains(tmp_path):
    sample_model()
    notebook = read()
    for cell in code_cells(notebook):
        cell.source = cell.source.replace("runs/notebook", str(tmp_path))
    NotebookClient(
        notebook, timeout=None, coalesce_streams=True, resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    ).execute()
    check_outputs(notebook)
    before, after = (
        json.loads((tmp_path / when / "all_results.json").read_text(encoding="utf-8")) for when in ("before", "after")
    )
    assert before["sw_sentences"] == after["sw_sentences"] == 100
    for direction in ("sw-en", "en-sw"):
        name = f"{direction}_layer6_accuracy"
        assert after[name] > before[name] + 0.05
    comparison = (tmp_path / "comparison" / "comparison.md").read_text(encoding="utf-8")
    assert comparison.count("baseline") >= 2
