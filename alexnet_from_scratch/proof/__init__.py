"""The machinery of the parity proof: the table of operations, draws, references, bounds, assertions."""
