"""``python -m notebooks`` runs the notebook's text and writes the notebook with its outputs, which are committed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
NOTEBOOK = HERE / "alexnet_from_scratch.ipynb"
TEXT = HERE / "text" / "alexnet_from_scratch.py"  # in a folder of its own: next to the notebook it would hide the package


def executed(folder: Path) -> Any:
    """The notebook, made anew from its text, with the outputs of a run in ``folder``."""
    notebook = jupytext.read(TEXT)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {}  # no times, which differ from run to run
        for output in cell.get("outputs", []):
            if "text/html" in output.get("data", {}):
                del output["data"]["text/plain"]  # an object's address
    return notebook


if __name__ == "__main__":
    NOTEBOOK.write_text(nbformat.writes(executed(HERE)) + "\n", encoding="utf-8")  # type: ignore[no-untyped-call]
    print(NOTEBOOK.relative_to(Path.cwd()) if NOTEBOOK.is_relative_to(Path.cwd()) else NOTEBOOK)
