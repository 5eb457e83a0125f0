"""How large the blocks of a matrix product are, by a model of the caches.

The model follows Low et al. 2016, "Analytical modeling is enough for high-performance BLIS". A product of A (M,K) and B (K,N) is
cut three times, so that each part is used often while it is in a cache:

    K  in blocks of KC    a panel of A, (MR,KC), and a panel of B, (KC,NR), are in L1 while the micro-kernel multiplies them
    N  in blocks of NC    B's block (KC,NC), and the result's tiles (M,NC), are in L2 until the sum over K is complete
    M  in panels of MR    A's panels stream past from L3, each one used for all NC columns; the next is prefetched meanwhile

KC decides the order of the sums, and so the bits of the result. Therefore it is one number for all machines. Two things limit it:

- From above, L1: with MR = 14 and NR = 32, the two panels take 46·KC float32, or 30·KC float64. 128 steps are 23 or 30 KiB, and
  the smallest L1 of today's processors is 32 KiB. Rounding asks for short blocks, too: a sum of K numbers in blocks of KC has
  running sums of KC and of K/KC numbers only.
- From below, the tile: after each block it is added to memory, which takes as long as about three steps of k. Of 128 that is 2 %.

NC follows from the size of L2. It never decides a bit, only how often A is read from L3. For conv4 of AlexNet (M = 384, 28 panels
of 14 rows) each panel of 32 columns needs 32·4·(128 + 392) bytes = 65 KiB of L2. Three quarters of 1 MiB hold 11 of them. So a
panel of A, 7 KiB, is read once for 11 tiles, which take 11·14·2·128 = 39,000 cycles: 0.2 bytes a cycle, L3 delivers 10.
"""

from __future__ import annotations

import contextlib
import functools
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from scratch.compiled import environment

KC = 128  # steps of k in one block of a sum


class Caches(NamedTuple):
    """Sizes in bytes: of a core's own second-level cache, and of the third level, which cores share."""

    L2: int
    L3: int


GUESS = Caches(L2=1 << 20, L3=16 << 20)  # where the system does not tell


@functools.cache
def caches() -> Caches:
    """The sizes that the system reports. SCRATCH_L2_KIB forces the size of L2, to test other blocks on any machine."""
    sizes = dict(zip(("L2", "L3"), GUESS, strict=True)) | _reported()
    L2 = environment.choice("SCRATCH_L2_KIB", range(64, 1 << 20), "KiB, at least 64", lambda: sizes["L2"] >> 10) << 10
    return Caches(L2, sizes["L3"])


def panels_in_l2(column: int, fixed: int) -> int:
    """How many columns of a block fit into L2: each takes ``column`` bytes there, and ``fixed`` bytes are needed anyway.

    A quarter of L2 is left for what streams through it.
    """
    return max(1, (caches().L2 * 3 // 4 - fixed) // column)


def _reported(system: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> dict[str, int]:
    """The sizes of L2 and L3 that Linux and macOS report, as far as they do."""
    sizes = {}
    with contextlib.suppress(OSError, ValueError):
        for folder in system.glob("index[0-9]*"):
            level, size = ((folder / name).read_text().strip() for name in ("level", "size"))
            if level in "23" and (number := re.fullmatch(r"(\d+)K", size)) and int(number[1]):
                sizes[f"L{level}"] = int(number[1]) << 10
    if sys.platform == "darwin":
        with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
            command = ["sysctl", "-n", "hw.perflevel0.l2cachesize"]
            # A cluster of cores shares this L2.
            sizes["L2"] = int(subprocess.run(command, capture_output=True, check=True, timeout=5).stdout) // 4
    return sizes
