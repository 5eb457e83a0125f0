"""Separate measurements: growth, parts, selfcheck, traps."""
