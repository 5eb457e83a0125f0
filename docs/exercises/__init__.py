"""Exercises: write an operation's backward pass yourself, and see the smallest input on which it is wrong.

``table.py`` has the order and the hints, ``stub.py`` makes the file to fill in from the shipped source, ``check.py`` runs it
through the parity suite's generic test, ``drawing.py`` shows what came out. ``python -m docs.exercises --help`` is the way in.
"""
