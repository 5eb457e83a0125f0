"""Which machine, which versions, which thread pools: without these facts a measurement means nothing."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import threadpoolctl

from alexnet_from_scratch.hardware import caches, processor
from benchmarks.measure import isa


def cores() -> int:
    """The cores that this process may use, as scratch counts them."""
    from scratch.compiled.cores import available_cores  # here, because torch's processes must not load scratch

    return available_cores()


def cache_bytes() -> int:
    """The size of the last-level cache, or 32 MiB if the system does not report it."""
    return max(caches().values(), default=32 << 20)


def below_last_level(threads: int) -> int:
    """How many bytes fit into the last-level cache, but not into the caches that ``threads`` cores have above it."""
    *above, last = sorted(caches().values()) or [32 << 20]
    return min(last // 2, 4 * threads * max(above, default=1 << 20))


def lanes() -> int:
    """The float32 lanes of this processor's vector registers, or of those that Numba was told it has. Scratch may use fewer."""
    from llvmlite import binding  # here, because torch's processes must not load it

    told = os.environ.get("NUMBA_CPU_FEATURES")
    features = dict.fromkeys(told.replace("+", "").split(","), True) if told else binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 16
    return 8 if features.get("avx") else 4


def describe() -> dict[str, Any]:
    """The machine and the commit; JSON-ready."""
    return {
        "cpu": processor(),
        "cores": cores(),
        "last_level_cache_bytes": cache_bytes(),
        "caches": caches(),
        "vector_bits": 32 * lanes(),
        "isa": isa.current(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "commit": _commit(),
    }


def forget_peak() -> None:
    """Reset :func:`peak_bytes`, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The largest amount of memory that this process has held."""
    # Not ru_maxrss where there is a choice: it starts at what the parent held when it started this process.
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return int(psutil.Process().memory_info().peak_wset)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def waiting_threads() -> bool:
    """Whether another thread of this process is running or waits for a core, as far as the system reports it (Linux)."""
    for stat in Path("/proc/self/task").glob("*/stat"):
        with contextlib.suppress(OSError):  # the thread has ended meanwhile
            if (
                int(stat.parent.name) != threading.get_native_id()
                and stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "R"
            ):
                return True
    return False


def libraries() -> dict[str, Any]:
    """Versions and thread pools of what this process has loaded; JSON-ready."""
    names = [name for name in ("numpy", "numba", "llvmlite", "torch", "onnxruntime", "openvino", "jax") if name in sys.modules]
    facts: dict[str, Any] = {
        "versions": {name: importlib.metadata.version(name) for name in names},
        "pools": {
            f"{pool['internal_api']} {pool['version'] or ''}".strip(): pool["num_threads"]
            for pool in threadpoolctl.threadpool_info()
        },
    }
    if "scratch" in sys.modules:
        facts["pools"]["scratch"] = sys.modules["scratch"].get_num_threads()
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        facts["pools"]["torch"] = torch.get_num_threads()
        if torch.cuda.is_available():
            facts["gpu"] = torch.cuda.get_device_name()
            facts["tf32"] = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    return facts


def _commit() -> str:
    """The short hash, with a + if tracked files have changed since."""
    here = Path(__file__).parent
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
