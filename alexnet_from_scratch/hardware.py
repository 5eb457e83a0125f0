"""What the system says about its processor."""

from __future__ import annotations

import contextlib
import platform
import re
import subprocess
import sys
from pathlib import Path

# macOS's names for the caches of a core of the faster kind. A cluster of cores shares the L2.
SYSCTL = {"L1": "hw.perflevel0.l1dcachesize", "L2": "hw.perflevel0.l2cachesize"}


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name, with family and model on x86: virtual machines often say only "AMD EPYC"."""
    facts = {}
    with contextlib.suppress(OSError):
        for line in cpuinfo.read_text(encoding="utf-8").partition("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            facts[name.strip()] = value.strip()
    name = facts.get("model name") or _sysctl("machdep.cpu.brand_string") or platform.processor() or "unknown"
    return f"{name} (family {facts['cpu family']}, model {facts['model']})" if {"cpu family", "model"} <= facts.keys() else name


def caches(system: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> dict[str, int]:
    """The size in bytes of each cache for data that the first core uses, by name (L1, L2, L3), if Linux or macOS tells it."""
    sizes = {}
    for folder in sorted(system.glob("index*")):
        with contextlib.suppress(OSError, UnicodeError):
            level, kind, size = ((folder / name).read_text(encoding="utf-8").strip() for name in ("level", "type", "size"))
            if kind != "Instruction" and (kibibytes := re.fullmatch(r"(\d+)K", size)):
                sizes[f"L{level}"] = int(kibibytes[1]) * 1024
    for level, name in SYSCTL.items():
        if (told := _sysctl(name)).isdecimal():
            sizes[level] = int(told)
    return sizes


def _sysctl(name: str) -> str:
    """What macOS says about itself under that name; an empty string elsewhere."""
    if sys.platform == "darwin":
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            return subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    return ""
