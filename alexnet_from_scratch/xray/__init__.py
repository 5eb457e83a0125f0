"""The X-ray: a page for each operation, on which every number shows how it was computed.

``tracing.py`` runs the shipped kernels on numbers that remember how they were made, ``operations/`` chooses kernels and inputs,
``page.py`` compares with torch and writes the page. Begin with ``python -m alexnet_from_scratch.xray --help``.
"""
