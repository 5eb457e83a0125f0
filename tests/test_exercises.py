"""The exercises: the file handed out is the shipped source, a right answer passes, a wrong one is shown on a small input."""

from __future__ import annotations

import inspect
import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from alexnet_from_scratch.exercises.__main__ import main
from alexnet_from_scratch.exercises.check import STAGES, load, smallest
from alexnet_from_scratch.exercises.drawing import draw
from alexnet_from_scratch.exercises.stub import page_of, solution, source_of, stub
from alexnet_from_scratch.exercises.table import EXERCISES
from alexnet_from_scratch.proof.specs import SPECS
from scratch.core.ladder import _no_backward

ROOT = Path(__file__).parents[1]
CASES = "10"
PLAIN = STAGES[0]
each_exercise = pytest.mark.parametrize("operation", EXERCISES)


def answered(operation: str, old: str, new: str) -> str:
    """The file with the shipped solution and a mistake in it."""
    body = inspect.getsource(solution(operation))
    assert old in body
    return f"{stub(operation)}\n\n{body.replace(old, new)}"


def run(folder: Path, operation: str, text: str | None = None) -> tuple[int, str]:
    """What the command returns and prints after the reader has saved ``text``."""
    if text is not None:
        (folder / f"{operation}.py").write_text(text)
    printed = io.StringIO()
    code = main([operation, "--folder", str(folder), "--cases", CASES], Console(file=printed, width=200, highlight=False))
    return code, printed.getvalue()


def test_every_operation_with_a_backward_pass_is_an_exercise() -> None:
    assert set(EXERCISES) == {spec.name for spec in SPECS if spec.scratch.RUNGS["naive"].backward is not _no_backward}


@each_exercise
def test_the_untouched_file_shows_what_has_to_come_out(operation: str, tmp_path: Path) -> None:
    code, printed = run(tmp_path, operation)
    assert code == 1
    assert "Nothing is filled in yet" in printed
    assert "grad_out" in printed
    assert "expected" in printed
    assert "┌" in printed
    written = (tmp_path / f"{operation}.py").read_text()
    assert inspect.getsource(load(tmp_path / f"{operation}.py", "naive_forward")) in written
    # only the signature of the solution is given away
    shipped = inspect.getsource(solution(operation))
    assert max(shipped.splitlines(), key=len).strip() not in written.partition("# --- yours")[0]
    assert list(inspect.signature(solution(operation)).parameters) == list(EXERCISES[operation].arguments)


@each_exercise
def test_the_shipped_solution_passes_and_names_the_next(operation: str, tmp_path: Path) -> None:
    code, printed = run(tmp_path, operation, answered(operation, "", ""))
    assert code == 0
    path, line = re.findall(r"shipped one is in (\S+):(\d+)", printed)[0]
    assert "def naive_backward" in (ROOT / path).read_text().splitlines()[int(line) - 1]
    assert path == str(source_of(operation))
    after = list(EXERCISES)[list(EXERCISES).index(operation) + 1 :]
    assert (f"make exercise OP={after[0]}" if after else "last exercise") in printed


@pytest.mark.parametrize("name", ["[red]x[", "[bold]", "x\x1b[2J"])
def test_a_folders_name_is_no_markup(name: str, tmp_path: Path) -> None:
    for _ in range(2):  # what is written, and how to start again
        _, printed = run(tmp_path / name, "relu")
        assert f"{name}/relu.py".replace("\x1b", r"\x1b") in printed.replace("\n", "")
        assert "\x1b" not in printed


def test_a_file_is_never_written_twice(tmp_path: Path) -> None:
    run(tmp_path, "relu")
    edited = stub("relu") + "# mine\n"
    run(tmp_path, "relu", edited)
    assert (tmp_path / "relu.py").read_text() == edited


MISTAKES = {
    "ties to the last": ("max_pool2d", "h, w = divmod(int(indices[n, c, oh, ow]), W)", "h, w = H - 1, W - 1", 4),
    "assigned, not added": ("max_pool2d", "grad_x[n, c, h, w] += ", "grad_x[n, c, h, w] = ", 4),
    "let through everywhere": ("relu", "0 if out[i] <= 0 else grad_out[i]", "grad_out[i]", 1),
    "let through at 0": ("relu", "out[i] <= 0", "out[i] < 0", 1),
    "not scaled": ("dropout", "(scale if mask[i] else 0)", "(1 if mask[i] else 0)", 1),
    "not divided": ("adaptive_avg_pool2d", " / len(rows) / len(columns)", "", 2),
    "bias once": ("linear", "grad_bias[o] += ", "grad_bias[o] = ", 8),
    "weights of the wrong gradient": ("conv2d", "+= g * padded[cell]", "+= g", 3),
    "only the channels before": ("local_response_norm", "range(max(0, j - window.after)", "range(j", 4),
    "the window not mirrored": (
        "local_response_norm",
        "j - window.after), min(C, j + window.before",
        "j - window.before), min(C, j + window.after",
        12,
    ),
    "the diagonal alone": ("softmax", "s_c * (g_c - dot)", "s_c * (1 - s_c) * g_c", 3),
    "no softmax": ("log_softmax", "g_c - np.exp(log) * total", "g_c - total", 3),
    "the other sign": ("cross_entropy", "grad_logp[n, c, d] -= ", "grad_logp[n, c, d] += ", 6),
}  # fmt: skip


# The last number of each row is the largest size allowed: shrinking finds a small case, not always the smallest.
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_answer_is_shown_on_few_elements(mistake: str, tmp_path: Path) -> None:
    operation, old, new, elements = MISTAKES[mistake]
    (tmp_path / "answer.py").write_text(answered(operation, old, new))
    failure = smallest(operation, load(tmp_path / "answer.py", "naive_backward"), PLAIN, 90)
    assert failure
    assert failure.case.elements <= elements
    assert any(cells is not None and cells.any() for cells in failure.wrong)
    console = Console(file=io.StringIO(), width=100, record=True)
    console.print(draw(operation, failure))
    printed = console.export_text()
    assert "▸" in printed
    assert "must be" in printed


def test_edges_come_last(tmp_path: Path) -> None:
    """A product in place of a selection is right until an infinity meets a zero."""
    code, printed = run(tmp_path, "relu", answered("relu", "0 if out[i] <= 0 else grad_out[i]", "(out[i] > 0) * grad_out[i]"))
    assert code == 1
    assert "✓ plain numbers" in printed
    assert "nan" in printed


BODY = "grad_x = np.empty_like(out)"
BROKEN = {
    "raises": ("oops = [][0]", "raises IndexError: list index out of range\n    oops = [][0]"),
    "gives nothing": ("return", "naive_backward must return a tuple of 1 gradient, got None."),
    "forgets the comma": ("return np.zeros_like(out)", "got a float32 array of shape (). A tuple of one is written (grad_x,)."),
    "gives too many": ("return grad_out, grad_out", "must return a tuple of 1 gradient, got 2."),
    "gives another dtype": ("return (np.zeros(out.shape),)", "must be a float32 array of shape (), got a float64 array"),
    "gives another shape": ("return (np.zeros(7, out.dtype),)", "of shape (), got a float32 array of shape (7,)"),
    "gives a list": ("return ([],)", "gradient 1 must be a float32 array of shape (), got a list"),
    "writes to what it is given": ("grad_out[...] = 0", "write to one of your own"),
    "leaves Python": ("raise SystemExit(3)", "raises SystemExit: 3"),
    "is not Python": ("grad_x = = 1", "is not Python: invalid syntax"),
}  # fmt: skip


@pytest.mark.parametrize("how", BROKEN)
def test_broken_code_is_told_what_is_broken(how: str, tmp_path: Path) -> None:
    line, message = BROKEN[how]
    code, printed = run(tmp_path, "relu", answered("relu", BODY, line))
    assert code == 1
    assert message in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(("text", "message"), [("", "must define the function naive_backward"), ("1 / 0", "ZeroDivisionError")])
def test_a_file_without_the_function(text: str, message: str, tmp_path: Path) -> None:
    code, printed = run(tmp_path, "relu", text)
    assert code == 1
    assert message in printed


def test_what_the_function_prints_is_shown_once(tmp_path: Path) -> None:
    _, printed = run(tmp_path, "relu", answered("relu", BODY, "print('out is', out)"))
    assert printed.count("out is") == 1


def test_the_page_shows_what_comes_out(tmp_path: Path) -> None:
    operation, old, new, _ = MISTAKES["assigned, not added"]
    (tmp_path / "answer.py").write_text(answered(operation, old, new))
    failure = smallest(operation, load(tmp_path / "answer.py", "naive_backward"), PLAIN, 90)
    assert failure
    console = Console(file=io.StringIO(), width=100, record=True)
    console.print(draw(operation, failure))
    drawn = "\n".join(line.rstrip() for line in console.export_text().splitlines()).strip()
    # The page shows one of several smallest inputs; which of them is found depends on what else Python has loaded.
    (shown,) = re.findall(r"```text\n(.*?)\n```", (ROOT / "docs" / "exercises.md").read_text(), re.DOTALL)
    assert [form(line) for line in (shown.splitlines()[0], shown.splitlines()[-1])] == [
        form(line) for line in (drawn.splitlines()[0], drawn.splitlines()[-1])
    ], drawn


def form(line: str) -> str:
    """A line of a drawing without its numbers: the call up to its arguments, or what the first sentence says."""
    return re.sub(r"\d+", "#", line.partition("(")[0].partition(". ")[0])


@each_exercise
def test_the_page_and_the_operations_link_each_other(operation: str) -> None:
    assert f"(operations/{operation}.md)" in (ROOT / "docs" / "exercises.md").read_text()
    assert f"`make exercise OP={operation}`" in (ROOT / "docs" / "operations" / f"{operation}.md").read_text()


def test_without_an_operation_there_is_the_list(tmp_path: Path) -> None:
    printed = io.StringIO()
    assert main(["--folder", str(tmp_path)], Console(file=printed)) == 0
    assert re.findall(r"^  (\w+)", printed.getvalue(), re.MULTILINE) == list(EXERCISES)


def test_random_answers_are_reported(tmp_path: Path) -> None:
    code, printed = run(
        tmp_path, "relu", answered("relu", BODY, "return (np.random.default_rng().random(out.shape, np.float32),)")
    )
    assert code == 1
    assert "must be" in printed


def test_an_installed_package_has_no_book_and_no_makefile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its messages name nothing that is not there."""
    monkeypatch.setattr("alexnet_from_scratch.exercises.stub.PACKAGES", tmp_path)
    assert page_of("relu") == "docs/operations/relu.md of the project's sources"
    assert "then see with  python -m alexnet_from_scratch.exercises relu\n" in stub("relu")
    for operation in ("", "relu"):
        printed = io.StringIO()
        main([*filter(None, [operation]), "--folder", str(tmp_path)], Console(file=printed, width=200))
        assert "make " not in printed.getvalue()
