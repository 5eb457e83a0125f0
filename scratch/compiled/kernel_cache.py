"""Compiled kernels on disk, so that the next start need not compile them.

This is only an optimization: if anything goes wrong with a file or a folder, the kernel is compiled. If nothing can be kept, one
warning says so. Numba's own cache raises errors instead. It also tracks only the kernel's own source file. And if two processes
write at the same time, it may give the code for two types the same file name.

There is one file for each combination of kernel, argument types and machine. It begins with a checksum over the code and over
everything the code depends on. So a file that is damaged, out of date or another kernel's is ignored, and a new one replaces
it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import pickle
import re
import secrets
import stat
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
# These settings of Numba do not change the compiled code; every other one may.
NO_MATTER = ("CACHE_DIR", "NUMBA_NUM_THREADS", "NUMBA_DEFAULT_NUM_THREADS")

_warned = False


class KernelCache:
    """One kernel's compiled code on disk. Numba asks for the code before it compiles, and hands over new code afterwards."""

    cache_path = None  # Numba shows this path in the kernel's ``stats``; here there may be several

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._file = Path(function.__code__.co_filename)
        self._flushed = False
        self._words: str | None = None
        with contextlib.suppress(OSError):  # the module has no source file: its kernels are not kept
            self._words = _words(function.__module__, self._file)  # from the files as they are at import

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled code for these types of arguments, or None."""
        try:
            target_context.refresh()
            name, origin = self._origin(sig, target_context.codegen())
            for folder in folders(self._file):
                content = _read(folder / name, self._file)
                checksum, code = content[:32], content[32:]
                if checksum == hashlib.sha256(origin + code).digest() and not self._flushed:
                    rebuild: Any = numba.core.compiler.CompileResult._rebuild
                    return rebuild(target_context, *pickle.loads(code))
        except Exception as error:
            warn(f"{type(error).__name__}: {error}")
        return None

    def save_overload(self, sig: Any, result: Any) -> None:
        """Keep the compiled code in the first folder that can be written to."""
        try:
            if self._flushed:
                return
            if result.library.has_dynamic_globals or result.lifted:
                raise ValueError(f"{self._function.__qualname__} holds addresses of this process")
            name, origin = self._origin(sig, result.codegen)
            serialize: Any = numba.core.serialize
            code = serialize.dumps(result._reduce())
            refused = []
            for folder in folders(self._file):
                try:
                    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
                    if not _trusted(folder, self._file):
                        raise PermissionError(errno.EPERM, "others may write to it")
                    _write(folder / name, hashlib.sha256(origin + code).digest() + code)
                    break
                except OSError as error:
                    refused.append(f"{folder}: {error.strerror}")
            else:
                warn("; ".join(refused))
        except Exception as error:
            warn(f"{type(error).__name__}: {error}")

    def flush(self) -> None:
        """Numba calls this before ``recompile()``: the source no longer matches the code, so stop loading and keeping code."""
        self._flushed = True

    def _origin(self, sig: Any, codegen: Any) -> tuple[str, bytes]:
        """A file's name, and everything that the code in it depends on."""
        if self._words is None or self._function.__closure__:
            raise ValueError(f"{self._function.__qualname__} is not a function of a module with a source file")
        # Ask Numba, not the environment: some settings come from a file in the working directory. Numba, too, reads both again
        # before it compiles.
        config: Any = numba.config
        config.reload_config()
        settings = {name: it for name, it in vars(config).items() if name.isupper() and name not in NO_MATTER}
        chosen = sorted(settings.items()), os.environ.get("SCRATCH_VECTOR_BITS")
        machine = codegen.magic_tuple(), llvm.get_host_cpu_features().flatten(), sys.implementation.cache_tag, chosen
        place = repr((self._function.__qualname__, str(sig), machine))
        name = f"{self._file.stem}.{self._function.__name__}-{hashlib.sha256(place.encode()).hexdigest()[:16]}.kernel"
        versions = numba.__version__, llvmlite.__version__, np.__version__
        return name, repr((place, versions, self._function.__code__.co_firstlineno, self._words)).encode()


def warn(reason: str) -> None:
    """Warn, once in a process, why kernels are compiled at every start."""
    global _warned
    if not _warned:
        _warned = True
        message = f"scratch: starts are slow, since compiled kernels cannot be kept on disk: {reason}"
        message += " (NUMBA_CACHE_DIR names a folder for them)"
        try:
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        except RuntimeWarning:  # warnings are errors here, but this one must not cost a result
            print(f"RuntimeWarning: {message}", file=sys.stderr)


def folders(file: Path) -> Iterator[Path]:
    """The folders for a source file's kernels: one in NUMBA_CACHE_DIR, or else ``__pycache__`` and one in the user's cache."""
    own = f"{file.parent.name}-{hashlib.sha256(os.fsencode(file.parent)).hexdigest()[:16]}"
    config: Any = numba.config
    if config.CACHE_DIR:
        yield Path(config.CACHE_DIR, own)
        return
    yield file.parent / "__pycache__"
    caches = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(caches):
        caches = os.path.join(os.path.expanduser("~"), ".cache")
    if os.path.isabs(caches) and os.path.isdir(os.path.dirname(caches)):  # create no home folder, use no relative path
        yield Path(caches, "alexnet-from-scratch", own)


def _read(path: Path, source: Path) -> bytes:
    """The content of a kernel's file, or nothing if it cannot be read or trusted."""
    with contextlib.suppress(OSError):
        # Opening a fifo would wait for a writer.
        if path.is_file() and _trusted(path.parent, source) and _trusted(path, source):
            return path.read_bytes()
    return b""


def _trusted(path: Path, source: Path) -> bool:
    """Whether a file or folder can be written only by this user, root, and the people who can also change the kernel's source.

    Unpickling a file may run any code, and others must not choose that code.
    """
    if not hasattr(os, "geteuid"):  # Windows, where each user's folders are private
        return True
    there, own = path.stat(), source.stat()
    others = there.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if there.st_gid == own.st_gid:
        others &= ~own.st_mode
    return there.st_uid in (0, os.geteuid(), own.st_uid) and not others


def _write(path: Path, content: bytes) -> None:
    """Write the file in one step: another process sees either the whole new file or the old one."""
    unfinished = path.with_name(f"{path.name}.tmp{secrets.token_hex(8)}")
    try:
        with open(unfinished, "xb", opener=lambda file, flags: os.open(file, flags, 0o644)) as file:
            file.write(content)
        try:
            unfinished.replace(path)
        except PermissionError:
            # Windows refuses while another process reads the old file. If the old file holds the same code, nothing is left to
            # do.
            if path.read_bytes() != content:
                raise
    finally:
        unfinished.unlink(missing_ok=True)


def _words(module: str, file: Path) -> str:
    """A checksum of all source that a kernel may use: its own file, the files that it imports, and so on."""
    sources: dict[Path, str] = {}
    left = {file: module}
    while left:
        source, module = left.popitem()
        if source not in sources:
            sources[source], imported = _source(module, source)
            left |= imported
    return hashlib.sha256("".join(sorted(sources.values())).encode()).hexdigest()


_sources: dict[Path, tuple[object, str, dict[Path, str]]] = {}


def _source(module: str, file: Path) -> tuple[str, dict[Path, str]]:
    """A file's checksum, and the modules of scratch that it imports, or imports from, at its top level.

    The file is read once each time that its module is loaded: ``importlib.reload`` and notebooks give the module a new spec.
    """
    spec = getattr(sys.modules.get(module), "__spec__", None)
    if spec is None or file not in _sources or _sources[file][0] is not spec:
        content, modules = file.read_bytes(), _modules()
        imported = {}
        for name, names in IMPORT.findall(content.decode(errors="replace")):
            for found in re.findall(r"\w+", names) or [""]:
                whole = f"{name}.{found}" if f"{name}.{found}" in modules else name
                if whole in modules:
                    imported[modules[whole]] = whole
        _sources[file] = spec, hashlib.sha256(content).hexdigest(), imported
    return _sources[file][1:]


@functools.cache
def _modules() -> dict[str, Path]:
    """The files of scratch, by module name."""
    root = PACKAGE.parent
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in PACKAGE.rglob("*.py")
    }
