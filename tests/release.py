"""Whether a tag may be released: ``python -m tests.release v0.1.0`` prints what is wrong and exits with 1, or prints nothing.

The package, the changelog, CITATION.cff and the tag must have one version number, and the changelog its date.
"""

from __future__ import annotations

import datetime
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What has the number where; the changelog's first heading has a date as well.
PLACES = {
    "alexnet_from_scratch/__init__.py": r'^__version__ = "([^"]+)"',
    "CHANGELOG.md": r"^## \[([^\]]+)\]",
    "CITATION.cff": r"^version: (\S+)$",
}


def versions(root: Path = ROOT) -> dict[str, str]:
    """The version number in each file that has it."""
    found = {}
    for file, pattern in PLACES.items():
        match = re.search(pattern, (root / file).read_text(encoding="utf-8"), re.MULTILINE)
        found[file] = match[1] if match else "none"
    return found


def problems(tag: str, root: Path = ROOT) -> list[str]:
    """What keeps this tag from being released, a sentence each."""
    said = [
        f"{file}: its version must be the tag's, {tag}, got {version}"
        for file, version in versions(root).items()
        if tag != f"v{version}"
    ]
    heading = next(line for line in (root / "CHANGELOG.md").read_text(encoding="utf-8").splitlines() if line.startswith("## "))
    date = heading.rpartition(" - ")[2]
    try:
        datetime.date.fromisoformat(date)
    except ValueError:
        said.append(f"CHANGELOG.md: the version must have its date, as 2026-12-31, got {date!r}")
    return said


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m tests.release TAG")
    if found := problems(sys.argv[1]):
        raise SystemExit("\n".join(found))
