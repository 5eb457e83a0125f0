"""The test of the tests: wrong kernels, each a mistake that people make, planted into the real source.

A mutant is a small change to an operation's file, or to a rung's: the first ``old`` after the mark ``after`` becomes ``new``.
``also`` plants a mistake in torch_impl or in the reference as well, for mistakes that only one comparison can see. Most are in
rungs in plain Python and NumPy, where nothing is compiled. In compiled rungs, only the kernels that the mistake affects are
recompiled. The generic test and its draws are the same for all.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import numba
import numpy as np

from alexnet_from_scratch.proof.guards import OverrunError
from alexnet_from_scratch.proof.parity import Evidence, examine
from alexnet_from_scratch.proof.search import Draw, search
from alexnet_from_scratch.proof.specs import SPECS, Spec
from scratch.core import ladder

CASES = 300  # enough to kill every mutant; at 100 a few survive, hence the default profile's number
Assertion = Callable[[Evidence], None]


@dataclass(frozen=True)
class Mutant:
    """``title`` says what the mistake is."""

    operation: str
    rung: str
    title: str
    old: str
    new: str
    after: str = ""
    module: str = ""  # the rung's file, if it has its own
    also: tuple[tuple[str, str, str], ...] = ()  # module, old, new
    only: str = ""  # the only assertion that sees it, for mutants that show that the assertion is needed

    def __str__(self) -> str:
        return f"{self.operation} {self.rung}: {self.title}"

    @property
    def spec(self) -> Spec:
        return next(spec for spec in SPECS if spec.name == self.operation)


def planting(
    operation: str, rung: str, *rows: tuple[str, str, str] | tuple[str, str, str, str], after: str = "", module: str = ""
) -> tuple[Mutant, ...]:
    """Mutants of one rung, from rows (title, old, new), each with its own mark at the end or with the common one."""
    return tuple(Mutant(operation, rung, *row[:3], *(row[3:] or (after,)), module=module) for row in rows)


@dataclass(frozen=True)
class Kill:
    """How a mutant died: by which assertion (or exception), at which case, and how small that case is."""

    by: str
    cases: int
    smallest: str
    elements: int


def rewritten(name: str, old: str, new: str, after: str = "") -> ModuleType:
    """A new copy of the module ``name``, from its source with ``old`` replaced by ``new``.

    Raises:
        LookupError: there is no ``old`` after ``after``: the file has changed, and the row must change too.
    """
    tree, wrong = mutated(name, old, new, after)
    return _run_anew(name, tree, _defined(wrong))


def mutated(name: str, old: str, new: str, after: str = "") -> tuple[ast.Module, ast.stmt]:
    """The changed source of the module ``name``, and the statement in it that has changed; raises as :func:`rewritten` does."""
    source = _source(name)
    start = source.find(old, source.find(after)) if after in source else -1
    if start < 0:
        raise LookupError(f"{name} has no {old!r} after {after!r}")
    tree = ast.parse(source[:start] + new + source[start + len(old) :])
    line = source.count("\n", 0, start) + 1
    (wrong,) = (node for node in tree.body if node.lineno <= line <= (node.end_lineno or node.lineno))
    return tree, wrong


def relinked(name: str, parts: dict[str, ModuleType]) -> ModuleType:
    """A new copy of the module ``name``, with ``parts`` replacing the modules of these names that it imports from."""
    tree = ast.parse(_source(name))
    given = {
        alias.name: getattr(parts[module], alias.name)
        for module, node in _imports(tree)
        if module in parts
        for alias in node.names
    }
    return _run_anew(name, tree, set(given), **given)


def importers(name: str, part: str) -> list[str]:
    """The modules of scratch on the import path from ``part`` to ``name``, which imports it directly or not, in this order."""
    found: list[str] = []
    for module, _ in _imports(ast.parse(_source(name))):
        if module not in (part, name):  # a package imports its own modules
            found += [each for each in importers(module, part) if each not in found]
    imported = {module for module, _ in _imports(ast.parse(_source(name)))}
    return [*found, name] if imported & {part, *found} else found


def _imports(tree: ast.Module) -> list[tuple[str, ast.ImportFrom]]:
    """What a module imports from other modules of scratch."""
    froms = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return [(node.module, node) for node in froms if node.module and node.module.startswith("scratch.")]


def _source(name: str) -> str:
    with open(str(import_module(name).__file__)) as stream:
        return stream.read()


def _defined(node: ast.stmt) -> set[str]:
    """The names that a statement at the top level of a module defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)}


def _run_anew(name: str, tree: ast.Module, touched: set[str], **given: Any) -> ModuleType:
    """The module ``name``, with those definitions run again that are ``touched`` or depend on one that is.

    Everything else is the real module's: its classes, and its kernels, which are compiled already.
    """
    mentioned = {node: {part.id for part in ast.walk(node) if isinstance(part, ast.Name)} for node in tree.body}
    reached: set[str] = set()
    while touched - reached:
        reached |= touched
        touched = {name for node, names in mentioned.items() if names & reached for name in _defined(node)}
    original, module = import_module(name), ModuleType(name)
    # Never cached on disk, where it could be mistaken for the real one.
    kernel = numba.njit(nogil=True, error_model="numpy")
    vars(module).update(vars(original) | {"kernel": kernel} | given)
    anew: list[ast.stmt] = [node for node in tree.body if _defined(node) & reached]
    exec(compile(ast.Module(anew, []), str(original.__file__), "exec"), vars(module))
    return module


@contextmanager
def planted(mutant: Mutant) -> Iterator[dict[str, Any]]:
    """The replacements to pass to :func:`examine`. The real operation's ladder stays registered."""
    registered = dict(ladder._LADDERS)
    operation = f"scratch.{mutant.operation}"
    try:
        module = rewritten(mutant.module or operation, mutant.old, mutant.new, mutant.after)
        parts = {module.__name__: module}
        for name in importers(operation, module.__name__):
            module = parts[name] = relinked(name, parts)
    finally:
        ladder._LADDERS.update(registered)
    stand_ins: dict[str, Any] = {"scratch_module": mutant.spec.adapt(module)}
    for name, old, new in mutant.also:
        other = rewritten(name, old, new)
        if name.startswith("torch_impl"):
            stand_ins["torch_module"] = mutant.spec.adapt(other)
        else:
            stand_ins["reference"] = getattr(other, mutant.operation)
    yield stand_ins


def hunt(
    mutant: Mutant,
    assertions: tuple[Assertion, ...],
    *,
    shrink: bool,
    announce: Callable[[int, str, int], None] = lambda *case: None,
) -> Kill | None:
    """Run the generic test on the mutant until it dies; return how, or None if it lives. The same at every run.

    ``announce`` gets each case before it runs: its number, the case, and how small it is.
    """
    cases = 0
    last: Kill | None = None
    with planted(mutant) as stand_ins:

        def generic_test(draw: Draw) -> None:
            nonlocal cases, last
            cases += last is None
            case = mutant.spec.call(draw, mutant.rung, np.dtype(np.float32))
            by = "an exception"
            announce(cases, str(case), case.elements)
            try:
                evidence = examine(mutant.spec, case, draw, rung=mutant.rung, **stand_ins)
                for assertion in assertions:
                    by = assertion.__name__
                    assertion(evidence)
            except (AssertionError, ArithmeticError, LookupError, TypeError, ValueError, RuntimeError, Warning) as error:
                by = "a guard word" if isinstance(error, OverrunError) else by
                last = Kill(by, cases, str(case), case.elements)
                raise AssertionError(by) from error

        search(generic_test, 2 * CASES, shrink=shrink)  # it ends with the first case that kills, so only hard ones take as many
    return last
