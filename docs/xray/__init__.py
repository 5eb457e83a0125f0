"""The X-ray: a page for each operation on which every number can be asked where it came from.

``tracing.py`` runs the shipped kernels on numbers that remember how they were made, ``operations.py`` says which kernel on which
input, ``trace.py`` puts torch's values beside them, ``page.py`` writes the page. ``python -m docs.xray --help`` is the way in.
"""
