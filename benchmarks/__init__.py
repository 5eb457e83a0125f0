"""Verify, then time, scratch beside torch: ``python -m benchmarks``.

In reading order: ``cases`` (what is measured), ``inputs`` (on which data), ``subjects`` (how one library does one pass),
``worker``, ``processes`` and ``awake`` (one library a process), ``pairing`` (A B B A), ``stats`` (what the samples say),
``verify``.
"""
