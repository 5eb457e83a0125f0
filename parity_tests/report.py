"""What a run of the suite saw: ``make parity`` writes it as Markdown, as JSON and as a picture.

For each operation, rung and dtype: how many cases ran, and the worst error of scratch and of torch against the reference, in
units of the a-priori bound, with the case that gave it. Also how each planted mistake died. No number is typed by hand. A failure
is written like a success: a row keeps what failed, a mistake that lives stays in the list, and the exit status is at the top.

``parity.json`` is for other programs: ``format`` increases when an entry changes its meaning. A run of part of the suite replaces
its own entries in the folder's report and keeps the others; each entry names its commit, machine, versions and vector width.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_from_scratch.proof.bounds import Bounded
from alexnet_from_scratch.proof.parity import Arrays, Evidence, in_bounds
from alexnet_from_scratch.proof.specs import RUNGS
from parity_tests.long_sums import LongSum
from parity_tests.mutants import Kill, Mutant
from parity_tests.sources import digest
from scratch.compiled.emission import VECTOR_BITS

FORMAT = 2

INTRO = """# Parity

`make parity` writes this page. [parity.json](parity.json) has the same numbers.

A case is one call. Hypothesis draws it; scratch, torch and a reference in higher precision run it, forward and backward.

An **error** is the distance of one element from the reference. Its unit is the bound that holds for the rounding of any sound way
to compute this element ([bounds.py](../alexnet_from_scratch/proof/bounds.py)). So 0 is exact, and above 1 the suite fails, for
scratch and for torch. A column shows the worst element of all outputs and gradients of all cases. A sum of one or two terms may
use all of its bound, so scratch and torch often show the same error. The long sums below show how careful a rung is.

**Passed down** counts the cases that the rung left to the rung below it. **Without bound** counts the cases in which nothing is
promised for an element: an intermediate value may overflow, or torch itself treats a NaN in two ways.
"""

LONG_SUMS_INTRO = """Over many terms, roundings cancel. So a rung may use only a small **share** of its bound
([long_sums.py](../parity_tests/long_sums.py)). The sums are in float32. Their numbers are normally distributed, once with both
signs and once positive.
"""


@dataclass
class Row:
    """One operation on one rung in one dtype."""

    operation: str
    rung: str
    dtype: str
    cases: int = 0
    passed_down: int = 0
    without_bound: int = 0
    scratch: float = 0.0  # the worst errors, in units of the bound
    scratch_case: str = ""  # and the cases that gave them; empty if everything was exact
    torch: float = 0.0
    torch_case: str = ""
    failure: str = ""  # the last failure, which Hypothesis has shrunk; empty if there was none

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Remember what a case raises."""
        try:
            yield
        except Exception as error:
            self.failure = f"{type(error).__name__}: {error}".split("\n")[0]
            raise

    def add(self, evidence: Evidence) -> None:
        self.cases += 1
        self.passed_down += evidence.ran != evidence.asked
        bounds = [part.error for part in evidence.reference if isinstance(part, Bounded)]
        self.without_bound += evidence.wavers or any(np.isposinf(bound).any() for bound in bounds)
        for side, results in (("scratch", evidence.results), ("torch", evidence.oracle)):
            worst = max(_errors(results, evidence), default=0.0)
            if worst > getattr(self, side):
                setattr(self, side, worst)
                setattr(self, f"{side}_case", str(evidence))


def _errors(results: Arrays, evidence: Evidence) -> Iterator[float]:
    for result, reference in zip(results, evidence.reference, strict=False):
        if not isinstance(reference, Bounded) or result is None or evidence.wavers:
            continue
        if result.size and result.shape == reference.value.shape:
            yield float(in_bounds(result, reference).max())


@dataclass
class Report:
    """The rows and kills of a session, or of one of its processes."""

    rows: dict[tuple[str, str, str], Row] = field(default_factory=dict)
    long_sums: list[dict[str, Any]] = field(default_factory=list)
    kills: list[dict[str, Any]] = field(default_factory=list)

    def row(self, operation: str, rung: str, dtype: str) -> Row:
        return self.rows.setdefault((operation, rung, dtype), Row(operation, rung, dtype))

    def add_kill(self, mutant: Mutant, kill: Kill | None) -> None:
        """How the mutant died; with None it lives."""
        kill = kill or Kill("", 0, "", 0)
        names = {"operation": mutant.operation, "rung": mutant.rung, "mistake": mutant.title}
        self.kills.append({**names, **asdict(kill)})

    def add_long_sum(self, long_sum: LongSum, rung: str, worst: dict[str, float]) -> None:
        names = {"operation": long_sum.operation, "rung": rung, "result": long_sum.result, "terms": long_sum.terms}
        self.long_sums.append({**names, "share": long_sum.share, **worst})

    def packed(self) -> dict[str, Any]:
        """Everything in plain types, for another process's :meth:`add`."""
        return {"rows": [asdict(row) for row in self.rows.values()], "long_sums": self.long_sums, "kills": self.kills}

    def add(self, rows: list[dict[str, Any]], long_sums: list[dict[str, Any]], kills: list[dict[str, Any]]) -> None:
        """Add what another process of the session saw: each test, and so each row, ran in only one of them."""
        for row in rows:
            self.rows[row["operation"], row["rung"], row["dtype"]] = Row(**row)
        self.long_sums += long_sums
        self.kills += kills

    def summary(self) -> Iterator[str]:
        """What was proven, in a few lines."""
        rows = list(self.rows.values())
        if rows:
            cases = Counter[tuple[str, str]]()
            for row in rows:
                cases[row.operation, row.rung] += row.cases
            yield (
                f"{cases.total():,} cases: {min(cases.values()):,} to {max(cases.values()):,} for each of {len(cases)} rungs of "
                f"{len({row.operation for row in rows})} operations. The worst error, in bounds: "
                + ", ".join(self._worst(side) for side in ("scratch", "torch"))
            )
        if self.kills:
            living = [kill["mistake"] for kill in self.kills if not kill["by"]]
            yield f"{len(self.kills)} mistakes planted in operations, {len(self.kills) - len(living)} found" + "".join(
                f"; lives: {title}" for title in living
            )

    def _worst(self, side: str) -> str:
        worst = max(self.rows.values(), key=lambda row: getattr(row, side))
        return f"{side} {getattr(worst, side):.3f} ({worst.operation} {worst.rung} {worst.dtype})"

    def write(self, folder: Path, profile: str, device: str, seed: Any, status: int) -> None:
        """``parity.md``, ``parity.json`` and ``parity.svg`` in ``folder``, for one profile, device and seed.

        ``status`` is the exit status of the run.
        """
        from benchmarks.measure.machine import describe, libraries  # needs more packages than the tests

        machine, packed = describe(), self.packed()
        commit = machine.pop("commit")
        content: dict[str, Any] = {"format": FORMAT, "profile": profile, "seed": seed, "device": device}
        file = folder / "parity.json"
        before = json.loads(file.read_text()) if file.exists() else {}
        if any(before.get(name) != value for name, value in content.items()):
            before = {}
        versions = libraries()["versions"]
        content |= {"status": status, "sources": digest(), "machine": machine, "versions": versions, "vector_bits": VECTOR_BITS}
        facts = {
            "commit": commit,
            "cpu": machine["cpu"],
            "vector_bits": VECTOR_BITS,
            "versions": " ".join(f"{name} {version}" for name, version in versions.items()),
        }
        for name, new in (("rows", packed["rows"]), ("long_sums", self.long_sums), ("mutants", self.kills)):
            entries = {_key(entry): entry for entry in before.get(name, [])}
            entries |= {_key(entry): {**entry, **facts} for entry in new}
            content[name] = sorted((entry for entry in entries.values() if _place(entry) is not None), key=_order)
        publish(content, folder)


def _key(entry: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(entry.get(name) for name in ("operation", "rung", "dtype", "result", "mistake"))


def _place(entry: dict[str, Any]) -> int | None:
    """The index of the entry's rung in the table of rungs; None if it is no longer there."""
    return next((i for i, (spec, rung) in enumerate(RUNGS) if (spec.name, rung) == (entry["operation"], entry["rung"])), None)


def _order(entry: dict[str, Any]) -> tuple[Any, ...]:
    return _place(entry), *map(str, _key(entry))


def publish(content: dict[str, Any], folder: Path) -> None:
    """Write ``parity.json``, and the same content for people."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "parity.json").write_text(json.dumps(content, indent=1) + "\n")
    (folder / "parity.md").write_text("\n".join(_markdown(content)) + "\n")
    _draw(content["rows"], content["long_sums"], folder / "parity.svg")


def _markdown(content: dict[str, Any]) -> Iterator[str]:
    yield INTRO
    machine, versions = content["machine"], ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    cases, commits = (sum(row["cases"] for row in content["rows"]), sorted({row["commit"] for row in content["rows"]}))
    failed = [f"{row['operation']} {row['rung']} {row['dtype']}: {row['failure']}" for row in content["rows"] if row["failure"]]
    kills = content["mutants"]
    living = [f"{kill['operation']} {kill['rung']}: {kill['mistake']}: lives" for kill in kills if not kill["by"]]
    if content["status"] or failed or living:
        yield f"**This run failed, with exit status {content['status']}.**\n"
        yield from (f"- 🔴 {text}" for text in (*failed, *living))
        yield ""
    yield f"{cases:,} cases (profile {content['profile']}, seed {content['seed']}, torch on {content['device']});"
    yield f"{machine['cpu']}, {machine['system']}, Python {machine['python']}, {versions},"
    yield f"vectors of {content['vector_bits']} bits; commit {', '.join(commits)}.\n"
    yield "![the worst error of every rung](parity.svg)\n"
    yield "| operation | rung | dtype | cases | passed down | without bound | scratch | torch | scratch's worst case |"
    yield "|---|---|---|---:|---:|---:|---:|---:|---|"
    for row in content["rows"]:
        numbers = (
            f"{row['cases']:,} | {row['passed_down']:,} | {row['without_bound']:,} | {row['scratch']:.3f} | {row['torch']:.3f}"
        )
        case = f"`{row['scratch_case']}`" if row["scratch_case"] else "all exact"
        case = f"🔴 {row['failure']}" if row["failure"] else case
        yield f"| {row['operation']} | {row['rung']} | {row['dtype']} | {numbers} | {case} |"
    yield "\n## Long sums\n"
    yield LONG_SUMS_INTRO
    yield "| operation | rung | result | terms | share | scratch | torch |"
    yield "|---|---|---|---:|---:|---:|---:|"
    for row in content["long_sums"]:
        numbers = f"{row['terms']:,} | {row['share']:.3f} | {row['scratch']:.4f} | {row['torch']:.4f}"
        yield f"| {row['operation']} | {row['rung']} | {row['result']} | {numbers} |"
    yield f"\n## {len(kills)} planted mistakes, {len(kills) - len(living)} found\n"
    yield "Each mistake is planted into the source of a rung. Then the same test looks for it. **At case** is the number of the"
    yield "first case that showed it. Hypothesis then shrank the call, to as few **elements** as it could.\n"
    yield "| operation | rung | mistake | found by | at case | elements | shrunk to |"
    yield "|---|---|---|---|---:|---:|---|"
    for kill in kills:
        found = (kill["by"] or "🔴 nothing").removeprefix("assert_").replace("_", " ")
        numbers = f"{kill['cases']} | {kill['elements']}"
        yield f"| {kill['operation']} | {kill['rung']} | {kill['mistake']} | {found} | {numbers} | `{kill['smallest']}` |"


def _draw(rows: list[dict[str, Any]], long_sums: list[dict[str, Any]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    with mpl.rc_context({"svg.hashsalt": "parity", "font.size": 8, "ytick.labelsize": 7}):
        figure, (drawn, long) = plt.subplots(1, 2, figsize=(11, 1 + 0.15 * max(len(rows), len(long_sums))), layout="constrained")
        _panel(drawn, rows, [f"{row['operation']} · {row['rung']} · {row['dtype']}" for row in rows])
        drawn.set(xlabel="worst error of the drawn cases, in bounds")
        drawn.axvline(1, color="black", linewidth=1, label="at most")
        _panel(long, long_sums, [f"{row['operation']} · {row['rung']} · {row['result']}" for row in long_sums])
        long.set(xlabel="worst error of long sums, in bounds", xscale="log" if long_sums else "linear")
        long.plot([row["share"] for row in long_sums][::-1], range(len(long_sums)), "|", color="black", markersize=6)
        figure.legend(*drawn.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def _panel(axes: Any, rows: list[dict[str, Any]], names: list[str]) -> None:
    """Both sides' errors, one row below the other: matplotlib counts upwards."""
    places = range(len(rows))
    hollow = {"markersize": 6, "markerfacecolor": "none"}  # the two often coincide
    axes.plot([row["torch"] for row in rows][::-1], places, "o", color="tab:orange", label="torch", **hollow)
    axes.plot([row["scratch"] for row in rows][::-1], places, "s", color="tab:blue", label="scratch", markersize=2.5)
    axes.set_yticks(places, names[::-1])
    axes.set_ylim(-1, len(rows))
    axes.grid(axis="x", linewidth=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
