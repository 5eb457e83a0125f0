"""Sphinx extensions for the book: source pulled in, figures read from results, pictures drawn by the kernels."""
