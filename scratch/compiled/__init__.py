"""How machine code is made and run: the JIT, threads, memory, vectors, the micro-kernel, blocks that fit the caches."""

from scratch.compiled import environment as environment  # before any module imports Numba, whose settings it checks
