"""Facts for a report about a fault or a measurement: ``python -m scratch.about`` prints versions, processor and settings.

The command needs only NumPy and Numba. It shows the home folder as ~, so that a report does not name its user.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np

from alexnet_from_scratch import __version__, hardware
from alexnet_from_scratch.packages import EXTRAS
from alexnet_from_scratch.runs.screen import failing_plainly
from alexnet_from_scratch.text import CommandLine, shown
from scratch.compiled import blocks, cores, environment, kernel_cache
from scratch.compiled.emission import VECTOR_BITS
from scratch.compiled.jit import JIT_OFF
from scratch.compiled.microkernel import MR, NR_VECTORS
from scratch.compiled.threads import get_num_threads

# Environment variables with these prefixes can change how fast, how exactly or in which way this project computes.
PREFIXES = ("SCRATCH_", "ALEXNET_", "NUMBA_", "OMP_", "OPENBLAS_", "MKL_", "PYTHON", "CUDA_", "TORCH", "CUBLAS_")


def lines() -> Iterator[str]:
    """The facts, a line each: a name, then what was found."""
    yield _line("alexnet-from-scratch", f"{__version__} in {_private(kernel_cache.PACKAGE.parent)}")
    yield _line("Python", f"{platform.python_version()} ({platform.python_implementation()}), {platform.platform()}")
    for name in ("numpy", "numba", "llvmlite", *sorted({distribution for distribution, _ in EXTRAS.values()}, key=str.lower)):
        yield _line(name, _version(name))
    yield _line("processor", f"{hardware.processor()}, {platform.machine()}; LLVM: {llvm.get_host_cpu_name()}")
    columns = NR_VECTORS * VECTOR_BITS // (8 * np.dtype(np.float32).itemsize)
    yield _line("vectors", f"{VECTOR_BITS} bits, tiles of {MR} × {columns} float32")
    sizes = ", ".join(f"{name} {size >> 10} KiB" for name, size in hardware.caches().items())
    yield _line("caches", f"{sizes or 'unknown'}; blocks are cut for an L2 of {blocks.size_of_l2() >> 10} KiB")
    yield _line("threads", f"{get_num_threads()}, of {cores.available_cores()} cores that this process may use")
    yield _line("compiled kernels", "none, NUMBA_DISABLE_JIT is set" if JIT_OFF else "; ".join(_kept()))
    yield _line("output", f"{sys.stdout.encoding if sys.stdout else 'closed'}, file names {sys.getfilesystemencoding()}")
    found = {name: value for name, value in sorted(os.environ.items()) if name.startswith(PREFIXES)}
    yield _line("environment", " ".join(f"{name}={_private(value)}" for name, value in found.items()) or "nothing set")
    try:
        environment.check()
    except ValueError as error:
        yield _line("wrong", error)


def _line(name: str, found: object) -> str:
    return f"{name:<22}{shown(found)}"


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _private(text: object) -> str:
    """The text without the user's home folder."""
    home = os.path.expanduser("~")
    return str(text).replace(home, "~") if len(home) > 1 else str(text)


def _kept() -> Iterator[str]:
    """Each folder for the compiled kernels of scratch's operations, with the number of kernels in it."""
    for folder in kernel_cache.folders(kernel_cache.PACKAGE / "relu.py"):
        count = 0
        with contextlib.suppress(OSError):
            count = len([path for path in folder.iterdir() if path.suffix == ".kernel"])
        existing: Path = next(path for path in (folder, *folder.parents) if path.exists())
        yield f"{_private(folder)} ({count} files, {'can' if os.access(existing, os.W_OK) else 'cannot'} be written to)"


if __name__ == "__main__":
    CommandLine("python -m scratch.about", "Versions, processor and settings, to paste into a report.").parse_args()
    with failing_plainly():
        for line in lines():
            print(line)
