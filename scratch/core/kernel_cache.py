"""Compiled kernels on disk, so that the next start need not compile them.

This is an optimization: whatever goes wrong with a file or a folder, the kernel is compiled, and where nothing can be kept one
warning says so. Numba's own cache raises errors instead, knows about the kernel's own file only, and lets two processes that
write at once name one file for two types.

There is one file for each kernel, types of arguments, and machine. It begins with a checksum, over all that the compiled code
depends on and over the code. So a file that is damaged, out of date or another kernel's is none, and the new one takes its
place.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pickle
import re
import secrets
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numba
import numpy as np

PACKAGE = Path(__file__).parents[1]
IMPORT = re.compile(r"^(?:from|import) +(scratch[.\w]*)(?: +import +(\([^)]*\)|.*))?", re.MULTILINE)
NO_MATTER = ("NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS")  # what else the environment tells Numba may change the code

_warned = False


class KernelCache:
    """One kernel's compiled code on disk: Numba asks for it before it compiles, and hands it over afterwards."""

    cache_path = None  # for the kernel's ``stats``: there may be several

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._file = Path(function.__code__.co_filename)
        self._flushed = False
        self._words: str | None = None
        with contextlib.suppress(OSError):  # a module without a source file: its kernels are not kept
            self._words = _words(self._file)  # of the files as they are now that they are imported

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled code for these types of arguments, or None."""
        try:
            target_context.refresh()
            name, origin = self._origin(sig, target_context.codegen())
            for folder in _folders(self._file):
                content = _read(folder / name)
                checksum, code = content[:32], content[32:]
                if checksum == hashlib.sha256(origin + code).digest() and not self._flushed:
                    rebuild: Any = numba.core.compiler.CompileResult._rebuild
                    return rebuild(target_context, *pickle.loads(code))
        except Exception as error:
            warn(f"{type(error).__name__}: {error}")
        return None

    def save_overload(self, sig: Any, result: Any) -> None:
        """Keep the compiled code in the first folder that takes it."""
        try:
            if self._flushed:
                return
            if result.library.has_dynamic_globals or result.lifted:
                raise ValueError(f"{self._function.__qualname__} holds addresses of this process")
            name, origin = self._origin(sig, result.codegen)
            serialize: Any = numba.core.serialize
            code = serialize.dumps(result._reduce())
            refused = []
            for folder in _folders(self._file):
                try:
                    _write(folder / name, hashlib.sha256(origin + code).digest() + code)
                    break
                except OSError as error:
                    refused.append(f"{folder}: {error.strerror}")
            else:
                warn("; ".join(refused))
        except Exception as error:
            warn(f"{type(error).__name__}: {error}")

    def flush(self) -> None:
        """Before ``recompile()``: what the source says is no longer what is compiled, so nothing is loaded or kept any more."""
        self._flushed = True

    def _origin(self, sig: Any, codegen: Any) -> tuple[str, bytes]:
        """A file's name, and all that the code in it depends on."""
        if self._words is None or self._function.__closure__:
            raise ValueError(f"{self._function.__qualname__} is not a function of a module with a source file")
        chosen = sorted(it for it in os.environ.items() if it[0].startswith(("NUMBA_", "SCRATCH_V")) and it[0] not in NO_MATTER)
        machine = codegen.magic_tuple(), llvm.get_host_cpu_features().flatten(), sys.implementation.cache_tag, chosen
        place = repr((self._function.__qualname__, str(sig), machine))
        name = f"{self._file.stem}.{self._function.__name__}-{hashlib.sha256(place.encode()).hexdigest()[:16]}.kernel"
        versions = numba.__version__, llvmlite.__version__, np.__version__
        return name, repr((place, versions, self._function.__code__.co_firstlineno, self._words)).encode()


def warn(reason: str) -> None:
    """Say, once in a process, why kernels are compiled at every start."""
    global _warned
    if not _warned:
        _warned = True
        message = f"scratch: starts are slow, since compiled kernels cannot be kept on disk: {reason}"
        warnings.warn(f"{message} (NUMBA_CACHE_DIR names a folder for them)", RuntimeWarning, stacklevel=2)


def _folders(file: Path) -> Iterator[Path]:
    """Where a source file's kernels are looked for, and kept if it can be written to: the folder named, or one of two."""
    own = f"{file.parent.name}-{hashlib.sha256(os.fsencode(file.parent)).hexdigest()[:16]}"
    config: Any = numba.config
    if config.CACHE_DIR:
        yield Path(config.CACHE_DIR, own)
        return
    yield file.parent / "__pycache__"
    caches = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(caches):
        caches = os.path.join(os.path.expanduser("~"), ".cache")
    if os.path.isabs(caches) and os.path.isdir(os.path.dirname(caches)):  # no home is made, and none in the working directory
        yield Path(caches, "alexnet-from-scratch", own)


def _read(path: Path) -> bytes:
    """The file's content, or nothing where there is no file that can be read."""
    with contextlib.suppress(OSError):
        if path.is_file():  # to open a fifo would wait for who writes to it
            return path.read_bytes()
    return b""


def _write(path: Path, content: bytes) -> None:
    """Put the file there at once: another process sees all of it, or the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.tmp{secrets.token_hex(8)}")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@functools.cache
def _words(file: Path) -> str:
    """A checksum of all the source that a kernel may take its words from: its own file, what that imports, and so on."""
    sources: dict[Path, str] = {}
    left = [file]
    while left:
        if (source := left.pop()) not in sources:
            sources[source], imported = _source(source)
            left += imported
    return hashlib.sha256("".join(sorted(sources.values())).encode()).hexdigest()


@functools.cache
def _source(file: Path) -> tuple[str, set[Path]]:
    """A file's checksum, and the modules of scratch that it imports, or imports from, as it is loaded."""
    content, modules = file.read_bytes(), _modules()
    imported = set()
    for module, names in IMPORT.findall(content.decode(errors="replace")):
        for name in re.findall(r"\w+", names) or [""]:
            found = modules.get(f"{module}.{name}") or modules.get(module)
            imported |= {found} if found else set()
    return hashlib.sha256(content).hexdigest(), imported


@functools.cache
def _modules() -> dict[str, Path]:
    """The files of scratch, by the names of their modules."""
    root = PACKAGE.parent
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in PACKAGE.rglob("*.py")
    }
