"""Kinds of machines: what each is called, where its results are kept, and what another one pretends to be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.measure import isa, machine
from benchmarks.reports import machines
from benchmarks.reports.results import SHOWN, Report, Row, committed, together

FACTS = {"cpu": "AMD EPYC (family 25, model 17)", "caches": {"L2": 1 << 20, "L3": 1 << 25}, "vector_bits": 512}


@pytest.mark.parametrize(
    ("cpu", "name"),
    [
        ("AMD EPYC (family 25, model 17)", "amd-epyc-25-17"),
        ("Intel(R) Xeon(R) Processor (family 6, model 167)", "intel-xeon-6-167"),
        ("Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz (family 6, model 158)", "intel-core-i7-9750h-6-158"),
        ("Apple M2", "apple-m2"),
    ],
)
def test_a_kind_has_the_processors_name(cpu: str, name: str) -> None:
    assert machines.kind({"cpu": cpu, "isa": ""}) == name
    assert machines.kind({"cpu": cpu, "isa": "avx2"}) == f"{name}-avx2"


def made(*, twin: float = 1.0, **facts: object) -> Report:
    rounds = [{"scratch": [[[1.0]]] * 2, "scratch again": [[[twin]]] * 2}] * 9
    return Report(machine={**FACTS, **facts}, rows=[Row("pool1", "layer", "it", 8, ["forward"], rounds=rounds)])


def test_no_kind_of_machine_overwrites_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "RESULTS", tmp_path)
    for report in (made(), made(caches={"L2": 1 << 21, "L3": 1 << 25}), made(isa="avx2", vector_bits=256)):
        assert "Kept in" in machines.keep(report, "step.json")
    assert sorted(path.parent.name for path in tmp_path.glob("*/step.json")) == [
        "amd-epyc-25-17", "amd-epyc-25-17-512bit-l2-2048k-l3-32768k", "amd-epyc-25-17-avx2",
    ]  # fmt: skip


def test_a_noisy_run_does_not_replace_a_trusted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "RESULTS", tmp_path)
    machines.keep(made(twin=1.5), "step.json")  # better than none
    machines.keep(made(), "step.json")
    assert "Not kept" in machines.keep(made(twin=1.5), "step.json")
    assert not Report.load(tmp_path / "amd-epyc-25-17" / "step.json").distrust()


def test_every_table_takes_the_same_limits_of_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "RESULTS", tmp_path)
    for file, peak in (("step.json", 1e11), ("rungs.json", 3e11)):
        report = made()
        report.roof = {"flops": peak}
        report.save(tmp_path / "abacus" / file)
    of_tables = [report.roof for files in committed(tmp_path) for report in together([files])]
    assert [machines.runs("step.json")["abacus"].roof, *of_tables] == [{"flops": 3e11}] * 3


def test_the_shown_machine_comes_first(tmp_path: Path) -> None:
    """A table that was not measured on the shown machine comes from the next machine that has it."""
    for folder, name in (("a", "growth.json"), ("a", "step.json"), (SHOWN, "step.json"), ("z", "parts.json")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_text("{}")
    found = [[path.relative_to(tmp_path).as_posix() for path in files] for files in committed(tmp_path)]
    assert found == [[f"{SHOWN}/step.json"], ["a/growth.json", "a/step.json"], ["z/parts.json"]]


def test_what_a_machine_pretends_to_be_ends_with_the_block() -> None:
    before = dict(os.environ)
    with isa.pretended("avx2"):
        assert isa.current() == "avx2"
        assert machine.lanes() == 8
        assert (machine.describe()["isa"], machine.describe()["vector_bits"]) == ("avx2", 256)
        code = "from scratch.compiled import vectors; from numba import config; print(config.CPU_NAME)"
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert said.strip() == "haswell"
    assert os.environ == before
    assert isa.current() == ""
    with isa.pretended(None):
        assert os.environ == before
