"""A ladder of rungs: several implementations of one operation, from the specification up to the fastest.

Each operation's file ends in a table ``RUNGS``. Its order is the order in which to read the file; every rung adds one idea to the
rung before it. :func:`use_rung` and :func:`set_rung` choose the rung that runs. By default, the last rung runs whose fixed cost
pays for arguments of that size (:attr:`Rung.worth_it`): the fastest one for them.
"""

from __future__ import annotations

import functools
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from scratch.core import checks


class NotTakenError(ValueError):
    """Raised by a rung that does not take these arguments; the rung below it is tried next."""


def _always(*_: Any) -> bool:
    return True


def _no_backward(*_: Any) -> tuple[Any, ...]:
    raise TypeError("this rung updates arrays in place: it has no backward pass")


@dataclass(frozen=True, slots=True)
class Rung:
    """One implementation of an operation.

    ``forward(*arguments) -> (out, saved)`` and ``backward(grad_out, *saved) -> gradients``. The arrays that a rung gets
    are checked, C-contiguous and in native byte order. It never writes to them, except to an array ``out`` that the operation
    passes for that purpose.

    ``worth_it(*arguments)`` tells whether forward and backward together are faster than on the rungs below. It is false if the
    work is so small that the rung's fixed cost is more than it saves. It is asked only if no rung was chosen by name. A rung
    that was chosen by name runs everything that it can compute.

    An optimizer's rung is different: :meth:`Ladder.run` runs its ``forward``, which writes to the parameter and returns None.
    There is no ``backward``.
    """

    name: str
    forward: Callable[..., Any]
    backward: Callable[..., tuple[Any, ...]] = _no_backward
    worth_it: Callable[..., bool] = _always

    @property
    def idea(self) -> str:
        """Forward's docstring: what changed since the rung before, and why that is faster."""
        return " ".join((self.forward.__doc__ or "").split())


@dataclass(frozen=True, slots=True)
class Cache:
    """What ``backward`` needs from its ``forward``: the rung that ran, what it saved, and the gradient's shape and dtype."""

    operation: str
    rung: Rung
    saved: tuple[Any, ...]
    out_shape: tuple[int, ...]  # as the caller sees it, so without N if the input had no N
    dtype: np.dtype[Any]
    unbatched: bool

    def __repr__(self) -> str:
        return f"<cache of {self.operation}.forward by {self.rung.name}: {self.dtype} {self.out_shape}>"


class Ladder(Mapping[str, Rung]):
    """The rungs of one operation by name, slowest first, and methods that run them."""

    def __init__(self, operation: str, *rungs: Rung) -> None:
        self.operation = operation
        self._rungs = {rung.name: rung for rung in rungs}
        _LADDERS[operation] = self

    def __getitem__(self, name: str) -> Rung:
        return self._rungs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rungs)

    def __len__(self) -> int:
        return len(self._rungs)

    def __repr__(self) -> str:
        return f"<{self.operation}: {' → '.join(self)}>"

    def chosen(self) -> Rung | None:
        """The rung that was chosen by name; None if the default applies."""
        if not (_context_blocks.get() or _context_choice.get() or _process_blocks or _process_choice):
            return None  # nearly always the case, and asked first to save a microsecond
        for choice in _choices():
            if name := choice.get(self.operation) or choice.get(""):
                return self._rungs.get(name)
        return None

    def run(self, *arguments: Any) -> tuple[Any, Rung]:
        """Run the chosen rung, or the first below it that takes the arguments; return its result and the rung."""
        chosen, names = self.chosen(), list(self._rungs)
        lowest, *higher = names if chosen is None else names[: names.index(chosen.name) + 1]
        with np.errstate(all="ignore"):  # inf and NaN are ordinary values, as in torch
            for rung in map(self._rungs.__getitem__, reversed(higher)):
                if chosen is None and not rung.worth_it(*arguments):
                    continue
                try:
                    return rung.forward(*arguments), rung
                except NotTakenError:
                    continue
            rung = self._rungs[lowest]
            return rung.forward(*arguments), rung  # it takes everything: if it raises, the caller sees the error

    def forward(self, *arguments: Any, unbatched: bool = False) -> tuple[Any, Cache]:
        """Run the forward pass.

        With ``unbatched``, the first argument and the output have a batch axis of length 1 that the caller does not see.
        """
        (out, saved), rung = self.run(*arguments)
        if unbatched:
            out = out[0]
        return out, Cache(self.operation, rung, saved, out.shape, out.dtype, unbatched)

    def require_own(self, cache: Cache, function: str) -> None:
        """Raise a TypeError, for ``function`` of the operation, unless its forward pass made ``cache``."""
        if not isinstance(cache, Cache) or cache.operation != self.operation:
            got = f"{cache.operation}.forward's" if isinstance(cache, Cache) else type(cache).__name__
            raise TypeError(f"{self.operation}.{function}: cache must come from {self.operation}.forward, got {got}")

    def backward(self, grad_out: np.ndarray, cache: Cache, **options: bool) -> tuple[Any, ...]:
        """The gradients, from the rung that ran the forward pass. The options are passed to that rung unchanged."""
        self.require_own(cache, "backward")
        grad_out = checks.array(self.operation + ".backward", "grad_out", grad_out, dtype=cache.dtype)
        if grad_out.shape != cache.out_shape:
            raise ValueError(
                f"{self.operation}.backward: grad_out must have the output's shape {cache.out_shape}, got {grad_out.shape}"
            )
        with np.errstate(all="ignore"):
            if not cache.unbatched:
                return cache.rung.backward(grad_out, *cache.saved, **options)
            grad_x, *rest = cache.rung.backward(grad_out[np.newaxis], *cache.saved, **options)
            return None if grad_x is None else grad_x[0], *rest


_LADDERS: dict[str, Ladder] = {}


# --- the choice of a rung ---------------------------------------------------------------------------------------------

# Operation → rung; "" means every operation.
_process_choice: dict[str, str] = {}
_context_choice: ContextVar[dict[str, str]] = ContextVar("rung", default={})  # noqa: B039 - replaced, never written to


class _Choice(NamedTuple):
    """What a block has chosen, and the thread that entered it."""

    rungs: dict[str, str]
    thread: int


# The choices of blocks, the innermost last. Each key refers to a lock that is held inside the block. Only the block's ``with``
# keeps the lock alive. So a block counts no longer even if an interrupt ended it without a call of its exit.
_Blocks = dict["weakref.ref[threading.Lock]", _Choice]
_process_blocks: _Blocks = {}
_context_blocks: ContextVar[_Blocks] = ContextVar("blocks", default={})  # noqa: B039 - replaced, never written to


def _choices() -> Iterator[dict[str, str]]:
    """All choices that apply, the strongest first: this context's, then the process's; in both, inner blocks come first."""
    for blocks, set_before in ((_context_blocks.get(), _context_choice.get()), (_process_blocks, _process_choice)):
        # Not a list of pairs: while it makes pairs, an older Python may collect garbage, and blocks may come or go meanwhile.
        for entered in reversed(list(blocks)):
            inside = entered()
            if inside is not None and inside.locked():
                yield blocks[entered].rungs  # the entry is there as long as the lock
        yield set_before


def _checked(function: str, name: Any, operations: Mapping[str, Any]) -> dict[str, str]:
    """The choice as a dict, after checking that such operations and rungs exist."""
    if name is not None and not (isinstance(name, str) and any(name in ladder for ladder in _LADDERS.values())):
        known = sorted({rung for ladder in _LADDERS.values() for rung in ladder})
        raise ValueError(f"{function}: no operation has a rung {checks.shown(name)}; the rungs are {known}")
    for operation, rung in operations.items():
        if operation not in _LADDERS:
            raise ValueError(f"{function}: no operation {operation!r}; the operations are {sorted(_LADDERS)}")
        if not isinstance(rung, str) or rung not in _LADDERS[operation]:
            raise ValueError(
                f"{function}: {operation} has no rung {checks.shown(rung)}; its rungs are {list(_LADDERS[operation])}"
            )
    return {**({} if name is None else {"": name}), **operations}


def set_rung(name: str | None = None, /, *, process: bool = False, **operations: str) -> None:
    """Choose the rung that runs from here on: ``set_rung("naive")``, or per operation ``set_rung(conv2d="im2col")``.

    The choice applies to the calling thread (more exactly, its :mod:`contextvars` context), so threads never change each other's
    rung. With ``process=True`` it applies to every thread that has not made a choice itself. A choice for all operations replaces
    the choices for single ones; any other choice adds to the earlier ones. An operation that has no rung of that name runs on
    its default. :class:`use_rung` chooses for a block, and takes precedence there.

    Raises:
        TypeError: ``process`` is not a bool.
        ValueError: no operation has a rung ``name``, or there is no such operation, or it has no such rung.
    """
    global _process_choice
    choice = _checked("set_rung", name, operations)
    if not checks.flag("set_rung", "process", process):
        _context_choice.set({**({} if name else _context_choice.get()), **choice})
    elif name:
        _process_choice = choice
    else:
        _process_choice.update(choice)  # one step: no other thread's choice is lost


class _OneStep:
    """``__enter__`` or ``__exit__`` whose call is one step in C: an interrupt comes before or after it, never in between.

    ``with`` looks up both, calls the first, runs the block, and calls the second when the block ends. Python notices an interrupt
    while it runs a Python function, so if a Python function made or ended the choice, an interrupt might leave the choice half
    made. Here a Python function runs only while ``with`` looks up the method: it prepares everything, and returns a function in
    C.
    """

    def __init__(self, look_up: Callable[[Any], Callable[..., Any]]) -> None:
        self.look_up = look_up

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else self.look_up(instance)

    def __call__(self, instance: Any, *exception: Any) -> Any:
        """For contextlib.ExitStack, which calls the method through the class."""
        return self.look_up(instance)(*exception)


class use_rung:  # noqa: N801 - reads as a function, like torch.no_grad
    """Choose the rung that runs in a block: ``with use_rung("naive"):``, or per operation ``with use_rung(conv2d="im2col"):``.

    The choice applies to the same threads as a choice by :func:`set_rung`. If several blocks choose for an operation, the
    innermost counts. A choice ends with its block, no matter how the block ends.

    Raises:
        TypeError: ``process`` is not a bool.
        ValueError: no operation has a rung ``name``, or there is no such operation, or it has no such rung.
    """

    def __init__(self, name: str | None = None, /, *, process: bool = False, **operations: str) -> None:
        self._choice = _checked("use_rung", name, operations)
        self._process = checks.flag("use_rung", "process", process)
        self._inside = threading.Lock()  # held while the block runs
        message = f"{self!r} has chosen nothing. Write 'with {self!r}:' to choose for a block, or call set_rung"
        # Not __del__, a Python function that would swallow an interrupt.
        self._unused: Any = weakref.ref(self, functools.partial(warnings.warn, message, RuntimeWarning, 1))

    @_OneStep
    def __enter__(self) -> Callable[[], bool]:
        if self._unused is None:
            raise RuntimeError(f"use_rung: a choice must be used for one block only, got a second block for {self!r}")
        self._unused = None
        choice = _Choice(self._choice, threading.get_ident())
        if self._process:
            _process_blocks[weakref.ref(self._inside, _process_blocks.pop)] = choice
        else:
            others = {inside: choice for inside, choice in _context_blocks.get().items() if inside() is not None}
            _context_blocks.set({**others, weakref.ref(self._inside): choice})
        return self._inside.acquire

    @_OneStep
    def __exit__(self) -> Callable[..., None]:
        return self._inside.__exit__

    def __repr__(self) -> str:
        names = [f"{operation}={rung!r}" if operation else repr(rung) for operation, rung in self._choice.items()]
        return f"use_rung({', '.join(names)})"


def _after_fork() -> None:
    """In a child: blocks of other threads never end there, so they no longer count."""
    for entered, choice in list(_process_blocks.items()):
        if choice.thread != threading.get_ident():
            _process_blocks.pop(entered, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
