"""Results are kept, compared and written into documents. All results here are made up."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation, Text
from typer.testing import CliRunner

from benchmarks.cli import app
from benchmarks.commands import traps
from benchmarks.reports import compare, machines, plots, screen, tables
from benchmarks.reports import documents as report
from benchmarks.reports.results import Report, Row, together
from parity_tests.twins import tables as twin_tables


def made_up(*, scratch: float = 0.010, torch: float = 0.020, drift: float = 1.0, seed: int = 0, failed: bool = False) -> Report:
    """A run in which scratch's relu takes ``scratch`` seconds and torch's takes ``torch``, on a machine ``drift`` times as
    slow.
    """
    rng = np.random.default_rng(seed)

    def turns(seconds: float) -> list[list[list[float]]]:
        return [[[float(seconds * drift * np.exp(0.005 * rng.standard_normal()))] for _ in range(3)] for _ in range(2)]

    sides = {"scratch": scratch, "torch eager": torch, "scratch again": scratch}
    rounds = [{side: turns(seconds) for side, seconds in sides.items()} for _ in range(15)]
    row = Row(
        "relu1", "layer", "relu", 32, ["forward"], shape="96×55×55", flops={"forward": 0.0}, traffic={"forward": 7e7},
        ran={"scratch": "numba"}, checked={"scratch": 0.0}, threads=2, rounds=[] if failed else rounds,
        failed={"scratch": "out is off by 7 times what rounding allows"} if failed else {},
    )  # fmt: skip
    return Report(
        machine={"cpu": "Abacus", "cores": 2, "system": "Linux", "python": "3.11", "commit": "abc"},
        settings={"threads": 2, "batch": 32, "device": "cpu", "date": "2026-01-01"},
        libraries={"scratch": {"versions": {"numpy": "2"}, "pools": {"scratch": 2}}},
        roof={"flops": 1e11, "bytes": 2e10},
        rows=[row],
    )


def test_results_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "r.json"
    before = made_up()
    before.save(path)
    after = Report.load(path)
    assert after.rows[0].ratio("forward", "scratch", "torch eager").median == pytest.approx(0.5, rel=0.02)
    assert after.same()[0][3].contains(1.0)
    after.save(path)
    assert Report.load(path) == after


def test_the_roof_is_the_highest_found_on_that_machine() -> None:
    main, faster, elsewhere = made_up(), made_up(), made_up()
    faster.roof = {"flops": 2e11, "bytes": 1e10}
    elsewhere.machine["cpu"], elsewhere.roof = "Difference engine", {"flops": 9e11, "bytes": 9e10}
    for other in (faster, elsewhere):
        main.raise_roof(other)
    assert main.roof == {"flops": 2e11, "bytes": 2e10}


def test_the_trusted_run_comes_first_and_a_machine_has_one_roof(tmp_path: Path) -> None:
    noisy, trusted = made_up(), made_up()
    noisy.rows[0].leaked = 0.5
    trusted.roof = {"flops": 2e11, "bytes": 1e10}
    files = [tmp_path / "first.json", tmp_path / "second.json"]
    noisy.save(files[0])
    trusted.save(files[1])
    reports = together([files])
    assert [bool(report.distrust()) for report in reports] == [False, True]
    assert [report.roof for report in reports] == [{"flops": 2e11, "bytes": 2e10}] * 2


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"format": "alexnet-from-scratch benchmark", "version": 99}'])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"r\.json"):
        Report.load(path)


def test_nothing_changed_though_the_machine_is_half_as_fast() -> None:
    found = compare.changes(made_up(seed=1), made_up(seed=2, drift=2.0))
    assert [change.ratio.verdict for change in found] == ["same"]


def test_ten_percent_are_seen_between_runs() -> None:
    (change,) = compare.changes(made_up(seed=1), made_up(seed=2, drift=2.0, scratch=0.011))
    assert change.ratio.verdict == "slower"
    assert change.ratio.contains(1.1)
    assert "relu1 forward (scratch): slower by" in str(change)
    (change,) = compare.changes(made_up(seed=1, scratch=0.011), made_up(seed=2))
    assert change.ratio.verdict == "faster"


def test_compare_warns_of_other_machines_and_versions() -> None:
    other = made_up()
    other.machine["cpu"] = "Slide rule"
    other.libraries["scratch"]["versions"]["numpy"] = "3"
    found = compare.caveats(made_up(), other)
    assert len(found) == 2
    assert "Abacus" in found[0]


def test_compare_on_the_command_line(tmp_path: Path) -> None:
    for name, made in {"old": made_up(seed=1), "new": made_up(seed=2, scratch=0.011), "failed": made_up(failed=True)}.items():
        made.save(tmp_path / f"{name}.json")

    def outcome(*names: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["compare", *(str(tmp_path / f"{name}.json") for name in names)])
        return result.exit_code, result.output

    assert outcome("old", "old")[0] == 0
    code, text = outcome("old", "new")
    assert code == 1
    assert "slower" in text
    assert "no row in common" in outcome("old", "failed")[1]


BEGIN, END = "<!-- benchmark:begin -->\n", "<!-- benchmark:end -->\n"
MARKED = f"# Title\n\n{BEGIN}stale\n{END}\ntext\n<!-- benchmark:begin controls -->\n{END}"


def test_blocks_are_filled_and_the_rest_is_left_alone(tmp_path: Path) -> None:
    filled = report.fill(MARKED, [made_up()], here=tmp_path, pictures=tmp_path)
    assert "stale" not in filled
    assert filled.startswith("# Title\n\n<!-- benchmark:begin -->\n\n")
    assert re.search(r"\| relu1 \| forward \| 96×55×55 \| [\d.]+ \| \*\*[\d.]+\*\* \| 0\.50 \[0\.50 … 0\.50\] \|", filled)
    assert "this run can be trusted" in filled
    assert report.fill(filled, [made_up()], here=tmp_path, pictures=tmp_path) == filled


@pytest.mark.parametrize("text", [BEGIN, END, f"<!-- benchmark:begin nonsense -->\n{END}"])
def test_broken_markers_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"benchmark:begin|nonsense"):
        report.fill(text, [made_up()], here=tmp_path, pictures=tmp_path)


def test_documents_and_pictures_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twin_tables, "RESULTS", tmp_path / "no twins")
    page = tmp_path / "page.md"
    page.write_text(MARKED + "<!-- benchmark:begin roofline -->\n<!-- benchmark:end -->\n")
    written = report.write([page], [made_up()], tmp_path / "docs")
    assert {path.name for path in written} == {"page.md", "roofline.svg"}
    assert "(docs/roofline.svg)" in page.read_text()
    first = (tmp_path / "docs" / "roofline.svg").read_bytes()
    report.write([page], [made_up()], tmp_path / "docs")
    assert (tmp_path / "docs" / "roofline.svg").read_bytes() == first


def test_failed_rows_are_shown() -> None:
    made = made_up(failed=True)
    assert "**FAILED**" in tables.comparison(made).markdown()
    with screen.console.capture() as shown:
        screen.show(made)
        screen.conclude(made)
    assert "Verified: NO. These results are wrong: relu1, scratch: out is off by 7 times what rounding allows" in shown.get()


@pytest.mark.parametrize(
    ("made", "code"),
    [(made_up(), 0), (made_up(failed=True), 1), (made_up(torch=0.01), 0)],
    ids=["good", "failed", "equal"],
)
def test_exit_codes(made: Report, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_cases(settings, report, say, done):
        vars(report).update(vars(made) | {"settings": report.settings})

    monkeypatch.setattr("benchmarks.cli.run_cases", run_cases)
    arguments = ["--ops", "relu1", "--threads", "2", "--json", str(tmp_path / "r.json")]
    assert CliRunner().invoke(app, arguments).exit_code == code
    assert Report.load(tmp_path / "r.json").rows[0].case == "relu1"


@pytest.mark.parametrize(("flags", "code"), [([], 0), (["--strict"], 3)])
def test_a_noisy_machine_is_not_an_error_unless_asked(
    flags: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = made_up()
    for one in made.rows[0].rounds:
        one["scratch again"] = [[[lap * 1.2 for lap in laps] for laps in turn] for turn in one["scratch again"]]

    def run_cases(settings, report, say, done):
        vars(report).update(vars(made) | {"settings": report.settings})

    monkeypatch.setattr("benchmarks.cli.run_cases", run_cases)
    result = CliRunner().invoke(app, ["--ops", "relu1", "--threads", "2", "--json", str(tmp_path / "r.json"), *flags])
    assert result.exit_code == code
    assert "Trusted: no: the same library in two processes differed by up to" in result.output


def test_an_interrupted_run_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = made_up()

    def run_cases(settings, report, say, done):
        vars(report).update(vars(made) | {"settings": report.settings})
        report.rows.append(Row("pool1", "layer", "max_pool2d", 32, ["forward"]))
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.cli.run_cases", run_cases)
    result = CliRunner().invoke(app, ["--ops", "relu1,pool1", "--threads", "2", "--json", str(tmp_path / "r.json")])
    assert result.exit_code == 130
    kept = Report.load(tmp_path / "r.json")
    assert kept.interrupted
    assert [row.case for row in kept.rows] == ["relu1"]


def test_the_rungs_picture_has_a_bar_for_every_rung_and_torch(tmp_path: Path) -> None:
    made = made_up()
    row = made.rows[0]
    row.group, row.operation, row.flops = "rungs", "conv2d", {"forward": 1e9}
    made.rows.insert(0, replace(row, operation="linear", rounds=row.rounds[:1]))  # another operation's rungs are not in it
    row.rounds = [{"scratch im2col": one["scratch"], **one} for one in row.rounds]
    row.made = {side: {"forward": 1e9} for side in row.sides} | {"scratch": {"forward": 5e8}}
    assert [path.name for path in plots.draw([made], tmp_path)] == ["rungs-plot.svg"]
    assert "im2col" in (tmp_path / "rungs-plot.svg").read_text()
    bars = [bar for bar in plots.rungs(made).axes[0].patches if isinstance(bar, Rectangle)]
    heights = [bar.get_height() for bar in bars]
    assert heights[::2] == pytest.approx([100, 100, 50], rel=0.02)  # by the definition
    assert heights[1::2] == pytest.approx([100, 50, 50], rel=0.02)


def test_no_label_of_the_roofline_covers_another(tmp_path: Path) -> None:
    """The layers here lie on one spot, in two clusters, and apart."""
    made = made_up()
    row = made.rows[0]
    for i, rate in enumerate([1e9, 1e9, 1e9, 1.01e9, 1.02e9, 1.05e9, 2e9, 2e9, 3e9]):
        flops = {"forward": rate, "backward": rate * 1.001}
        layer = replace(row, case=f"conv{i}", operation="conv2d", phases=list(flops), flops=flops)
        layer.traffic = {"forward": 1e7, "backward": 1e7}
        layer.rounds = [{side: [[turn[0] * 2 for turn in turns]] * 2 for side, turns in one.items()} for one in row.rounds]
        layer.made = dict.fromkeys(layer.sides, flops)
        made.rows.append(layer)
    figure = plots.roofline(made)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    labels = [text for text in figure.axes[0].texts if isinstance(text, Annotation)]
    assert sorted(text.get_text() for text in labels) == sorted(f"conv{i} {phase}" for i in range(9) for phase in "fb")
    for text in labels:
        text.update_positions(renderer)
    boxes = [Text.get_window_extent(text) for text in labels]
    assert all(box.width > 0 for box in boxes)
    assert not [(a, b) for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]


def test_tables_and_pictures_name_their_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = made_up()
    other.machine["cpu"] = "Slide rule"
    monkeypatch.setattr(machines, "runs", lambda file: {"abacus": made_up(), "slide-rule": other})
    monkeypatch.setitem(report.EVERYWHERE, "peers", tables.comparison)
    titles = [line for line in report.block("peers", [], tmp_path, tmp_path).splitlines() if line.endswith(":")]
    assert [title.rpartition(", on ")[2] for title in titles] == ["Abacus:", "Slide rule:"]
    assert report.block("roofline", [other, made_up()], tmp_path, tmp_path).endswith(f"\n\n*{tables.origin(other)}*")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [(0.5, "looks 2.0 times as fast"), (3.0, "looks 3.0 times as slow"), (0.97, "does not show"), (1.09, "does not show")],
)
def test_a_traps_sentence_follows_its_numbers(wrong: float, words: str) -> None:
    found = [{"trap": "zeros_are_not_data", "what": what, "seconds": s} for what, s in (("wrong", wrong), ("honest", 1.0))]
    assert words in traps.table("zeros_are_not_data", Report(traps=found)).caption


def test_a_picture_without_figures_is_not_linked(tmp_path: Path) -> None:
    made = made_up()
    filled = report.fill("<!-- benchmark:begin rungs-plot -->\n<!-- benchmark:end -->", [made], here=tmp_path, pictures=tmp_path)
    assert tables.NOTHING in filled
