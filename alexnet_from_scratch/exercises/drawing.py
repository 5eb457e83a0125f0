"""Shows a failure on the terminal: arrays as grids, side by side, wrong cells marked, and a sentence on what differs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
from rich import box
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from alexnet_from_scratch.exercises.check import Failure

MOST = 4  # the most planes of an array that are drawn


def draw(operation: str, failure: Failure) -> RenderableType:
    """Input and grad_out; then expected and got, gradient by gradient; then what is wrong."""
    names = list(inspect.signature(import_module(f"scratch.{operation}").forward).parameters)
    plain = {name: value for name, value in failure.case.params.items() if not isinstance(value, np.ndarray)}
    inputs = dict(zip(names, failure.case.arrays, strict=False))
    inputs |= {name: value for name, value in failure.case.params.items() if isinstance(value, np.ndarray)}
    inputs["grad_out"] = failure.grad_out
    call = ", ".join(f"{name}={value!r}" for name, value in plain.items())
    rows: list[RenderableType] = [
        Text(f"{operation}({call})", "bold"),
        Columns([_grids(name, array) for name, array in inputs.items() if isinstance(array, np.ndarray)], padding=(0, 3)),
    ]
    got = failure.got if isinstance(failure.got, tuple) else (failure.got,) * (len(failure.expected) == 1)
    for i, expected in enumerate(failure.expected):
        if expected is not None:
            mine = got[i] if i < len(got) else None
            rows.append(_compared(f"grad_{names[i]}", expected, mine, failure.wrong[i] if failure.wrong else None))
    rows.append(Text(failure.message or "\n".join(_sentences(failure, names)), "bold red"))
    if failure.printed:
        rows.append(Panel(Text(failure.printed.rstrip()), title="printed by your function", title_align="left"))
    return Group(*(part for row in rows for part in (row, "")))


def _compared(name: str, expected: np.ndarray, got: Any, wrong: np.ndarray | None) -> RenderableType:
    columns = [_grids(f"{name}, expected", expected, wrong, "green", got)]
    if isinstance(got, np.ndarray):
        columns.append(_grids(f"{name}, got", got, wrong, "red", expected))
    return Columns(columns, padding=(0, 3))


def _grids(name: str, array: np.ndarray, wrong: np.ndarray | None = None, colour: str = "", other: Any = None) -> RenderableType:
    """The last two axes as grids, one for each index of the other axes."""
    title = f"{name} {array.shape}" if array.ndim else name
    if not array.size:
        return Group(Text(title), Text("empty", "dim"))
    digits = 4
    if wrong is not None and isinstance(other, np.ndarray) and wrong.any():
        digits = next(n for n in (4, 9, 17) if n == 17 or (_shown(array[wrong], n) != _shown(other[wrong], n)).any())
    planes: list[RenderableType] = [Text(title)]
    for place in list(np.ndindex(array.shape[:-2]))[:MOST]:
        if len(array.shape) > 2 and array[..., 0, 0].size > 1:
            planes.append(Text(f"{list(place)}", "dim"))
        cells = np.atleast_2d(array[place])
        marks = np.zeros(cells.shape, bool) if wrong is None else np.atleast_2d(wrong[place])
        planes.append(_grid(_shown(cells, digits), marks, colour))
    if array.ndim > 2 and array[..., 0, 0].size > MOST:
        planes.append(Text(f"… and {array[..., 0, 0].size - MOST} more", "dim"))
    return Group(*planes)


def _grid(cells: np.ndarray, marks: np.ndarray, colour: str) -> Table:
    table = Table(show_header=False, show_lines=True, box=box.SQUARE)
    for _ in range(cells.shape[1]):
        table.add_column(justify="right")
    for row, marked in zip(cells, marks, strict=True):
        table.add_row(
            *(Text(f"▸{cell}", f"bold {colour}") if mark else Text(cell) for cell, mark in zip(row, marked, strict=True))
        )
    return table


def _shown(array: np.ndarray, digits: int) -> np.ndarray:
    if array.dtype == bool:
        return np.where(array, "kept", "–")
    return np.array([f"{value:.{digits}g}" for value in array.ravel()], object).reshape(array.shape)


def _sentences(failure: Failure, names: list[str]) -> Iterator[str]:
    """Where the first wrong cell is, and what the wrong cells have in common."""
    for name, expected, got, wrong in zip(names, failure.expected, failure.got, failure.wrong, strict=False):
        if wrong is None or not wrong.any():
            continue
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        cell = f"grad_{name}{list(where) if where else ''}"
        count = f" {wrong.sum()} of {wrong.size} cells are wrong." if wrong.sum() > 1 else ""
        yield f"{cell} must be {expected[where]:.9g}, got {got[where]:.9g}.{count}{_pattern(expected, got)}"


def _pattern(expected: np.ndarray, got: np.ndarray) -> str:
    with np.errstate(all="ignore"):
        if not got.any():
            return " Nothing but zeros came out."
        if not (np.isfinite(got) & np.isfinite(expected)).all():
            return ""
        if np.array_equal(got, -expected):
            return " The sign is the other way round."
        ratios = np.unique((got / expected)[expected != 0])
        if expected[expected != 0].size > 1 and ratios.size == 1 and (got[expected == 0] == 0).all():
            return f" Everything is {ratios[0]:.4g} times what it must be."
        if expected.size > 1 and np.array_equal(np.sort(got, None), np.sort(expected, None)):
            return " The right numbers, in other cells."
        if expected.size > 1 and np.isclose(got.sum(), expected.sum(), rtol=1e-6):
            return " As much comes out as must, but in other cells."
    return ""
