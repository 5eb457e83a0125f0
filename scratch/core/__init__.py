"""What every operation shares: argument checks, the ladder of rungs, compiled kernels and threads."""
