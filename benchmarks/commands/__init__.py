"""Separate measurements: accuracy, growth, parts, peers, selfcheck, traps."""
