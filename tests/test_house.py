"""The house: which module may import which, that names in docstrings exist, and that a user's own folders do no harm."""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("scratch", "torch_impl", "alexnet_from_scratch")
SHIPPED = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
OTHERS = sorted(path for package in ("parity_tests", "tests", "benchmarks") for path in (ROOT / package).rglob("*.py"))
ROLE = re.compile(r":(?:func|class|data|meth|mod|attr):`~?([\w.]+)`")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in [*SHIPPED, *OTHERS]}


def imports(path: Path) -> Iterator[str]:
    """The project's modules that a file imports, for type checking too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else str(node.module) for name in names]
        else:
            continue
        yield from (name for name in names if name in MODULES)


def test_no_circle_of_imports() -> None:
    """A package's own ``__init__`` does not count: it imports its modules, which import each other by way of it."""
    graph = {name: set(imports(path)) for name, path in MODULES.items() if path.name != "__init__.py"}
    graph = {name: {other for other in others if other in graph and other != name} for name, others in graph.items()}
    while free := [name for name, others in graph.items() if not others & graph.keys()]:
        for name in free:
            del graph[name]
    assert not graph, {name: others & graph.keys() for name, others in graph.items()}


@pytest.mark.parametrize(
    ("folder", "never"),
    [
        ("scratch", ("torch", "torch_impl", "parity_tests", "benchmarks")),
        ("torch_impl", ("scratch", "parity_tests", "benchmarks")),
        ("alexnet_from_scratch/data", ("torch", "torch_impl", "scratch")),
        ("alexnet_from_scratch/runs", ("torch", "torch_impl", "scratch")),
        ("alexnet_from_scratch", ("parity_tests", "tests", "benchmarks", "docs")),
    ],
)
def test_who_never_imports_whom(folder: str, never: tuple[str, ...]) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            assert not [name for name in names if name.partition(".")[0] in never], f"{path}:{getattr(node, 'lineno', 0)}"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_names_in_docstrings_exist(name: str) -> None:
    source = MODULES[name].read_text(encoding="utf-8")
    roles = set(ROLE.findall(source))
    if not roles or name.endswith("__main__"):
        return
    module = importlib.import_module(name)
    classes = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == name]
    for role in roles:
        assert any(_found(scope, role) for scope in [module, *classes, builtins]) or _imported(role), f"{name}: {role}"


def _found(scope: Any, role: str) -> bool:
    for part in role.split("."):
        if not hasattr(scope, part) and part not in getattr(scope, "__annotations__", {}):
            return False
        scope = getattr(scope, part, None)
    return True


def _imported(role: str) -> bool:
    """Whether it is a module's name, or a module's and a name in it."""
    module, _, name = role.rpartition(".")
    try:
        importlib.import_module(role)
    except ModuleNotFoundError:
        return bool(module) and importlib.util.find_spec(module) is not None and _found(importlib.import_module(module), name)
    return True


def test_a_users_own_folders_do_no_harm(tmp_path: Path) -> None:
    for name in ("training", "benchmarks", "parity_tests", "tests", "docs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the user's own')")
    (tmp_path / "training.py").write_text("raise RuntimeError('the user's own')")
    for name in PACKAGES:  # without an __init__.py they come after any package of that name
        (tmp_path / name).mkdir()
    network = ROOT / "alexnet_from_scratch" / "networks" / "mini-fashion-mnist"
    for side in ("scratch", "torch_impl"):
        command = ["-m", f"{side}.predict", str(network / "example.png")]
        imported = ["-c", f"import {side}; print({side}.relu.forward.__name__)"]
        for arguments, printed in ((command, "Ankle boot"), (imported, "forward")):
            done = subprocess.run(
                [sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
            )
            assert (done.returncode, done.stderr) == (0, ""), side
            assert printed in done.stdout
