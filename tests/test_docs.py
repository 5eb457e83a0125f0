"""The book: code on its pages runs and prints what they say, every rung has its section, figures are those of the results."""

from __future__ import annotations

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

from alexnet_from_scratch.proof.specs import RUNGS, Spec
from benchmarks.reports.results import Report, Row
from docs._ext import book, evidence

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


@pytest.fixture
def no_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(evidence, "RESULTS", tmp_path)
    monkeypatch.setattr(evidence, "PARITY", tmp_path / "parity" / "parity.json")
    return tmp_path


def test_what_was_not_measured_says_so(no_results: Path) -> None:
    for text in (evidence.parity("relu", "numpy"), evidence.mutants()):
        assert text == "not measured yet"
    assert evidence.gain("relu", "numpy") == "", "a box leaves out what was not timed"
    for table in (evidence.sizes("relu"), evidence.parity_table()):
        assert table == "*Not measured yet.*"


def test_a_gain_is_the_ratio_to_the_rung_that_ran_before(no_results: Path) -> None:
    seconds = {"scratch naive": 0.008, "scratch numpy": 0.004, "scratch numba": 0.004}
    row = Row("small relu", "ladder", "relu", 1, ["forward"], ran={side: side.split()[-1] for side in seconds})
    row.ran["scratch numba"] = "numpy"
    row.rounds = [{side: [[[time]], [[time]]] for side, time in seconds.items()}] * 2
    Report(rows=[row]).save(no_results / "run.json")
    assert evidence.gain("relu", "naive") == "forward 8.00 ms"
    assert evidence.gain("relu", "numpy") == "forward 4.00 ms, 2.0× as fast as naive"
    assert evidence.gain("relu", "numba") == "forward left to the rung below"


@pytest.mark.parametrize(("spec", "rung"), RUNGS, ids=str)
def test_everything_was_measured(spec: Spec, rung: str) -> None:
    for said in (evidence.parity(spec.name, rung), evidence.gain(spec.name, rung), evidence.sizes(spec.name)):
        assert evidence.NOTHING not in said.lower()


def test_a_rung_says_what_it_gains_at_alexnets_size() -> None:
    said = evidence.at_alexnets_size("conv2d", "winograd")
    assert re.match(r"conv3, \d+ images, forward [\d.]+ ms, [\d.]+× as fast as implicit_gemm", said)
    assert evidence.at_alexnets_size("conv2d", "naive") == ""


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


def test_a_formula_with_an_unknown_command_is_refused() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        book.mathml(r"\nonsense{x}", "inline")
