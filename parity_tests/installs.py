"""A copy of scratch in a folder of its own, to start processes from: for the tests of the kernels' cache."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import scratch

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2  # of linux/prctl.h and linux/capability.h
NAMELESS = """
import pwd
def getpwuid(user):
    raise KeyError(user)
pwd.getpwuid = getpwuid
"""  # a container's user may have no name, and then has no home
RELU = "import numpy, scratch; print(scratch.relu.forward(numpy.array([-1, 2], numpy.float32))[0].tolist())"
# Also whether each kernel that ran was found on disk: a cache hit and no miss in Numba's counts.
COUNTED = RELU + "; print([sum(it.values()) for it in scratch.relu._forward_kernel.stats[1:]])"
RIGHT = "[0.0, 2.0]\n"
FOUND, COMPILED = RIGHT + "[1, 0]\n", RIGHT + "[0, 1]\n"

# A kernel of a user's own.
TINY = """
from scratch.compiled.jit import kernel
@kernel
def double(x):
    for i in range(x.size):
        x[i] *= 2
"""
# Compile it in a fresh module, or find it on disk; says how often it was found.
HITS = """
def hits():
    sys.modules.pop("tiny", None)
    import tiny
    x = numpy.ones(3, numpy.float32)
    tiny.double(x)
    assert x.tolist() == [2, 2, 2]
    return sum(tiny.double.stats.cache_hits.values())
"""


def heed_permissions() -> None:
    """Give up root's right to write to read-only files."""
    if os.getuid() == 0:
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            assert ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0


class Install:
    """A copy of scratch in its own folder, a home, and a working directory."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home, self.here = folder / "install", folder / "home", folder / "here"
        for made in (self.folder, self.home, self.here):
            made.mkdir()
        here = Path(scratch.__file__).parent
        shutil.copytree(here, self.folder / "scratch", ignore=shutil.ignore_patterns("__pycache__"))
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "SCRATCH_", "XDG_"))}
        self.environment = inherited | {"HOME": str(self.home), "PYTHONPATH": str(self.folder)}

    def start(
        self, code: str = COUNTED, *, argv: Sequence[str] = (), env: Mapping[str, str | None] | None = None, **how: Any
    ) -> tuple[str, str]:
        """Run a process; return what it prints, and its warnings."""
        environment = {name: value for name, value in (self.environment | dict(env or {})).items() if value is not None}
        how = {"preexec_fn": heed_permissions, **how}
        run = subprocess.run(
            [sys.executable, "-c", code, *argv],
            cwd=self.here,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            **how,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout, run.stderr

    def allow_writing(self, allowed: bool) -> None:
        for path in [self.folder, *self.folder.rglob("*")]:
            if path.is_dir():
                path.chmod(0o755 if allowed else 0o555)

    def kept(self) -> list[Path]:
        """The files of compiled kernels that relu's forward pass has written."""
        return sorted(path for path in self.folder.parent.rglob("*relu._forward*") if path.is_file())


def assert_one_warning(warnings: str, *words: str) -> None:
    assert warnings.count("Warning: ") == 1, warnings
    assert "Traceback" not in warnings
    for word in ("starts", *words):
        assert word in warnings
