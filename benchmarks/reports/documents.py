"""Writes figures into documents: fills the text between markers, in any Markdown file.

``<!-- benchmark:begin ladder -->`` … ``<!-- benchmark:end -->`` holds the named block; a marker without a name holds the summary.
The blocks are those of ``BLOCKS``, ``plots.PLOTS`` and ``traps.TRAPS``, ``machine``, ``walkthrough``, ``trained``, and
``twin-NAME`` for each file of ``twin_results.RESULTS``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from pathlib import Path
from typing import Any

from benchmarks.commands import parts, selfcheck, traps
from benchmarks.reports import goals, machines, plots, tables
from benchmarks.reports.results import Report
from parity_tests.twins import tables as twin_tables
from scratch import walkthrough

BLOCKS = {**tables.BLOCKS, "goals": goals.table, "machines": machines.table, "parts": parts.table, "selfcheck": selfcheck.table}
BLOCK = re.compile(r"<!-- benchmark:begin(?: ([\w-]+))? -->\n.*?<!-- benchmark:end -->", re.DOTALL)
TRAINED = Path(__file__).parents[2] / "alexnet_from_scratch" / "networks" / "mini-fashion-mnist"
MARKER = re.compile(r"<!-- benchmark:(begin|end)")


def fill(text: str, report: Report, *, here: Path, pictures: Path) -> str:
    """``text`` with every marked block replaced; ``here`` is its folder, and links to ``pictures`` are relative to it.

    Raises:
        ValueError: a marker has no partner, or a block does not exist.
    """
    if len(MARKER.findall(text)) != 2 * len(BLOCK.findall(text)):
        raise ValueError("every <!-- benchmark:begin --> must have its <!-- benchmark:end -->, each on a line of its own")
    return BLOCK.sub(lambda found: _between(found, block(found[1] or "summary", report, here, pictures)), text)


def _between(found: re.Match[str], content: str) -> str:
    begin, end = found[0].split("\n", 1)[0], "<!-- benchmark:end -->"
    return f"{begin}\n\n{content}\n\n{end}"


def block(name: str, report: Report, here: Path, pictures: Path) -> str:
    """One block in Markdown.

    Raises:
        ValueError: no block has that name.
    """
    if name == "crossing":
        return "\n\n".join(tables.crossing(run).markdown() for run in machines.runs("crossing.json").values()) or tables.NOTHING
    if name in ("summary", "goals", "machine", *tables.BLOCKS) and not report.rows:
        return tables.NOTHING
    if name == "summary":
        said = [tables.comparison(report).markdown(), tables.controls(report).caption, block("machine", report, here, pictures)]
        return "\n\n".join(said)
    if name in BLOCKS:
        return BLOCKS[name](report).markdown()
    if name in traps.TRAPS:
        return traps.table(name, report).markdown()
    if name in plots.PLOTS and name not in plots.possible(report):
        return tables.NOTHING
    if name in plots.PLOTS:
        path = os.path.relpath(pictures / f"{name}.svg", here)
        return f"![{plots.PLOTS[name].__doc__}]({Path(path).as_posix()})"
    if name == "walkthrough":
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            walkthrough.main()
        return f"```\n{printed.getvalue()}```"
    if name == "trained":
        return trained(json.loads((TRAINED / "summary.json").read_text()))
    if name.startswith(twin_tables.PREFIX):
        return twin_tables.block(name, here, pictures)
    if name == "machine":
        return f"Made on {tables.machine(report)}."
    known = sorted([*BLOCKS, "crossing", *plots.PLOTS, *traps.TRAPS, "summary", "machine", "walkthrough", "trained"])
    raise ValueError(f"no block is called {name!r}; the blocks are {known}")


def trained(summary: dict[str, Any]) -> str:
    """What the shipped network has learned, from its run's summary."""
    return (
        f"{summary['variant']} AlexNet, trained by `{summary['side']}` on {summary['data']} for {summary['epochs']} epochs "
        f"({summary['steps']:,} steps), is right on **{summary['held_out_accuracy']:.2%}** of its 10,000 test images. "
        f"That took {summary['seconds'] / 60:.0f} minutes on two cores that others used too."
    )


def write(files: list[Path], report: Report, pictures: Path) -> list[Path]:
    """Draw the pictures and fill the files; return the written files.

    Raises:
        ValueError: see :func:`fill`; nothing is written then.
    """
    texts = {file: fill(file.read_text(), report, here=file.parent, pictures=pictures) for file in files}
    written = plots.draw(report, pictures) + twin_tables.draw(pictures)
    for file, text in texts.items():
        file.write_text(text)
    return [*written, *files]
