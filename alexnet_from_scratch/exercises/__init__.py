"""Exercises: write an operation's backward pass yourself, and see the smallest input on which it is wrong.

``table.py`` has the order and the hints, ``stub.py`` makes the file to fill in from the shipped source, ``check.py`` runs it
through the parity suite's generic test, ``drawing.py`` shows the result. Begin with ``python -m alexnet_from_scratch.exercises
--help``.
"""
