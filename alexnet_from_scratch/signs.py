"""What a stranger's file seems to be, by its first bytes."""

from __future__ import annotations

from pathlib import Path

from alexnet_from_scratch.paths import naming


def require_file(path: Path) -> None:
    """Raise OSError unless the path leads to a file. A folder, a pipe (which may never end) and a device are no files."""
    if path.is_dir():
        raise IsADirectoryError(f"{path}: must be a file, got a folder")
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file")
    if not path.is_file():
        raise OSError(f"{path}: must be a file, got a pipe or a device")


SAFETENSORS, ZIP, PICKLE = "a safetensors file", "a zip archive", "a pickle"
SIGNS = (
    (b"version https://git-lfs", "a Git LFS pointer in place of the file: 'git lfs pull' fetches the file itself"),
    (b"PK\3\4", ZIP),
    (b"PK\5\6", ZIP),  # an empty archive
    (b"\x1f\x8b", "a gzip file"),
    *((b"\x80" + bytes([protocol]), PICKLE) for protocol in range(2, 6)),
)


def described(path: Path) -> str:
    """What a file seems to be, by its first bytes, in words for error messages.

    Raises:
        OSError: it is not a file, or cannot be read.
    """
    require_file(path)
    with naming(path), path.open("rb") as file:
        return seems(file.read(64))


def seems(start: bytes) -> str:
    """What a file seems to be, by its first bytes, of which ``start`` holds at most 64."""
    if not start:
        return "an empty file"
    if start[8:9] == b"{" and start[5:8] == bytes(3):  # checked first: a header's length may begin like one of SIGNS
        return SAFETENSORS
    for sign, what in SIGNS:
        if start.startswith(sign):
            return what
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<"):
        return "a web page or other markup, which a server may have sent in the file's place"
    words = text.decode("ascii", "replace").splitlines()[0] if text else ""
    return (
        f"text that begins {words!r}"
        if words and words.isprintable() and "\ufffd" not in words
        else f"bytes that begin {start[:8]!r}"
    )
