"""Names of files and classes are text: shown as they are, unless they would disturb a terminal, and never as markup."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexnet_from_scratch.text import shown

# Ordinary text: brackets, dollars, percents and braces are not markup, and scripts need their joiners, spaces and marks.
ORDINARY = (
    "[red]",
    "[/]",
    "[bold magenta]x[/bold magenta]",
    "$5_$",
    r"\alpha",
    "%s",
    "100%",
    "{0}",
    "a/b",
    '"quoted"',
    "größer",
    "می\u200cخواهم",  # Persian, with a zero-width non-joiner
    "👩\u200d🔬",  # an emoji of two, with a joiner
    "全角\u3000空白",  # an ideographic space
    "10\xa0km",  # a no-break space
    "שלום\u200f",  # a right-to-left mark: a letter's direction without the letter
    "e\u0301",
)
DISTURBING = {
    "two\nlines": r"two\nlines",
    "a\ttab": r"a\ttab",
    "\r": r"\r",
    "\x1b[2Jgone": r"\x1b[2Jgone",
    "\x9b2J": r"\x9b2J",  # the same in one byte
    "\x07\x08\x7f\0": r"\x07\x08\x7f\x00",
    "next\x85line": r"next\x85line",
    "line\u2028paragraph\u2029": r"line\u2028paragraph\u2029",
    "gpj\u202e.exe": r"gpj\u202e.exe",  # would reverse everything after it
    "\u2067open": r"\u2067open",
    "caf\udce9": r"caf\udce9",  # a byte of a file's name that is not UTF-8
}


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_shown_as_it_is(text):
    assert shown(text) == text


@pytest.mark.parametrize(("text", "expected"), DISTURBING.items(), ids=map(repr, DISTURBING.values()))
def test_what_disturbs_a_terminal_is_escaped(text, expected):
    assert shown(text) == expected


@given(text=st.text(st.characters(categories=None) | st.sampled_from("".join(DISTURBING))))
def test_what_is_shown_stays_on_its_line_and_can_be_encoded(text):
    printed = shown(text)
    printed.encode("utf-8")
    assert len(printed.splitlines()) <= 1
    assert not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in printed)
    assert shown(printed) == printed
    assert len(shown(text, lines=True).split("\n")) == len(text.split("\n"))
