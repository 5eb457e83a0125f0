"""Whether the parity report is older than the sources: ``python -m parity_tests.sources`` prints one line if it is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "docs" / "parity.json"
PROVEN = ("scratch", "torch_impl", "alexnet_from_scratch/proof", "parity_tests")


def digest() -> str:
    """Identifies the sources of what is proven and of the proof."""
    found = hashlib.sha256()
    for path in sorted(path for folder in PROVEN for path in (ROOT / folder).rglob("*.py")):
        found.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()


def is_old(report: Path = REPORT) -> bool:
    """Whether the report is of other sources than these, or is missing."""
    return not report.exists() or json.loads(report.read_text()).get("sources") != digest()


if __name__ == "__main__" and is_old():
    print(f"{REPORT.relative_to(ROOT)} is of other sources than these. Write it anew with make parity")
