"""The notebook runs. The committed file is its text with outputs, and no output holds a path of a machine."""

from __future__ import annotations

import re
from pathlib import Path

import jupytext
import nbformat
import pytest

from notebooks.__main__ import NOTEBOOK, TEXT, executed

LARGEST = 200_000  # bytes


def test_the_notebook_runs(tmp_path: Path) -> None:
    said = {cell.source: printed(cell) for cell in executed(tmp_path).cells}
    (digits,) = (text for text in said.values() if text.startswith("right on"))
    assert float(re.findall(r"right on ([\d.]+)%", digits)[0]) > 70
    (verdict,) = (text for source, text in said.items() if "def my_backward" in source)
    assert "A known mistake gives the same: `=` for `+=` in grad_x" in verdict
    apart = [float(found) for text in said.values() for found in re.findall(r"apart by (\S+) of", text)]
    assert apart
    assert max(apart) < 1e-5
    assert (tmp_path / "xray.html").exists()


def test_what_is_committed_is_the_text_with_outputs() -> None:
    committed, text = nbformat.read(NOTEBOOK, 4), jupytext.read(TEXT)
    assert [(cell.cell_type, cell.source) for cell in committed.cells] == [(cell.cell_type, cell.source) for cell in text.cells]
    ran = [cell.execution_count for cell in committed.cells if cell.cell_type == "code"]
    assert ran == list(range(1, len(ran) + 1))
    assert not [output for cell in committed.cells for output in cell.get("outputs", []) if output.output_type == "error"]


@pytest.mark.parametrize("machine", [r"/(?:home|root|Users|work|tmp)/", r"site-packages", r"0x[0-9a-f]{6,}"])
def test_the_outputs_name_nobodys_machine(machine: str) -> None:
    assert not re.search(machine, NOTEBOOK.read_text())


def test_the_notebook_is_small() -> None:
    assert NOTEBOOK.stat().st_size < LARGEST


def printed(cell: nbformat.NotebookNode) -> str:
    return "".join(output.text for output in cell.get("outputs", []) if output.output_type == "stream")
