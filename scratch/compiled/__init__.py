"""How machine code is made and run: the JIT, threads, memory, vectors, the micro-kernel."""
