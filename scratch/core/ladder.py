"""A ladder of rungs: several implementations of one operation, from the specification up to the fastest.

Each operation's file ends in a table ``RUNGS``. Its order is the order in which to read the file; every rung is
one idea more than the rung before it. :func:`use_rung` picks the rung that runs; the default is the last, the fastest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Any

import numpy as np

from scratch.core import checks


class NotTakenError(ValueError):
    """A rung's word that it does not take these arguments; the rung below it is asked next."""


def _no_backward(*_: Any) -> tuple[Any, ...]:
    raise TypeError("this rung updates arrays in place: it has no backward pass")


@dataclass(frozen=True, slots=True)
class Rung:
    """One implementation of an operation.

    ``forward(*arguments) -> (out, saved)`` and ``backward(grad_out, *saved) -> gradients``. The arrays that a rung gets
    were checked, are C-contiguous and in native byte order; it never writes to them, unless the operation hands it one to
    write to, ``out``.

    An optimizer's rung is another matter: its ``forward`` writes to the parameter and returns None, run by
    :meth:`Ladder.run`, and there is no ``backward``.
    """

    name: str
    forward: Callable[..., Any]
    backward: Callable[..., tuple[Any, ...]] = _no_backward

    @property
    def idea(self) -> str:
        """One sentence, forward's docstring: what changed since the rung before, and why that is faster."""
        return " ".join((self.forward.__doc__ or "").split())


@dataclass(frozen=True, slots=True)
class Cache:
    """What ``backward`` needs of its ``forward``: the rung that ran, what it saved, and the gradient's shape and dtype."""

    operation: str
    rung: Rung
    saved: tuple[Any, ...]
    out_shape: tuple[int, ...]  # as the caller saw it, so without N where the input came without
    dtype: np.dtype[Any]
    unbatched: bool


class Ladder(Mapping[str, Rung]):
    """The rungs of one operation by name, slowest first, and the way to run them."""

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

    def chosen(self) -> list[Rung]:
        """The rung in force, then the rungs below it, to be asked in this order."""
        rungs = list(self._rungs.values())
        choice = {**_process_choice, **_context_choice.get()}
        name = choice.get(self.operation, choice.get(""))
        if name in self._rungs:
            rungs = rungs[: list(self._rungs).index(name) + 1]
        return rungs[::-1]

    def run(self, *arguments: Any) -> tuple[Any, Rung]:
        """What the rung in force, or the first below it that takes the arguments, made of them, and that rung."""
        *higher, lowest = self.chosen()
        with np.errstate(all="ignore"):  # inf and NaN are values like any other, here as in torch
            for rung in higher:
                try:
                    return rung.forward(*arguments), rung
                except NotTakenError:
                    continue
            return lowest.forward(*arguments), lowest  # it takes everything: if it raises, that is the caller's to see

    def forward(self, *arguments: Any, unbatched: bool = False) -> tuple[Any, Cache]:
        """Run the forward pass.

        With ``unbatched`` the first argument and the output have a batch axis of length 1 that the caller does not see.
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
        """The gradients, by the rung that ran the forward pass. The options go to it as they are."""
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

# Operation → rung; "" stands for every operation. A context's own choice goes before the process's.
_process_choice: dict[str, str] = {}
_context_choice: ContextVar[dict[str, str]] = ContextVar("rung", default={})  # noqa: B039 - replaced, never written to


class use_rung:  # noqa: N801 - reads as a function, like torch.no_grad
    """Pick the rung that runs from here on: ``use_rung("naive")``, or per operation ``use_rung(conv2d="im2col")``.

    As a context manager the choice ends with the block. It holds for the calling thread (more exactly, its
    :mod:`contextvars` context), so that threads never change each other's rung; with ``process=True`` it holds for every
    thread that has made no choice of its own. An operation that has no rung of that name keeps its default, the fastest.

    Raises:
        ValueError: no operation, or not the one named, has a rung of that name.
    """

    def __init__(self, name: str | None = None, /, *, process: bool = False, **operations: str) -> None:
        if name is not None and not any(name in ladder for ladder in _LADDERS.values()):
            known = sorted({rung for ladder in _LADDERS.values() for rung in ladder})
            raise ValueError(f"use_rung: no operation has a rung {name!r}; the rungs are {known}")
        for operation, rung in operations.items():
            if operation not in _LADDERS:
                raise ValueError(f"use_rung: no operation {operation!r}; the operations are {sorted(_LADDERS)}")
            if rung not in _LADDERS[operation]:
                raise ValueError(f"use_rung: {operation} has no rung {rung!r}; its rungs are {list(_LADDERS[operation])}")
        choice = {**({} if name is None else {"": name}), **operations}
        self._token: Token[dict[str, str]] | None = None
        self._before: dict[str, str] | None = None
        if process:
            self._before = dict(_process_choice)
            _set_process_choice(choice)
        else:
            # A choice for all operations replaces whatever was chosen for single ones.
            self._token = _context_choice.set({**({} if name else _context_choice.get()), **choice})

    def __enter__(self) -> use_rung:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._token is not None:
            _context_choice.reset(self._token)
        elif self._before is not None:
            _set_process_choice(self._before)


def _set_process_choice(choice: dict[str, str]) -> None:
    global _process_choice
    _process_choice = choice  # one reference assignment: a thread sees the old choice or the new, never half of each
