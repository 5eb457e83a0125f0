"""The book's pages: the code on them runs and prints what they say, and no operation or rung is without its place."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from parity_tests.specs import RUNGS, Spec

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {page.relative_to(DOCS).with_suffix("").as_posix(): page for page in sorted(DOCS.rglob("*.md"))}
SESSION = re.compile(r"^```pycon\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def session(page: Path) -> str:
    """All that a reader types on a page, one block after the other."""
    return "\n".join(SESSION.findall(page.read_text()))


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if session(page)])
def test_code_on_the_page_prints_what_it_says(name: str) -> None:
    examples = doctest.DocTestParser().get_doctest(session(PAGES[name]), {}, name, str(PAGES[name]), 0)
    said: list[str] = []
    failed, _ = doctest.DocTestRunner(verbose=False).run(examples, out=said.append)
    assert not failed, "".join(said)


def test_no_code_is_left_out() -> None:
    """A prompt outside of a block that runs would look tested and not be."""
    for name, page in PAGES.items():
        assert page.read_text().count(">>> ") == session(page).count(">>> "), name


@pytest.mark.parametrize(("spec", "rung"), RUNGS, ids=str)
def test_every_rung_has_its_place(spec: Spec, rung: str) -> None:
    assert f"```{{rung}} {spec} {rung}\n" in PAGES[f"operations/{spec}"].read_text()
