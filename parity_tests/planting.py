"""Mistakes planted in place, in code that is plain Python: every caller sees them, whichever module it imported the code into.

:mod:`parity_tests.mutants` plants into a rung's own file, and gives the generic test a copy of the operation. What is here is for
all other code: the trainers, what operations share, the classes of torch_impl.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from parity_tests.mutants import mutated

# A check that raises one of these has found the mistake. Others, such as a keyboard interrupt, are not the mistake's doing.
FOUND = (AssertionError, ArithmeticError, LookupError, TypeError, ValueError, RuntimeError, Warning, pytest.fail.Exception)


@dataclass(frozen=True)
class Slip:
    """A mistake in ``module``: the first ``old`` after ``after`` becomes ``new``.

    ``check`` must find it. It gets an empty folder.
    """

    module: str
    title: str
    old: str
    new: str
    check: Callable[[Path], None]
    after: str = ""

    def __str__(self) -> str:
        return f"{self.module}: {self.title}"

    def found(self, folder: Path) -> str:
        """What the check said; empty if it found nothing."""
        with in_place(self.module, self.old, self.new, self.after):
            try:
                self.check(folder)
            except FOUND as error:
                return f"{type(error).__name__}: {error}"
        return ""


@contextmanager
def in_place(name: str, old: str, new: str, after: str = "") -> Iterator[None]:
    """Change the module ``name``: the definition in which ``old`` is gets the code and the defaults of the changed source.

    Raises:
        LookupError: there is no ``old`` after ``after``.
    """
    module = import_module(name)
    statement = mutated(name, old, new, after)[1]
    assert isinstance(statement, ast.FunctionDef | ast.ClassDef), f"{name}: {old!r} is in neither a function nor a class"
    namespace = dict(vars(module))
    exec(compile(ast.Module([statement], []), str(module.__file__), "exec"), namespace)
    with ExitStack() as restored:
        _take_over(getattr(module, statement.name), namespace[statement.name], restored)
        yield


def _take_over(target: Any, source: Any, restored: ExitStack) -> None:
    if inspect.isclass(target):
        for part, value in vars(source).items():
            _take_over(vars(target).get(part), value, restored)
        return
    for attribute in ("fget", "__func__", "func", "meaning", "look_up"):  # what properties, methods, words and such keep
        if isinstance(getattr(source, attribute, None), FunctionType):
            target, source = getattr(target, attribute), getattr(source, attribute)
    target, source = inspect.unwrap(target), inspect.unwrap(source)  # of a context manager
    if not (isinstance(target, FunctionType) and isinstance(source, FunctionType)):
        return
    for attribute in ("__code__", "__defaults__", "__kwdefaults__"):
        restored.callback(setattr, target, attribute, getattr(target, attribute))
        setattr(target, attribute, getattr(source, attribute))
