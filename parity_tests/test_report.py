"""The parity report is written whatever was run, and shows what failed."""

from __future__ import annotations

import json

from parity_tests.report import Report


def test_a_run_without_operations_has_a_report(tmp_path):
    Report().write(tmp_path, "quick", "cpu", "0", 0)
    assert json.loads((tmp_path / "parity.json").read_text(encoding="utf-8"))["rows"] == []
    assert (tmp_path / "parity.svg").read_text(encoding="utf-8").rstrip().endswith("</svg>")


def test_a_failure_is_red(tmp_path):
    report = Report()
    report.row("relu", "numba", "float32").failure = "output 0 is off"
    report.write(tmp_path, "quick", "cpu", "0", 1)
    page = (tmp_path / "parity.md").read_text(encoding="utf-8")
    assert "**This run failed, with exit status 1.**" in page
    assert "- 🔴 relu numba float32: output 0 is off" in page
