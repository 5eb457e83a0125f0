"""What a run of the suite saw, for people: ``make parity`` writes it as Markdown, as JSON and as a picture.

For each operation, rung and dtype: how many cases ran, and the worst error of scratch and of torch against the reference, in
units of the a-priori bound, with the case that gave it. And how each planted mistake died. No number is typed by hand.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from parity_tests.bounds import Bounded
from parity_tests.mutants import Kill, Mutant
from parity_tests.parity import Arrays, Evidence, in_bounds


@dataclass
class Row:
    """One operation on one rung in one dtype."""

    operation: str
    rung: str
    dtype: str
    cases: int = 0
    passed_down: int = 0  # of them the rung left to the one below
    scratch: float = 0.0  # the worst errors, in units of the bound
    scratch_case: str = ""
    torch: float = 0.0
    torch_case: str = ""

    def add(self, evidence: Evidence) -> None:
        self.cases += 1
        self.passed_down += evidence.ran != evidence.asked
        for side, results in (("scratch", evidence.results), ("torch", evidence.oracle)):
            worst = max(_ratios(results, evidence), default=0.0)
            if worst > getattr(self, side):
                setattr(self, side, worst)
                setattr(self, f"{side}_case", str(evidence))


def _ratios(results: Arrays, evidence: Evidence) -> Iterator[float]:
    for result, reference in zip(results, evidence.reference, strict=True):
        if isinstance(reference, Bounded) and result is not None and result.size and not evidence.wavers:
            yield float(in_bounds(result, reference).max())


@dataclass
class Report:
    """All rows and all kills of a session."""

    rows: dict[tuple[str, str, str], Row] = field(default_factory=dict)
    kills: list[tuple[Mutant, Kill]] = field(default_factory=list)

    def row(self, operation: str, rung: str, dtype: str) -> Row:
        return self.rows.setdefault((operation, rung, dtype), Row(operation, rung, dtype))

    def write(self, folder: Path, profile: str, device: str) -> None:
        """``parity.md``, ``parity.json`` and ``parity.svg`` in ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        facts = {
            "profile": profile,
            "device": device,
            "cases": sum(row.cases for row in self.rows.values()),
            "machine": f"{platform.system()} {platform.machine()}",
            "versions": f"torch {torch.__version__}, NumPy {np.__version__}",
        }
        kills = [{"mutant": str(mutant), **asdict(kill)} for mutant, kill in self.kills]
        content = {**facts, "rows": [asdict(row) for row in self.rows.values()], "mutants": kills}
        (folder / "parity.json").write_text(json.dumps(content, indent=1) + "\n")
        (folder / "parity.md").write_text("\n".join(self._markdown(facts)) + "\n")
        if self.rows:
            self._draw(folder / "parity.svg")

    def _markdown(self, facts: dict[str, object]) -> Iterator[str]:
        yield "# Parity\n"
        yield "Written by `make parity`. Errors are in units of the a-priori bound on rounding (`parity_tests/bounds.py`), the"
        yield "worst of all outputs and gradients, against a reference in higher precision; above 1 would be a failure.\n"
        yield ", ".join(f"{name}: {value}" for name, value in facts.items()) + ".\n"
        if self.rows:
            yield "![worst errors](parity.svg)\n"
            yield "| operation | rung | dtype | cases | passed down | scratch | torch | scratch's worst case |"
            yield "|---|---|---|---:|---:|---:|---:|---|"
            for row in self.rows.values():
                numbers = f"{row.cases} | {row.passed_down} | {row.scratch:.3f} | {row.torch:.3f}"
                yield f"| {row.operation} | {row.rung} | {row.dtype} | {numbers} | `{row.scratch_case or 'exact'}` |"
        if self.kills:
            yield f"\n## {len(self.kills)} planted mistakes, all found\n"
            yield "| operation, rung: mistake | found by | at case | shrunk to elements | shrunk to |"
            yield "|---|---|---:|---:|---|"
            for mutant, kill in self.kills:
                yield f"| {mutant} | {kill.by} | {kill.cases} | {kill.elements} | `{kill.smallest}` |"

    def _draw(self, path: Path) -> None:
        import matplotlib as mpl

        mpl.use("svg")
        from matplotlib import pyplot as plt

        rows = list(self.rows.values())[::-1]
        figure, axes = plt.subplots(figsize=(9, 1 + 0.2 * len(rows)), layout="constrained")
        places = np.arange(len(rows))
        axes.plot([row.torch for row in rows], places, "o", color="tab:orange", label="torch")
        axes.plot([row.scratch for row in rows], places, "s", color="tab:blue", markersize=4, label="scratch")
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_yticks(places, [f"{row.operation} {row.rung} {row.dtype}" for row in rows], fontsize=7)
        axes.set_xlabel("worst error, in units of the bound")
        axes.set_xlim(left=-0.02)
        axes.grid(axis="x", linewidth=0.3)
        axes.legend()
        with mpl.rc_context({"svg.hashsalt": "parity"}):
            figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
