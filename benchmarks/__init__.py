"""Verify scratch and torch, then time them against each other: ``python -m benchmarks``.

In reading order: ``cases`` (what is measured), ``inputs`` (on which data), ``subjects`` (how one library does one pass),
``worker``, ``processes`` and ``awake`` (one library per process), ``pairing`` (A B B A), ``stats`` (what the samples say),
``verify``.
"""
