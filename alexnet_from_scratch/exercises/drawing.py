"""Shows a failure on the terminal: arrays as grids, side by side, wrong cells marked, and a sentence on what differs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from rich import box
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from alexnet_from_scratch.exercises.answers import Function
from alexnet_from_scratch.exercises.judging import Failure
from alexnet_from_scratch.exercises.stub import solution, source_of
from alexnet_from_scratch.exercises.table import EXERCISES

MOST = 4  # the most planes of an array that are drawn


def draw(operation: str, failure: Failure) -> RenderableType:
    """The inputs and grad_out; then each result, as expected and as got; then a sentence on what is wrong.

    If the results cannot be compared, the call and the shapes take the place of the arrays.
    """
    inputs, call = _inputs(operation, failure)
    names = _results(operation, list(inputs))
    rows: list[RenderableType] = [Text(f"{operation}({call})", "bold")]
    if failure.wrong or failure.got is None:
        seen = [_faulty(wrong) for wrong in failure.wrong if wrong is not None]
        rows.append(Columns([_grids(name, array, seen) for name, array in inputs.items()], padding=(0, 3)))
        for i, expected in enumerate(failure.expected):
            if expected is not None:
                mine = failure.got[i] if failure.wrong else None
                rows.append(_compared(names[i], expected, mine, failure.wrong[i] if failure.wrong else None))
    else:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
        rows.append(Text(f"with {shapes}", "dim"))
    rows.append(Text(failure.message or "\n".join(_sentences(failure, names)), "bold red"))
    if failure.printed:
        rows.append(Panel(Text(failure.printed.rstrip()), title="printed by your function", title_align="left"))
    return Group(*(part for row in rows for part in (row, "")))


def side_by_side(operation: str, yours: Function) -> RenderableType:
    """The reader's function and the shipped one, next to each other where the terminal is wide enough."""
    shipped = solution(operation)
    where = f"shipped: {source_of(operation)}:{inspect.getsourcelines(shipped)[1]}"
    both = (("yours", yours), (where, shipped))
    panels = [
        Panel(Text(inspect.getsource(function).rstrip(), overflow="fold"), title=title, title_align="left")
        for title, function in both
    ]
    return Columns(panels, padding=(0, 1))


def _inputs(operation: str, failure: Failure) -> tuple[dict[str, np.ndarray], str]:
    """The arrays of the call by name, and its other arguments as text."""
    case = failure.case
    names = (
        list(inspect.signature(import_module(f"scratch.{operation}").forward).parameters)
        if _is_backward(operation)
        else ["data", *(f"grad of step {step}" for step in range(1, len(case.arrays)))]
    )
    inputs = dict(zip(names, case.arrays, strict=False)) | {n: v for n, v in case.params.items() if isinstance(v, np.ndarray)}
    if _is_backward(operation):
        inputs["grad_out"] = failure.grad_out
    call = ", ".join(f"{name}={value!r}" for name, value in case.params.items() if not isinstance(value, np.ndarray))
    return {name: array for name, array in inputs.items() if isinstance(array, np.ndarray)}, call


def _results(operation: str, names: list[str]) -> list[str]:
    return [f"grad_{name}" for name in names] if _is_backward(operation) else ["data, updated"]


def _is_backward(operation: str) -> bool:
    return not EXERCISES[operation].in_place


def _compared(name: str, expected: np.ndarray, got: Any, wrong: np.ndarray | None) -> RenderableType:
    seen = [] if wrong is None else [_faulty(wrong)]
    columns = [_grids(f"{name}, expected", expected, seen, wrong, "green", got)]
    if isinstance(got, np.ndarray):
        columns.append(_grids(f"{name}, got", got, seen, wrong, "red", expected))
    return Columns(columns, padding=(0, 3))


def _faulty(wrong: np.ndarray) -> list[tuple[int, ...]]:
    """The indices of the planes that hold a wrong cell."""
    return [place for place in np.ndindex(wrong.shape[:-2]) if wrong[place].any()]


def _grids(
    name: str,
    array: np.ndarray,
    seen: Sequence[list[tuple[int, ...]]],
    wrong: np.ndarray | None = None,
    colour: str = "",
    other: Any = None,
) -> RenderableType:
    """The last two axes as grids, one for each index of the other axes. If there are too many, the wrong ones (``seen``) stay."""
    title = f"{name} {array.shape}" if array.ndim else name
    if not array.size:
        return Group(Text(title), Text("empty", "dim"))
    digits = 4
    if wrong is not None and isinstance(other, np.ndarray) and wrong.any():
        digits = next(n for n in (4, 9, 17) if n == 17 or (_shown(array[wrong], n) != _shown(other[wrong], n)).any())
    planes: list[RenderableType] = [Text(title)]
    places = list(np.ndindex(array.shape[:-2]))
    with_fault = [place for faulty in seen for place in faulty if place in places]
    drawn = sorted(dict.fromkeys([*with_fault, *places]), key=lambda place: place not in with_fault)[:MOST]
    for place in sorted(drawn):
        if len(places) > 1:
            planes.append(Text(f"{list(place)}", "dim"))
        cells = np.atleast_2d(array[place])
        marks = np.zeros(cells.shape, bool) if wrong is None else np.atleast_2d(wrong[place])
        planes.append(_grid(_shown(cells, digits), marks, colour))
    if len(places) > MOST:
        planes.append(Text(f"… and {len(places) - MOST} more", "dim"))
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
        cell = f"{name}{list(where) if where else ''}"
        count = f" {wrong.sum()} of {wrong.size} cells are wrong." if wrong.sum() > 1 else ""
        yield f"{cell} must be {expected[where]:.9g}, got {got[where]:.9g}.{count}{_pattern(expected, got, wrong)}"


def _pattern(expected: np.ndarray, got: np.ndarray, wrong: np.ndarray) -> str:
    """What the wrong cells have in common."""
    must, came = expected[wrong], got[wrong]
    with np.errstate(all="ignore"):
        if not got.any():
            return " Nothing but zeros came out."
        if not (np.isfinite(must) & np.isfinite(came)).all():
            return ""
        if np.array_equal(got, -expected):
            return " Every sign is reversed."
        ratios = np.unique((got / expected)[expected != 0])
        if expected[expected != 0].size > 1 and ratios.size == 1 and (got[expected == 0] == 0).all():
            return f" Everything is {ratios[0]:.4g} times what it must be."
        if must.size > 1 and np.array_equal(np.sort(must), np.sort(came)):
            return " The numbers are right, but they are in other cells."
        if must.size > 1 and np.isclose(must.sum(), came.sum(), rtol=1e-6):
            return " Their sum is right, but part of it is in other cells."
    return ""
