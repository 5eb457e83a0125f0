"""The file to fill in, made from the shipped source, so that it is never out of date."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from alexnet_from_scratch.exercises.table import EXERCISES

PACKAGES = Path(__file__).parents[2]  # the folder that contains scratch
WIDTH = 120


def solution(operation: str) -> Any:
    """The shipped version of what the reader will write: the naive rung's backward pass, or its update."""
    naive = import_module(f"scratch.{operation}").RUNGS["naive"]
    return naive.forward if EXERCISES[operation].in_place else naive.backward


def source_of(operation: str) -> Path:
    return Path(inspect.getfile(solution(operation))).relative_to(PACKAGES)


def page_of(operation: str) -> str:
    """Where to read about an operation. An installed package comes without the book."""
    page = f"docs/operations/{operation}.md"
    return page if (PACKAGES / page).exists() else f"{page} of the project's sources"


def command(operation: str) -> str:
    """What to type to do an exercise. An installed package comes without the Makefile."""
    return f"make exercise OP={operation}" if (PACKAGES / "Makefile").exists() else f"python -m {__package__} {operation}"


def stub(operation: str) -> str:
    """The text of the file: all of forward; and the function to write, with its signature, arguments, results and a hint."""
    exercise = EXERCISES[operation]
    module = import_module(f"scratch.{operation}")
    forward, asked = module.RUNGS["naive"].forward.__name__, solution(operation).__name__
    source = inspect.getsource(module)
    tree = ast.parse(source)
    defined = {name: node for node in tree.body for name in _defines(node)}

    needed = _reach({forward, asked}, defined)
    own = [node for node in tree.body if needed & set(_defines(node))]
    imports = [node for node in own if isinstance(node, ast.Import | ast.ImportFrom)]
    given = [ast.get_source_segment(source, node) for node in own if node not in imports and node is not defined[asked]]
    return "\n".join(
        (
            f'"""Exercise {list(EXERCISES).index(operation) + 1}: the {exercise.asked} of {operation}.',
            "",
            f"Fill in {asked} at the end of this file, then see with  {command(operation)}",
            "",
            _forward_of(module),
            '"""',
            "",
            "from __future__ import annotations",
            "",
            *(_import(node, needed) for node in imports),
            "",
            "",
            *(_given(given) if given else ()),
            "# --- yours",
            "",
            "",
            _signature(source, defined[asked]),
            textwrap.indent(_docstring(operation), "    "),
            f'    raise NotImplementedError("fill in the {exercise.asked}")',
            "",
        )
    )


def _given(texts: Sequence[str | None]) -> Iterator[str]:
    yield "# --- given: copied from the shipped source. The check runs the shipped forward, whatever you change in this part"
    yield ""
    yield from (f"\n{text}\n" for text in texts)
    yield ""


def _defines(node: ast.stmt) -> Iterator[str]:
    """The names that a statement of a file defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in node.names)
    elif isinstance(node, ast.Assign):
        yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def _reach(names: set[str], defined: dict[str, ast.stmt]) -> set[str]:
    """``names``, everything in the file that they need, what that needs, and so on."""
    found: set[str] = set()
    open_names = list(names)
    while open_names:
        name = open_names.pop()
        if name in defined and name not in found:
            found.add(name)
            inside = [node for node in ast.walk(defined[name]) if isinstance(node, ast.Name)]
            local = {node.id for node in inside if isinstance(node.ctx, ast.Store)} - {name}
            open_names += [node.id for node in inside if node.id not in local]
    return found


def _import(node: ast.stmt, needed: set[str]) -> str:
    """The import, with only the names that are needed."""
    assert isinstance(node, ast.Import | ast.ImportFrom)
    node.names = [alias for alias in node.names if (alias.asname or alias.name) in needed]
    return ast.unparse(node)


def _signature(source: str, function: ast.stmt) -> str:
    """``def …:`` as written in the file, up to the body."""
    assert isinstance(function, ast.FunctionDef)
    return "\n".join(source.splitlines()[function.lineno - 1 : function.body[0].lineno - 1]).rstrip()


def _forward_of(module: ModuleType) -> str:
    """The shipped file's docstring without backward's formula, which would give the solution away.

    Of an update's docstring, only the first line is kept.
    """
    text = inspect.getdoc(module) or ""
    if "Backward" not in text:
        return text.partition("\n")[0]
    shapes = [paragraph for paragraph in text.split("\n\n") if paragraph.startswith("Shapes:")]
    return "\n\n".join([text[: text.index("Backward")].rstrip(), *shapes])


def _docstring(operation: str) -> str:
    exercise = EXERCISES[operation]
    arguments = [_block(f"{name}: {exercise.arguments[name]}", 1) for name in inspect.signature(solution(operation)).parameters]
    return "\n".join(
        (
            '"""One step of the optimizer.' if exercise.in_place else '"""The gradients of forward\'s arrays.',
            "",
            "Args:",
            *arguments,
            "",
            "Returns:",
            _block(exercise.returns, 1),
            "",
            _block(f"Hint: {exercise.hint}"),
            '"""',
        )
    )


def _block(text: str, depth: int = 0) -> str:
    indent = 4 * depth * " "
    return textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent + 4 * " " * bool(depth))
