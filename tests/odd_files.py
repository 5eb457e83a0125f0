"""What may be where a file is expected; a test that needs one is skipped where the system, or the user, cannot make it."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import pytest

from torch_impl import convert


def pipe(path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes")
    os.mkfifo(path)


def link(path: Path, target: str | Path) -> None:
    try:
        path.symlink_to(target)
    except OSError as error:  # Windows lets only some users make them
        pytest.skip(f"no links: {error}")


def bound(path: Path) -> None:
    """A socket; its full path would be too long for one."""
    if not hasattr(socket, "AF_UNIX"):
        pytest.skip("no sockets with names")
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as opened:
        opened.bind(path.name)


def check_link_to_what_is_read(folder: Path) -> None:
    """A converter does not replace a link to the file that it reads, in either direction."""
    source, other = folder / "source", folder / "link"
    source.write_bytes(b"weights")
    link(other, source)
    for command in (convert.convert, convert.to_torch):
        with pytest.raises(ValueError, match="link: must not be the file that is read"):
            command(source, other)
