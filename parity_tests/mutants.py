"""The test of the tests: wrong kernels, each a mistake that people make, planted into the real source.

A mutant is a small rewriting of an operation's own file: the first ``old`` behind the mark ``after`` becomes ``new``. ``also``
plants a mistake in torch_impl or in the reference as well, for what only one comparison can see.
The rungs are those in plain Python and NumPy, so that nothing is compiled; the generic test is the same for all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from parity_tests.parity import Evidence, examine
from parity_tests.specs import SPECS, Spec
from scratch.core import ladder

CASES = 300  # that it takes to kill every mutant, at 100 a few survive: hence the default profile's number
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
    also: tuple[tuple[str, str, str], ...] = ()  # module, old, new
    only: str = ""  # the one assertion that sees it, for those that show that it is needed

    def __str__(self) -> str:
        return f"{self.operation} {self.rung}: {self.title}"

    @property
    def spec(self) -> Spec:
        return next(spec for spec in SPECS if spec.name == self.operation)


def planting(
    operation: str, rung: str, *rows: tuple[str, str, str] | tuple[str, str, str, str], after: str = ""
) -> tuple[Mutant, ...]:
    """Mutants of one rung, from rows (title, old, new), with a mark of their own behind or with the common one."""
    return tuple(Mutant(operation, rung, *row[:3], *(row[3:] or (after,))) for row in rows)


@dataclass(frozen=True)
class Kill:
    """How a mutant died: by which assertion (or exception), at which case, and how small that is."""

    by: str
    cases: int
    smallest: str
    elements: int


def rewritten(name: str, old: str, new: str, after: str = "") -> ModuleType:
    """The module ``name`` anew, from its source with ``old`` replaced by ``new``.

    Raises:
        LookupError: there is no ``old`` behind ``after``: the file has changed, and so must the row.
    """
    file = import_module(name).__file__
    assert file is not None
    with open(file) as stream:
        source = stream.read()
    start = source.find(old, source.find(after)) if after in source else -1
    if start < 0:
        raise LookupError(f"{name} has no {old!r} behind {after!r}")
    module = ModuleType(name)
    module.__file__ = file
    sys_name = f"mutant of {name}"
    module.__name__ = sys_name
    sys.modules[sys_name] = module  # dataclasses look their module up
    try:
        exec(compile(source[:start] + new + source[start + len(old) :], file, "exec"), vars(module))
    finally:
        del sys.modules[sys_name]
    return module


@contextmanager
def planted(mutant: Mutant) -> Iterator[dict[str, Any]]:
    """The stand-ins that :func:`examine` takes. The real operation's ladder stays registered."""
    registered = dict(ladder._LADDERS)
    try:
        module = rewritten(f"scratch.{mutant.operation}", mutant.old, mutant.new, mutant.after)
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


def hunt(mutant: Mutant, assertions: tuple[Assertion, ...], *, shrink: bool) -> Kill | None:
    """Run the generic test on the mutant until it dies: how, or None if it lives. The same at every run."""
    cases = 0
    last: Kill | None = None
    with planted(mutant) as stand_ins:

        @settings(
            max_examples=CASES,
            derandomize=True,
            database=None,
            deadline=None,
            print_blob=False,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        )
        @given(data=st.data())
        def generic_test(data: Any) -> None:
            nonlocal cases, last
            cases += last is None
            case = data.draw(mutant.spec.cases(np.dtype(np.float32)))
            by = "an exception"
            try:
                evidence = examine(mutant.spec, case, data.draw, rung=mutant.rung, **stand_ins)
                for assertion in assertions:
                    by = assertion.__name__
                    assertion(evidence)
            except (AssertionError, ArithmeticError, LookupError, TypeError, ValueError, Warning) as error:
                last = Kill(by, cases, str(case), case.elements)
                raise AssertionError(by) from error

        try:
            generic_test()
        except AssertionError:
            return last
    return None
