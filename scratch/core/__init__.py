"""Python code that operations share: argument checks, the ladder of rungs, the base class of modules."""
