"""Text from users and strangers, such as the names of files and classes: how commands read it and show it."""

from __future__ import annotations

import argparse
import io
import re
import sys
from typing import Any, NoReturn

# What moves a terminal's cursor, starts its commands, reverses the text that follows, or has no UTF-8 (half a surrogate pair,
# which is how Python keeps a file name's bytes that are not text).
DISTURBING = re.compile("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def shown(text: object, *, lines: bool = False) -> str:
    r"""The text as it is, with what would disturb a terminal escaped: ``\n``, ``\x1b``, ``\udce9``.

    Args:
        text: any object. Joiners, wide spaces and other marks that scripts need are kept.
        lines: leave line breaks, for a message that has several lines.
    """
    return DISTURBING.sub(lambda found: "\n" if lines and found[0] == "\n" else _escaped(found[0]), str(text))


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def print_any_text() -> None:
    """Let standard output escape characters that its encoding lacks, as standard error does, instead of raising an error."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        sys.stdout.reconfigure(errors="backslashreplace")


class CommandLine(argparse.ArgumentParser):
    """A parser whose help and errors can always be printed, whatever the user wrote and whatever the output's encoding."""

    def __init__(self, prog: str | None = None, description: str | None = None, **details: Any) -> None:
        super().__init__(prog, description=description, **details)
        print_any_text()

    def error(self, message: str) -> NoReturn:
        super().error(shown(message))

    def refuse(self, message: str) -> NoReturn:
        """Exit with an error of several lines, whose text is escaped already."""
        super().error(message)
