"""How large the blocks of a matrix product are, by a model of the caches.

The model follows Low et al. 2016, "Analytical modeling is enough for high-performance BLIS", with two changes: the block in L2 is
one of B, not of A; and A, which is small here, has no block MC. A product of A (M,K) and B (K,N) is cut three times, so that each
part is used often while it is in a cache. In a convolution, A holds the weights, B holds the columns, and NC counts the pixels
of a few panels:

    K  in blocks of KC    a panel of A, (MR,KC), and a panel of B, (KC,NR), are in L1 while the micro-kernel multiplies them
    N  in blocks of NC    B's block (KC,NC), and the result's tiles (M,NC), are in L2 until the sum over K is complete
    M  in panels of MR    A's panels stream past from L3; each one is used for all NC columns while the next is prefetched

KC decides the order of the sums, and so the bits of the result. Therefore KC is the same on all machines. It cuts every sum
over taps, channels, pixels or tiles; only the gradient of linear's weight sums all rows in one call, and linear with few rows has
running sums of its own. Two things limit KC:

- From above, L1: with MR = 14 and NR = 32, the two panels take 46·KC float32, or 30·KC float64. 128 steps are 23 or 30 KiB, and
  the smallest L1 of today's processors is 32 KiB. Short blocks also round less: the error grows with KC + K/KC instead
  of K.
- From below, the tile: adding it to memory after each block takes about as long as three steps of k, which are 2 % of 128
  steps.

NC follows from the size of L2. It never changes the result, only how often A is read from L3. For conv4 of AlexNet (M = 384, 28
panels of 14 rows) each panel of 32 columns needs 32·4·(128 + 392) bytes = 65 KiB of L2. Three quarters of 1 MiB hold 11 of
them. So a panel of A, 7 KiB, is read once for 11 tiles, which take 11·14·2·128 = 39,000 vector multiply-adds. At one
multiply-add a cycle, that is 0.2 bytes of A a cycle; L3 delivers about 10.
"""

from __future__ import annotations

import functools
import sys

from alexnet_from_scratch import hardware
from scratch.compiled import environment

KC = 128  # steps of k in one block of a sum
GUESS = 1 << 20  # bytes of L2 to assume if the system reports none


def _forced_l2() -> int:
    """KiB of L2, or 0: SCRATCH_L2_KIB forces its size, to test other blocks on any machine."""
    return environment.choice("SCRATCH_L2_KIB", range(64, (1 << 20) + 1), "an int from 64 to 1048576", int)


FORCED_L2 = _forced_l2()


@functools.cache
def size_of_l2() -> int:
    """Bytes of a core's own second-level cache."""
    return FORCED_L2 << 10 or _reported() or GUESS


def panels_in_l2(panel: int, fixed: int) -> int:
    """How many panels of NR columns a block may have so that it fits into L2.

    Each panel takes ``panel`` bytes of L2, and ``fixed`` bytes are needed in any case. A quarter of L2 is left for data that
    only streams through. linear counts another kind of panel: KC steps of its whole batch.
    """
    return max(1, (size_of_l2() * 3 // 4 - fixed) // panel)


def _reported() -> int:
    """Bytes of L2, as the system reports them; 0 if it does not."""
    told = hardware.caches().get("L2", 0)
    # On macOS a cluster of cores shares one L2; a quarter of it is counted as one core's.
    return told // 4 if sys.platform == "darwin" else told
