"""What the bits of a run depend on, apart from its options and images."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from alexnet_from_scratch import hardware

LIBRARIES = {"scratch": ("numpy", "numba"), "torch_impl": ("torch",)}


@functools.cache
def arithmetic(side: str) -> Mapping[str, str]:
    """The hash of the side's files, the versions of its libraries, and the processor, which decides which kernels they use."""
    folder = Path(import_module(side).__path__[0])
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    versions = {library: import_module(library).__version__ for library in LIBRARIES[side]}
    return {side: digest.hexdigest(), **versions, "processor": hardware.processor()}


def other_than(side: str, saved: object) -> str:
    """What differs in a checkpoint's ``saved`` arithmetic, in words; empty if nothing does."""
    now = arithmetic(side)
    if not isinstance(saved, dict):
        return "an unknown version"
    changed = [name for name, value in now.items() if saved.get(name) != value]
    return f"another {' and '.join(changed)}" if changed else ""
