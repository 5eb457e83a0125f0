"""Twin training: scratch and torch in step from the same weights, and separately from several seeds (``python -m``)."""
