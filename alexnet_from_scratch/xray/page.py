"""From a tape to a page: the numbers as JSON, torch's numbers, and the kernels' source, all in one HTML file."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

import scratch
from alexnet_from_scratch.paths import ABSENT, FILE, FOLDER, kind, naming
from alexnet_from_scratch.proof.bounds import Bounded, Rounding
from alexnet_from_scratch.proof.specs import SPECS
from alexnet_from_scratch.runs.files import write_bytes
from alexnet_from_scratch.text import shown
from alexnet_from_scratch.xray.tracing import MINUS, PADDING, SUM, Number, Place, Tape, Test

PACKAGES = Path(__file__).parents[2]  # the folder that contains scratch
ASSETS = Path(__file__).parent / "assets"
MARK = b"<title>X-ray: "  # near the beginning of each page
CELLS = 12_000  # as many as a phone can still scroll
STEPS = 120_000

BY_NAME = {spec.name: spec for spec in SPECS}


@dataclass
class Panel:
    """An array as the page shows it."""

    name: str
    axes: str
    note: str = ""
    between: bool = False  # an intermediate step: written out wherever it is used
    row: bool = False  # next to the others in the section's first row
    turned: bool = False  # an array that is shown elsewhere too, here with its windows turned by 180°
    rung: str = ""  # folded away until this rung is chosen
    picture: str = ""  # the same in its own colours
    rungs: dict[str, np.ndarray] = field(default_factory=dict)  # the shipped rungs' results
    torch: np.ndarray | None = None
    allowed: np.ndarray | None = None  # how far torch's value may be from a rung's


@dataclass
class Section:
    """A heading, a note on what to look for, and the arrays."""

    title: str
    text: str
    panels: list[Panel]


@dataclass
class Xray:
    """Everything that a page shows of one operation."""

    operation: str
    title: str
    lead: str
    settings: dict[str, Any]
    tape: Tape
    sections: list[Section]
    thumbnail: str = ""
    photograph: str = ""
    command: list[dict[str, Any]] = field(default_factory=list)  # the page's own options, for the form that writes a command
    strip: list[dict[str, Any]] = field(default_factory=list)
    answer: list[dict[str, Any]] = field(default_factory=list)  # a network's likeliest classes

    def panel(self, name: str) -> Panel:
        return next(panel for section in self.sections for panel in section.panels if panel.name == name and not panel.turned)


def compare(
    xray: Xray,
    operation: str,
    arrays: Sequence[Any],
    params: dict[str, Any],
    outputs: Sequence[str],
    grad_out: np.ndarray | None = None,
    gradients: Sequence[str] = (),
) -> None:
    """Add to the named panels what every rung and torch compute from the same input, and how far apart they may be."""
    spec = BY_NAME[operation]
    names = [*outputs, *gradients]
    for rung in spec.rungs:
        with scratch.use_rung(rung):
            out, cache = spec.scratch.forward(*arrays, **params)
        if cache.rung.name == rung:  # otherwise another rung computed these arrays
            results = [out, *(() if grad_out is None else spec.scratch.backward(grad_out, cache))]
            for name, result in zip(names, results, strict=True):
                xray.panel(name).rungs[rung] = result

    def tensor(value: Any) -> Any:
        return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value

    out, torch_cache = spec.torch.forward(*map(tensor, arrays), **{name: tensor(value) for name, value in params.items()})
    theirs = [out, *(() if grad_out is None else spec.torch.backward(tensor(grad_out), torch_cache))]
    expected, pull_back = spec.reference(Rounding(np.dtype(np.float32)), *arrays, **params)
    bounded: list[Bounded] = [*expected, *(() if grad_out is None else pull_back(grad_out))]
    for name, value, bound in zip(names, theirs, bounded, strict=True):
        xray.panel(name).torch = value.numpy()
        xray.panel(name).allowed = 2 * bound.error  # one bound for each side


def write(xray: Xray, path: Path, siblings: Sequence[str] = (), book: str = "") -> Path:
    """Write the page. ``siblings`` are the operations with a page next to it; ``book`` is the path to the book's page.

    Raises:
        ValueError: there are more cells than a page can show; or the path leads to something that is not a page.
    """
    trace = _Trace(xray, siblings).as_dict() | {"book": book}
    # json does not escape <, and </script> in a string would end the element.
    data = json.dumps(trace, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    page = (ASSETS / "xray.html").read_text(encoding="utf-8")
    for mark, text in (
        ("TITLE", xray.title),
        ("STYLE", (ASSETS / "xray.css").read_text(encoding="utf-8")),
        ("SCRIPT", (ASSETS / "xray.js").read_text(encoding="utf-8")),
        ("TRACE", data),
    ):
        page = page.replace(f"%{mark}%", text, 1)
    _require_page(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, page.encode())
    return path


def _require_page(path: Path) -> None:
    """Raise an error if the path leads to anything but a page of this program: nothing else is overwritten."""
    if kind(path.parent) not in (FOLDER, ABSENT):
        raise ValueError(f"out must be in a folder, and {shown(path.parent)} is {kind(path.parent)}")
    what = kind(path)
    if what not in (FILE, ABSENT):
        raise ValueError(f"out must be a file, and {shown(path)} is {what}")
    if what == FILE:
        with naming(path), path.open("rb") as file:
            start = file.read(1000)
        if start and MARK not in start:
            raise ValueError(f"out must be a new file or an earlier page, and {shown(path)} is neither. Choose another --out")


class _Trace:
    """The JSON of an X-ray. A cell's number is its array's offset plus the cell's index in the array."""

    def __init__(self, xray: Xray, siblings: Sequence[str]) -> None:
        self.xray, self.siblings = xray, siblings
        self.places: dict[tuple[Place, ...], int] = {}
        self.offsets: dict[str, int] = {}
        cells = 0
        for name, recorded in xray.tape.arrays.items():
            self.offsets[name] = cells
            cells += recorded.values.size
        if cells > CELLS:
            raise ValueError(f"{xray.operation}: arrays must have at most {CELLS:,} cells to fit on a page, got {cells:,}")

    def as_dict(self) -> dict[str, Any]:
        xray = self.xray
        shown = {panel.name: panel for section in xray.sections for panel in section.panels if not panel.turned}
        arrays = [self._array(name, shown.get(name)) for name in xray.tape.arrays]
        return {
            "operation": xray.operation,
            "title": xray.title,
            "lead": xray.lead,
            "settings": {name: str(value) for name, value in xray.settings.items()},
            "thumbnail": xray.thumbnail,
            "photograph": xray.photograph,
            "torch": torch.__version__,
            "siblings": list(self.siblings),
            "sections": [{"title": s.title, "text": s.text, "panels": list(map(_placed, s.panels))} for s in xray.sections],
            "command": xray.command,
            "arrays": arrays,
            "places": [[[_path(place.file), place.line] for place in places] for places in self.places],
            "sources": _sources(places for key in self.places for places in key),
            "strip": xray.strip,
            "answer": xray.answer,
        }

    def _array(self, name: str, panel: Panel | None) -> dict[str, Any]:
        recorded = self.xray.tape.arrays[name]
        described: dict[str, Any] = {
            "name": name,
            "offset": self.offsets[name],
            "shape": list(recorded.values.shape),
            "values": _numbers(recorded.values),
            "how": {rung: self._how(numbers, recorded.tests) for rung, numbers in recorded.how.items()},
            "steps": [_steps(number) for number in recorded.how.get("naive", [])],
        }
        if panel is None:
            return described
        described |= {
            "axes": panel.axes.split(),
            "note": panel.note,
            "picture": panel.picture,
            "between": panel.between,
            "rungs": {rung: _numbers(values) for rung, values in panel.rungs.items()},
        }
        if panel.torch is not None and panel.allowed is not None:
            described["torch"] = _numbers(panel.torch)
            described["allowed"] = _two_digits(panel.allowed)
            described["differences"] = {
                rung: _two_digits(values.astype(np.float64) - panel.torch) for rung, values in panel.rungs.items()
            }
        return described

    def _how(self, numbers: list[Any], tests: list[list[Test]]) -> list[Any]:
        return [self._decided(number, asked) for number, asked in zip(numbers, tests, strict=True)]

    def _decided(self, number: Any, tests: list[Test]) -> Any:
        if not tests:
            return self._node(number, top=True)
        made = [[test.sign, test.outcome, self._place(test.place), *map(self._node, test.operands)] for test in tests]
        return ["pick", _number(number), self._place(tests[0].place), self._node(number, top=True), *made]

    def _node(self, number: Any, top: bool = False) -> Any:
        """A cell's number, or ``[sign, value, place, operands…]``. A constant is ``["=", value, -1]``, with "padding" as a name
        if it is one.
        """
        if not isinstance(number, Number):
            return ["=", _number(number), -1, *(["padding"] if number is PADDING else [])]
        own = number.sign and top  # the cell to explain: written out, even if it is named
        if number.cell is not None and not own:
            name, flat = number.cell
            return self.offsets[name] + flat
        if number.sign in ("+", MINUS) and len(number.operands) == 2:
            terms, places = self._terms(number)
            return [SUM, _number(number), self._place(*places), *terms]
        return [number.sign, _number(number), self._place(number.place), *map(self._node, number.operands)]

    def _terms(self, number: Number) -> tuple[list[Any], list[Place]]:
        """A chain of additions as one sum: the terms in the order in which the kernel added them."""
        first, second = number.operands
        assert number.place is not None
        terms: list[Any] = []
        places: list[Place] = []
        if isinstance(first, Number) and first.sign in ("+", MINUS) and len(first.operands) == 2 and first.cell is None:
            terms, places = self._terms(first)
        elif isinstance(first, Number) or first != 0:
            terms = [self._node(first)]
        if isinstance(second, Number) or second != 0:
            term = self._node(second)
            negative = [MINUS, _number(-_plain(second)), self._place(number.place), term]
            terms = [*terms, negative if number.sign == MINUS else term]
        return terms, places if number.place in places else [*places, number.place]

    def _place(self, *places: Place | None) -> int:
        return self.places.setdefault(tuple(place for place in places if place is not None), len(self.places))


def _placed(panel: Panel) -> dict[str, Any]:
    """Where the page puts an array."""
    return {"name": panel.name, "row": panel.row, "turned": panel.turned, "rung": panel.rung}


def _steps(number: Any) -> list[int]:
    """The steps that added the terms of a sum, ordered as in :meth:`_Trace._terms`; of another number, the step that made it."""
    if not isinstance(number, Number) or not number.sign:
        return [0]
    if number.sign not in ("+", MINUS) or len(number.operands) != 2:
        return [number.step]
    first, second = number.operands
    chain = isinstance(first, Number) and first.sign in ("+", MINUS) and len(first.operands) == 2 and first.cell is None
    if chain:
        steps = _steps(first)
    else:
        steps = [number.step] if isinstance(first, Number) or first != 0 else []
    return [*steps, number.step] if isinstance(second, Number) or second != 0 else steps


def _plain(number: Any) -> Any:
    return number.value if isinstance(number, Number) else number


def _number(number: Any) -> Any:
    """A scalar with just enough digits to tell it from its neighbours of the same type."""
    value = _plain(number)
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    number = float(str(value))
    return int(number) if number.is_integer() and abs(number) < 2**53 and str(number) != "-0.0" else number


def _numbers(values: np.ndarray) -> list[Any]:
    return [_number(value) for value in values.ravel()]


def _two_digits(values: np.ndarray) -> list[float]:
    return [float(f"{value:.2g}") for value in values.ravel()]


def _path(file: str) -> str:
    return Path(file).relative_to(PACKAGES).as_posix()


def _sources(places: Any) -> list[dict[str, Any]]:
    """Every function that contains one of the places, as lines of highlighted HTML; the operation's own files first."""
    functions: dict[tuple[str, str], None] = {(place.file, place.function): None for place in places}
    formatter: Any = HtmlFormatter(nowrap=True)
    sources: list[dict[str, Any]] = []
    for file, function in functions:
        module = next(module for module in list(sys.modules.values()) if getattr(module, "__file__", None) == file)
        lines, first = inspect.getsourcelines(getattr(module, function))
        html = highlight("".join(lines), PythonLexer(stripnl=False), formatter).rstrip("\n").split("\n")
        sources.append({"file": _path(file), "function": function, "first": first, "lines": html})
    return sorted(sources, key=lambda source: ("/compiled/" in source["file"], source["file"], source["first"]))
