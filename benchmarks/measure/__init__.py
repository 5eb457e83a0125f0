"""Measuring: processes, pairing, statistics, the machine and its limits."""
