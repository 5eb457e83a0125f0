"""What a path leads to, in words for error messages."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alexnet_from_scratch.text import shown

FILE, FOLDER, ABSENT = "a file", "a folder", "not there"
OTHERS = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def kind(path: Path) -> str:
    """``FILE``, ``FOLDER``, ``ABSENT``, or what else the path leads to, in words that read well after "is"."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "a link that leads back to itself"
        if path.is_symlink() and error.errno == errno.ENOENT:
            return f"a link to {shown(os.readlink(path))}, which does not exist"
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return ABSENT
        return f"out of reach ({error.strerror})"
    return FILE if stat.S_ISREG(mode) else FOLDER if stat.S_ISDIR(mode) else OTHERS.get(stat.S_IFMT(mode), "of an unknown kind")


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Give this path's name to an OSError that names no file, such as one from reading or writing."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def wrong_kind(path: Path, expected: str) -> str | None:
    """What is wrong if the path is not what ``expected`` (``FILE`` or ``FOLDER``) says; None if nothing is."""
    what = kind(path)
    if what == expected:
        return None
    return f"{shown(path)} is {what}" if what == ABSENT else f"{shown(path)} is {what}, not {expected}"
