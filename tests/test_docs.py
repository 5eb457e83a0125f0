"""The book: code on its pages runs and prints what they say, every rung has its section, figures are those of the results."""

from __future__ import annotations

import doctest
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from alexnet_from_scratch.proof.specs import RUNGS, SPECS, Spec
from benchmarks.measure.run import rungs as rungs_of
from benchmarks.reports.results import Report, Row
from benchmarks.subjects.cases import choose
from docs._ext import book, evidence
from scratch.core.ladder import Ladder

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {page.relative_to(DOCS).with_suffix("").as_posix(): page for page in sorted(DOCS.rglob("*.md"))}
SESSION = re.compile(r"^```pycon\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def session(page: Path) -> str:
    """Everything that a reader types on a page, block by block."""
    return "\n".join(SESSION.findall(page.read_text()))


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if session(page)])
def test_code_on_the_page_prints_what_it_says(name: str) -> None:
    examples = doctest.DocTestParser().get_doctest(session(PAGES[name]), {}, name, str(PAGES[name]), 0)
    said: list[str] = []
    failed, _ = doctest.DocTestRunner(verbose=False).run(examples, out=said.append)
    assert not failed, "".join(said)


def test_no_code_is_left_out() -> None:
    """A prompt outside a block that runs would look tested without being tested."""
    for name, page in PAGES.items():
        assert page.read_text().count(">>> ") == session(page).count(">>> "), name


@pytest.mark.parametrize(("spec", "rung"), RUNGS, ids=str)
def test_every_rung_has_its_place(spec: Spec, rung: str) -> None:
    assert f"```{{rung}} {spec} {rung}\n" in PAGES[f"operations/{spec}"].read_text()


@pytest.mark.parametrize("name", PAGES)
def test_source_that_a_page_pulls_in_is_there(name: str) -> None:
    for path, block in re.findall(r"^```{source} (\S+)\n(.*?)^```$", PAGES[name].read_text(), re.DOTALL | re.MULTILINE):
        for wanted in re.findall(r"^[\w.]+$", block, re.MULTILINE):
            assert book.lines_of(DOCS.parent / path, wanted)


@pytest.mark.parametrize("name", PAGES)
def test_every_block_is_closed_before_the_next_begins(name: str) -> None:
    """Otherwise the heading and the text in between would be part of the block, without a warning."""
    fences = re.findall(r"^```(.*)$", PAGES[name].read_text(), re.MULTILINE)
    assert all(fences[::2])
    assert not any(fences[1::2])
    assert len(fences) % 2 == 0


def test_every_page_of_the_xray_is_linked() -> None:
    linked = {name for page in PAGES.values() for name in re.findall(r"^```{xray} (\w+)$", page.read_text(), re.MULTILINE)}
    assert linked == set(import_module("alexnet_from_scratch.xray.__main__").PAGES)


PUBLIC = ("modules", "alexnet", "data", *SPECS)


@pytest.mark.parametrize("name", PUBLIC)
def test_what_a_caller_may_use_is_explained(name: str) -> None:
    """The reference has each public name, and each has a docstring; the two sides have the same names, but for the rungs."""
    module = import_module(f"scratch.{name}")
    page = PAGES["api"].read_text(encoding="utf-8")
    for public in module.__all__:
        found = getattr(module, public)
        if isinstance(found, Ladder | ModuleType):  # the rungs, and the two operations that cross_entropy consists of
            continue
        assert found.__doc__
        listed = re.search(rf"auto(function|class):: scratch\.{name}\.{public}$", page, re.MULTILINE)
        assert listed or f"automodule:: scratch.{name}\n   :members:" in page, public
    ours = {public for public in module.__all__ if public not in ("RUNGS", "IncompatibleKeys")}
    assert ours == set(import_module(f"torch_impl.{name}").__all__)


@pytest.fixture
def no_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(evidence, "RESULTS", tmp_path)
    monkeypatch.setattr(evidence, "PARITY", tmp_path / "parity" / "parity.json")
    return tmp_path


def test_what_was_not_measured_says_so(no_results: Path) -> None:
    for text in (evidence.parity("relu", "numpy"), evidence.mutants()):
        assert text == "not measured yet"
    assert evidence.at_a_small_size("relu", "numpy") == "", "a box leaves out what was not timed"
    for table in (evidence.sizes("relu"), evidence.parity_table()):
        assert table == "*Not measured yet.*"


def measured(folder: Path, group: str, case: str, operation: str, seconds: dict[str, float], **left: str) -> None:
    """Add a made-up measurement to the folder of results: seconds by rung, and to which other rung one left its work."""
    row = Row(case, group, operation, 32 if group == "rungs" else 1, ["forward"])
    row.ran = {f"scratch {rung}": left.get(rung, rung) for rung in seconds}
    row.rounds = [{f"scratch {rung}": [[[time]], [[time]]] for rung, time in seconds.items()}] * 2
    (folder / "a machine").mkdir(exist_ok=True)
    Report(rows=[row]).save(folder / "a machine" / f"{case}.json")


def test_a_gain_is_the_ratio_to_the_rung_that_ran_before(no_results: Path) -> None:
    measured(no_results, "ladder", "small relu", "relu", {"naive": 0.008, "numpy": 0.004, "numba": 0.004}, numba="numpy")
    assert evidence.at_a_small_size("relu", "naive") == "forward 8.00 ms"
    assert evidence.at_a_small_size("relu", "numpy") == "forward 4.00 ms, 2.0× as fast as naive"
    assert evidence.at_a_small_size("relu", "numba") == "forward left to the rung below"


def test_alexnets_own_layer_comes_first_and_a_small_size_stays_where_it_teaches(no_results: Path) -> None:
    small = {"naive": 0.04, "im2col": 0.004, "numba": 0.001, "implicit_gemm": 0.0005, "winograd": 0.001}
    measured(no_results, "ladder", "small conv", "conv2d", small)
    large = {"im2col": 0.08, "numba": 0.06, "implicit_gemm": 0.04, "winograd": 0.02}
    measured(no_results, "rungs", "conv3 rungs", "conv2d", large)
    assert [evidence.at_alexnets_size("conv2d", rung) for rung in ("naive", "im2col", "winograd")] == [
        "",
        "conv3, 32 images: forward 80.0 ms",
        "conv3, 32 images: forward 20.0 ms, 2.0× as fast as implicit_gemm",
    ]
    assert {rung: evidence.at_a_small_size("conv2d", rung) for rung in small} == {
        "naive": "forward 40.0 ms",  # too slow for conv3
        "im2col": "forward 4.00 ms, 10.0× as fast as naive",
        "numba": "",  # faster at both sizes: conv3 says it
        "implicit_gemm": "",
        "winograd": "forward 1.00 ms, 0.5× as fast as implicit_gemm. Work this small does not repay the rung.",
    }


@pytest.mark.parametrize(
    ("case", "operation"), [("fc6", "linear"), ("norm1", "local_response_norm"), ("pool1", "max_pool2d"), ("conv3", "conv2d")]
)
def test_the_benchmark_times_every_rung_of_the_layer(case: str, operation: str, no_results: Path) -> None:
    (layer,) = choose(f"{case} rungs", set())
    assert rungs_of(layer) == [rung for rung in import_module(f"scratch.{operation}").RUNGS if rung != "naive"]
    measured(no_results, layer.group, layer.name, operation, dict.fromkeys(rungs_of(layer), 0.02))
    last = rungs_of(layer)[-1]
    assert re.match(rf"{case}, 32 images: forward 20.0 ms, 1.0× as fast as \w+", evidence.at_alexnets_size(operation, last))


@pytest.mark.parametrize(("spec", "rung"), RUNGS, ids=str)
def test_everything_was_measured(spec: Spec, rung: str) -> None:
    for said in (evidence.parity(spec.name, rung), evidence.at_a_small_size(spec.name, rung), evidence.sizes(spec.name)):
        assert evidence.NOTHING not in said.lower()


def anchors(page: Path) -> set[str]:
    """What a repository's web page calls the headings of a file: lower case, hyphens for spaces, without punctuation."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", ["README.md", "CONTRIBUTING.md", "DECISIONS.md", "CHANGELOG.md"])
def test_every_link_outside_the_book_arrives(file: str) -> None:
    """Sphinx checks those of the book's pages."""
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", (DOCS.parent / file).read_text()):
        path, _, anchor = link.partition("#")
        target = DOCS.parent / (path or file)
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


INVENTED = re.compile(r"https?://[\w.-]*(?:github\.io|github\.com|colab\.|mybinder|readthedocs)[^\s)\"']*")


@pytest.mark.parametrize("file", ["README.md", "pyproject.toml", "notebooks/alexnet_from_scratch.ipynb", "docs/index.md"])
def test_no_address_is_invented(file: str) -> None:
    """While docs/conf.py has no public address, nothing links to one."""
    settings: dict[str, str] = {}
    for name in ("html_baseurl", "REPOSITORY"):
        (settings[name],) = re.findall(rf'^{name} = "(.*)"$', (DOCS / "conf.py").read_text(), re.MULTILINE)
    known = [address for address in settings.values() if address]
    for found in INVENTED.findall((DOCS.parent / file).read_text()):
        assert any(found.startswith(address) for address in known), found


@pytest.mark.parametrize(
    ("tex", "expected"), [("grad_x", "<mtext>grad_x</mtext>"), ("s_j", "<msub>"), (r"\sum_{oc} a", "<mtext>oc</mtext>")]
)
def test_the_codes_names_stay_whole_in_formulas(tex: str, expected: str) -> None:
    assert expected in book.mathml(tex, "inline")


@pytest.mark.parametrize(
    ("tex", "expected"),
    [
        (r"a = b + c \cdot d", [["a"], [" = b", " + c", r" \cdot d"]]),
        (r"x = (a + b) \cdot \lfloor c + d \rfloor", [["x"], [" = (a + b)", r" \cdot \lfloor c + d \rfloor"]]),
        (r"y = \sum_{i = 0} a \sum_j b", [["y"], [r" = \sum_{i = 0} a", r" \sum_j b"]]),
        (r"p = \begin{cases} a + b \end{cases}", [["p"], [r" = \begin{cases} a + b \end{cases}"]]),
    ],
)
def test_a_formulas_line_ends_outside_brackets_only(tex: str, expected: list[list[str]]) -> None:
    assert book.pieces(tex) == expected


def test_a_formula_with_an_unknown_command_is_refused() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        book.mathml(r"\nonsense{x}", "inline")
