"""The exercises: the file handed out is the shipped source, a right answer passes, a wrong one is shown on a small input."""

from __future__ import annotations

import inspect
import io
import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import scratch
from alexnet_from_scratch.exercises import judging
from alexnet_from_scratch.exercises.__main__ import COMPARED, explained, main
from alexnet_from_scratch.exercises.answers import Call, WrongAnswerError, load
from alexnet_from_scratch.exercises.drawing import draw
from alexnet_from_scratch.exercises.judging import (
    ANY_ORDER,
    EDGES,
    EPSILON,
    LONGEST_ROW,
    MATHEMATICS,
    Failure,
    _wrong,
    first_look,
    hunt,
    several_calls,
    smallest,
)
from alexnet_from_scratch.exercises.mistakes import MISTAKES as KNOWN
from alexnet_from_scratch.exercises.mistakes import Mistake, name_of, planted
from alexnet_from_scratch.exercises.stub import page_of, solution, source_of, stub
from alexnet_from_scratch.exercises.table import EXERCISES
from alexnet_from_scratch.proof.bounds import Rounding
from alexnet_from_scratch.proof.draws import Case
from alexnet_from_scratch.proof.reference_nonlinear import log_softmax
from alexnet_from_scratch.proof.specs import SPECS
from tests.exercise_answers import AT_AN_EDGE, OTHER_MISTAKES, RIGHT

ROOT = Path(__file__).parents[1]
CASES = "10"
each_exercise = pytest.mark.parametrize("operation", EXERCISES)


def answered(operation: str, old: str, new: str) -> str:
    """The file with the shipped solution and a mistake in it."""
    body = inspect.getsource(solution(operation))
    assert old in body
    return f"{stub(operation)}\n\n{body.replace(old, new)}"


def filled_in(folder: Path, operation: str, body: str) -> Any:
    """The function of the file that is handed out, with this body."""
    handed_out, _, _ = stub(operation).rpartition("    raise NotImplementedError")
    (folder / "answer.py").write_text(handed_out + textwrap.indent(body, "    ") + "\n")
    return load(folder / "answer.py", solution(operation).__name__)


def run(folder: Path, operation: str, text: str | None = None) -> tuple[int, str]:
    """What the command returns and prints after the reader has saved ``text``."""
    if text is not None:
        (folder / f"{operation}.py").write_text(text)
    printed = io.StringIO()
    code = main([operation, "--folder", str(folder), "--cases", CASES], Console(file=printed, width=200, highlight=False))
    return code, printed.getvalue()


def test_every_operation_is_an_exercise() -> None:
    assert set(EXERCISES) == {spec.name for spec in SPECS}


@each_exercise
def test_ten_right_answers_are_right(operation: str, tmp_path: Path) -> None:
    assert len(set(RIGHT[operation])) == 10
    for i, body in enumerate(RIGHT[operation]):
        yours = filled_in(tmp_path, operation, body)
        assert first_look(operation, yours, []) is None, body
        assert hunt(operation, yours, MATHEMATICS, 15, shrink=False) is None, body
        if (operation, i) in AT_AN_EDGE:
            (edge,) = (stage for stage in EDGES if stage.title == AT_AN_EDGE[operation, i])
            assert hunt(operation, yours, edge, 150, shrink=False), f"{body} is torch's answer at the edge: {edge.title}"


@each_exercise
def test_ten_mistakes_are_found_and_the_known_ones_named(operation: str) -> None:
    mistakes = [*KNOWN[operation], *(Mistake("", *row) for row in OTHER_MISTAKES[operation])]
    assert len({(mistake.old, mistake.new) for mistake in mistakes}) >= 10
    for mistake in mistakes:
        verdict = verdict_on(operation, planted(operation, mistake))
        assert verdict == f"named {mistake.title}" or verdict.startswith("raises"), mistake


def verdict_on(operation: str, yours: Any) -> str:
    """What the reader of a wrong answer is told, without the drawing."""
    try:
        assert first_look(operation, yours, []) is None
        failure = hunt(operation, yours, MATHEMATICS, 200, shrink=False)
        assert failure, "the answer is taken for a right one"
        return (
            failure.message.partition(" ")[2].partition(" ")[2]
            or f"named {name_of(operation, several_calls(operation, yours, COMPARED)) or ''}"
        )
    except WrongAnswerError as error:
        return str(error).partition(" ")[2].partition(" ")[2]


def test_a_mistake_is_named_however_it_is_written(tmp_path: Path) -> None:
    """By what it computes: `=` for `+=` in whole arrays."""
    body = (
        "N, C, H, W = x_shape; grad_x = np.zeros((N, C, H * W + 1), grad_out.dtype)\n"
        "for n, c in np.ndindex(N, C):\n    grad_x[n, c, indices[n, c].ravel()] = grad_out[n, c].ravel()\n"
        "return (grad_x[:, :, :-1].reshape(x_shape),)"
    )
    yours = filled_in(tmp_path, "max_pool2d", body)
    name = name_of("max_pool2d", several_calls("max_pool2d", yours, 30))
    assert name is not None
    assert name.startswith("`=` for `+=` where windows overlap")


@pytest.mark.parametrize(
    ("into", "cell", "mistake"),
    [
        ("H", "n, c, h, w", "dividing the index by H instead of W"),
        ("W", "n, c, w, h", "row and column exchanged"),
    ],
)
def test_a_mistake_that_leads_out_of_an_array_is_named_too(into: str, cell: str, mistake: str, tmp_path: Path) -> None:
    """The smallest input on which it fails is an IndexError; others give wrong cells."""
    body = (
        "N, C, H, W = x_shape; grad_x = np.zeros(x_shape, grad_out.dtype)\nfor n, c, oh, ow in np.ndindex(grad_out.shape):\n"
        f"    h, w = divmod(int(indices[n, c, oh, ow]), {into})\n    grad_x[{cell}] += grad_out[n, c, oh, ow]\nreturn (grad_x,)"
    )
    filled_in(tmp_path, "max_pool2d", body)
    _, printed = run(tmp_path, "max_pool2d", (tmp_path / "answer.py").read_text())
    assert "IndexError" in printed
    assert f"A known mistake gives the same: {mistake}." in printed


def test_one_blank_line_is_between_the_parts_of_a_verdict(tmp_path: Path) -> None:
    _, old, new, _ = MISTAKES["let through everywhere"]
    for wrong in (new, "2 * grad_out[i]"):  # one mistake with a name, and one without
        _, printed = run(tmp_path, "relu", answered("relu", old, wrong))
        assert ("A known mistake" in printed) == (wrong == new)
        assert re.search(r"\S\n\nNo smaller input was found", printed)
        assert not re.search(r"\n *\n *\n", printed)


def test_right_results_name_no_mistake() -> None:
    """An answer that is wrong on a rare input may be right on all that are compared, and so may a mistake."""
    positive = np.ones((2, 3), np.float32)
    (right,) = solution("relu")(positive, positive)
    assert name_of("relu", [Call((positive, positive), {}, (right,))]) is None


TAP_BY_TAP = """N, C, H, W = x.shape
OC, C_group, KH, KW = weight.shape
(sh, sw), (dh, dw), G = geometry.stride, geometry.dilation, geometry.groups
O, OH, OW = OC // G, *grad_out.shape[2:]
padded = _pad(x, geometry)
grad_padded, grad_weight = np.zeros_like(padded), np.zeros_like(weight)
for kh, kw in np.ndindex(KH, KW):
    for group in range(G):
        outs, seen = slice(group * O, (group + 1) * O), (slice(None), slice(group * C_group, (group + 1) * C_group),
            slice(kh * dh, kh * dh + sh * (OH - 1) + 1, sh), slice(kw * dw, kw * dw + sw * (OW - 1) + 1, sw))
        grad_weight[outs, :, kh, kw] = np.einsum("nohw,nchw->oc", grad_out[:, outs], padded[seen])
        grad_padded[seen] += np.einsum("nohw,oc->nchw", grad_out[:, outs], weight[outs, :, kh, kw])
grad_bias = grad_out.sum((0, 2, 3)) if has_bias else None
return _unpad(grad_padded, x, geometry) if need_grad_x else None, grad_weight, grad_bias
"""


@pytest.mark.parametrize(
    ("old", "new", "mistake"),
    [
        ("grad_padded[seen] +=", "grad_padded[seen] =", "`=` for `+=` in grad_x, tap by tap: the last tap alone counts"),
        ("grad_out.sum", "grad_out.mean", "grad_bias as the mean over the batch and the positions"),
        ("(dh, dw), G = geometry.stride, geometry.dilation", "(dh, dw), G = geometry.stride, (1, 1)", "leaving out the dilation"),
        ("(dh, dw), G = geometry.stride", "(dh, dw), G = (1, 1)", "leaving out the stride"),
        (
            "slice(group * C_group, (group + 1) * C_group)",
            "slice(0, C_group)",
            "reading the first group's channels in every group",
        ),
        (
            "grad_out[:, outs], padded[seen])",
            "grad_out[:1, outs], padded[seen][:1])",
            "grad_weight of the first image alone: the batch is not summed",
        ),
        (
            "grad_out[:, outs], padded[seen])",
            "grad_out[:, outs], padded[:, :C_group, *seen[2:]])",
            "reading the first group's channels for grad_weight in every group",
        ),
    ],
)
def test_a_convolutions_mistake_tap_by_tap_is_named(old: str, new: str, mistake: str, tmp_path: Path) -> None:
    assert old in TAP_BY_TAP
    right, wrong = (filled_in(tmp_path, "conv2d", body) for body in (TAP_BY_TAP, TAP_BY_TAP.replace(old, new)))
    assert hunt("conv2d", right, MATHEMATICS, 15, shrink=False) is None
    assert name_of("conv2d", several_calls("conv2d", wrong, 60)) == mistake


def test_a_pools_index_counted_through_the_whole_array_is_named(tmp_path: Path) -> None:
    body = (
        "grad_x = np.zeros(x_shape, grad_out.dtype)\nfor i in np.ndindex(grad_out.shape):\n"
        "    grad_x.flat[indices[i]] += grad_out[i]\nreturn (grad_x,)"
    )
    calls = several_calls("max_pool2d", filled_in(tmp_path, "max_pool2d", body), 30)
    assert name_of("max_pool2d", calls) == "counting the index through the whole array, not from its plane's first cell"


@each_exercise
def test_the_page_explains_every_edge(operation: str) -> None:
    for stage in EDGES:
        path, line = re.findall(rf"^(\S+):(\d+), {stage.mark}$", explained(operation, stage))[0]
        assert (ROOT / path).read_text().splitlines()[int(line) - 1].startswith(f"- **{stage.mark}.**")


@each_exercise
def test_the_untouched_file_shows_what_has_to_come_out(operation: str, tmp_path: Path) -> None:
    code, printed = run(tmp_path, operation)
    assert code == 1
    assert "Nothing is filled in yet" in printed
    assert "expected" in printed
    assert "┌" in printed
    written = (tmp_path / f"{operation}.py").read_text()
    if not EXERCISES[operation].in_place:
        assert inspect.getsource(load(tmp_path / f"{operation}.py", "naive_forward")) in written
    # only the signature of the solution is given away
    shipped = inspect.getsource(solution(operation))
    assert max(shipped.splitlines(), key=len).strip() not in written.partition("# --- yours")[0]
    assert list(inspect.signature(solution(operation)).parameters) == list(EXERCISES[operation].arguments)


@each_exercise
def test_the_shipped_solution_passes_and_is_shown(operation: str, tmp_path: Path) -> None:
    code, printed = run(tmp_path, operation, answered(operation, "", ""))
    assert code == 0
    assert "≠" not in printed
    path, line = re.findall(r"shipped: (\S+):(\d+)", printed)[0]
    assert f"def {solution(operation).__name__}" in (ROOT / path).read_text().splitlines()[int(line) - 1]
    assert path == str(source_of(operation))
    last = inspect.getsource(solution(operation)).rstrip().splitlines()[-1].strip()
    assert printed.count(last) == 2  # the reader's and the shipped one
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
    failure = smallest(operation, load(tmp_path / "answer.py", "naive_backward"), MATHEMATICS, 90)
    assert failure
    assert failure.case.elements <= elements
    assert any(cells is not None and cells.any() for cells in failure.wrong)
    console = Console(file=io.StringIO(), width=100, record=True)
    console.print(draw(operation, failure))
    printed = console.export_text()
    assert "▸" in printed
    assert "must be" in printed


@pytest.mark.parametrize(("ignored", "counts"), [(-100, True), (0, False)])
def test_a_loss_that_is_nan_is_no_ordinary_number(ignored: int, counts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mean over nothing: torch's gradient is 0, and the formula's NaN is right as well."""
    assumed: list[bool] = []
    monkeypatch.setattr(judging, "assume", assumed.append)
    ordinary = judging.Attempt("cross_entropy", scratch.cross_entropy, solution("cross_entropy"), MATHEMATICS, [])
    with scratch.use_rung("naive"):
        loss, cache = ordinary.forward(np.zeros((1, 1), np.float32), np.array([0]), ignore_index=ignored)
        ordinary.backward(np.ones_like(loss), cache)
    assert (False not in assumed) == counts


def test_another_order_of_a_rows_terms_is_right() -> None:
    """Log-softmax's Jacobian times grad_out, term by term, is beyond the definition's bound, but not beyond that of any order."""
    rng = np.random.default_rng(0)
    logits, grad_out = (rng.normal(0, 10, (20_000, LONGEST_ROW)).astype(np.float32) for _ in range(2))
    logp, _ = scratch.log_softmax.forward(logits)
    jacobian = np.eye(LONGEST_ROW, dtype=np.float32) - np.exp(logp)[:, :, np.newaxis]
    answer = np.zeros_like(logp)
    for c in range(LONGEST_ROW):
        answer += jacobian[:, :, c] * grad_out[:, np.newaxis, c]
    _, backward = log_softmax(Rounding(np.dtype(np.float32)), logits, dim=1)
    (reference,) = backward(grad_out)
    assert reference
    largest = np.maximum(abs(logits).max(1, keepdims=True), abs(grad_out).max(1, keepdims=True))
    assert _wrong(answer, reference.value, reference, 0 * largest).any()
    assert not _wrong(answer, reference.value, reference, ANY_ORDER * EPSILON * largest).any()
    answer[0, 0] += 2 * ANY_ORDER * EPSILON * largest[0, 0]
    assert _wrong(answer, reference.value, reference, ANY_ORDER * EPSILON * largest)[0, 0]


def test_an_edge_does_not_make_a_right_answer_wrong(tmp_path: Path) -> None:
    """A product in place of a selection is right until an infinity meets a zero."""
    code, printed = run(tmp_path, "relu", answered("relu", "0 if out[i] <= 0 else grad_out[i]", "(out[i] > 0) * grad_out[i]"))
    assert code == 0
    assert "✓ the mathematics" in printed
    assert re.search(r"≠ NaN and infinity.* docs/operations/relu.md:\d+, NaN and infinity", printed)
    assert "nan" in printed
    assert "Right:" in printed


@pytest.mark.parametrize(("expected", "got", "claim"), [
    ([1, 0, 2], [1, 2, 0], "The numbers are right, but they are in other cells"),
    ([3, 1, 7], [2, 2, 7], "Their sum is right"),
    ([1, 1e-45, 5], [1, 0, 5], ""),  # one subnormal: the sums are equal, but nothing has moved
])  # fmt: skip
def test_what_is_said_of_the_wrong_cells_is_true(expected: list[float], got: list[float], claim: str) -> None:
    must, came = np.array(expected, np.float32), np.array(got, np.float32)
    printed = drawn("relu", must, came)
    assert claim in printed
    assert ("other cells" in printed) == bool(claim)


def test_the_plane_with_the_fault_is_drawn() -> None:
    must, came = np.zeros((1, 9, 1, 1), np.float32), np.zeros((1, 9, 1, 1), np.float32)
    came[0, 7] = 5
    printed = drawn("relu", must, came)
    assert "▸5" in printed
    assert printed.count("[0, 7]") == 4  # x, grad_out, expected and got


def drawn(operation: str, expected: np.ndarray, got: np.ndarray) -> str:
    case = Case((np.zeros_like(expected),), {}, "integers")
    failure = Failure(case, np.zeros_like(expected), (expected,), (got,), (expected != got,), "", "")
    console = Console(file=io.StringIO(), width=120, record=True)
    console.print(draw(operation, failure))
    return console.export_text()


BODY = "grad_x = np.empty_like(out)"
BROKEN = {
    "raises": ("oops = [][0]", "raises IndexError: list index out of range\n    oops = [][0]"),
    "gives nothing": ("return", "naive_backward must return a tuple of 1 gradient, got None."),
    "forgets the comma": ("return out * 1", "got a float32 array of shape (2, 3). A tuple of one is written (grad_x,)."),
    "gives too many": ("return grad_out, grad_out", "must return a tuple of 1 gradient, got 2."),
    "gives another dtype": ("return (np.zeros(out.shape),)", "must be a float32 array of shape (2, 3), got a float64 array"),
    "gives another shape": ("return (np.zeros(7, out.dtype),)", "of shape (2, 3), got a float32 array of shape (7,)"),
    "gives a list": ("return ([],)", "gradient 1 must be a float32 array of shape (2, 3), got a list"),
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
    assert "┌" not in printed, "errors of form come alone, without drawings"


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
    failure = smallest(operation, load(tmp_path / "answer.py", "naive_backward"), MATHEMATICS, 90)
    assert failure
    console = Console(file=io.StringIO(), width=100, record=True)
    console.print(draw(operation, failure))
    drawn = "\n".join(line.rstrip() for line in console.export_text().splitlines()).strip()
    # The page shows one of several smallest inputs; which of them is found depends on what else Python has loaded.
    (shown,) = re.findall(r"```text\n(.*?)\n```", (ROOT / "docs" / "exercises.md").read_text(), re.DOTALL)
    told = [re.findall(r"^max_pool2d.*|.* must be .*", text, re.MULTILINE) for text in (shown, drawn)]
    assert [form(line) for line in told[0]] == [form(line) for line in told[1]], drawn
    assert "A known mistake gives the same: `=` for `+=` where windows overlap" in shown


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
