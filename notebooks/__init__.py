"""The notebook, and its text."""
