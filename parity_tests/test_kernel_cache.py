"""Compiled kernels are kept on disk, and whatever happens there only costs time: results are right, a warning says why."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import scratch
from scratch.compiled import kernel_cache
from scratch.compiled.jit import JIT_OFF

resource = pytest.importorskip("resource", reason="Windows has other limits and permissions")
pytestmark = pytest.mark.skipif(JIT_OFF, reason="nothing is compiled")

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2  # of linux/prctl.h and linux/capability.h
NAMELESS = """
import pwd
def getpwuid(user):
    raise KeyError(user)
pwd.getpwuid = getpwuid
"""  # a container's user may have no name, and then has no home
RELU = "import numpy, scratch; print(scratch.relu.forward(numpy.array([-1, 2], numpy.float32))[0].tolist())"
# Also whether each kernel that ran was found on disk: a cache hit and no miss in Numba's counts.
COUNTED = RELU + "; print([sum(it.values()) for it in scratch.relu._forward_kernel.stats[1:]])"
RIGHT = "[0.0, 2.0]\n"
FOUND, COMPILED = RIGHT + "[1, 0]\n", RIGHT + "[0, 1]\n"


def heed_permissions() -> None:
    """Give up root's right to write to read-only files."""
    if os.getuid() == 0:
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            assert ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0


class Install:
    """A copy of scratch in its own folder, a home, and a working directory."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home, self.here = folder / "install", folder / "home", folder / "here"
        for made in (self.folder, self.home, self.here):
            made.mkdir()
        here = Path(scratch.__file__).parent
        shutil.copytree(here, self.folder / "scratch", ignore=shutil.ignore_patterns("__pycache__"))
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "SCRATCH_", "XDG_"))}
        self.environment = inherited | {"HOME": str(self.home), "PYTHONPATH": str(self.folder)}

    def start(
        self, code: str = COUNTED, *, argv: Sequence[str] = (), env: Mapping[str, str | None] | None = None, **how: Any
    ) -> tuple[str, str]:
        """Run a process; return what it prints, and its warnings."""
        environment = {name: value for name, value in (self.environment | dict(env or {})).items() if value is not None}
        how = {"preexec_fn": heed_permissions, **how}
        run = subprocess.run(
            [sys.executable, "-c", code, *argv],
            cwd=self.here,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            **how,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout, run.stderr

    def allow_writing(self, allowed: bool) -> None:
        for path in [self.folder, *self.folder.rglob("*")]:
            if path.is_dir():
                path.chmod(0o755 if allowed else 0o555)

    def kept(self) -> list[Path]:
        """The files of compiled kernels that relu's forward pass has written."""
        return sorted(path for path in self.folder.parent.rglob("*relu._forward*") if path.is_file())


@pytest.fixture
def install(tmp_path: Path) -> Iterator[Install]:
    install = Install(tmp_path)
    yield install
    install.allow_writing(True)


def assert_one_warning(warnings: str, *words: str) -> None:
    assert warnings.count("Warning: ") == 1, warnings
    assert "Traceback" not in warnings
    for word in ("starts", *words):
        assert word in warnings


def test_a_second_start_finds_what_the_first_has_compiled(install):
    assert install.start() == (COMPILED, "")
    assert install.start() == (FOUND, "")


# --- no folder to write to --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environment",
    [
        {"HOME": "/nonexistent"},
        {"HOME": None},
        {"HOME": "INSTALL"},
        {"HOME": "relative"},
        {"HOME": "/dev/null"},
        {"HOME": "/nonexistent", "XDG_CACHE_HOME": "relative"},
        {"HOME": "/nonexistent", "NUMBA_CACHE_DIR": "/dev/null"},
        {"HOME": "/nonexistent", "NUMBA_CACHE_DIR": "/proc/kernels"},
        {"HOME": "/nonexistent", "NUMBA_CACHE_DIR": "/tmp/" + "long" * 100},
        {"HOME": "/nonexistent", "NUMBA_CACHE_LOCATOR_CLASSES": "NoSuchLocator"},
    ],
    ids=lambda environment: ",".join(f"{name}={value}"[:40] for name, value in environment.items()),
)
def test_an_install_that_cannot_be_written_to(install, environment):
    install.allow_writing(False)
    if environment["HOME"] == "INSTALL":
        environment = {"HOME": str(install.folder)}
    another = "; scratch.relu.forward(numpy.zeros(3))"  # it cannot be kept either, but needs no second warning
    out, warnings = install.start(NAMELESS + COUNTED + another, env=environment)
    assert out == COMPILED
    assert_one_warning(warnings, "NUMBA_CACHE_DIR")
    assert list(install.here.iterdir()) == []  # such as a folder called ~


def test_an_install_that_cannot_be_written_to_uses_the_home(install):
    install.allow_writing(False)
    assert install.start() == (COMPILED, "")
    assert install.start() == (FOUND, "")
    assert all(install.home in path.parents for path in install.kept())


def test_an_install_that_was_compiled_when_it_was_made_needs_no_home(install):
    """Like a container image: made by one user, run by others."""
    assert install.start() == (COMPILED, "")
    install.allow_writing(False)
    assert install.start(env={"HOME": "/nonexistent"}) == (FOUND, "")


def test_a_folder_of_ones_own(install):
    """Then only that folder is used: an empty one makes a start cold, which the benchmark times."""
    install.start()
    beside, own = install.kept(), install.home / "own"
    for expected in (COMPILED, FOUND):
        assert install.start(env={"NUMBA_CACHE_DIR": str(own)}) == (expected, "")
    assert all(own in path.parents for path in set(install.kept()) - set(beside))
    own.chmod(0)
    out, warnings = install.start(env={"NUMBA_CACHE_DIR": str(own)})
    assert out == COMPILED
    assert_one_warning(warnings, str(own), "Permission denied")
    own.chmod(0o755)


def test_a_full_disk(install):
    def no_bytes() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # files may not grow: an OSError, as with a full disk

    out, warnings = install.start(preexec_fn=no_bytes)
    assert out == COMPILED
    assert_one_warning(warnings, "File too large", str(install.home))
    assert not list(install.folder.parent.rglob("*.tmp*"))
    assert install.start() == (COMPILED, "")


def test_a_folder_that_goes_while_kernels_are_compiled(install):
    folder = install.folder / "scratch" / "__pycache__"
    gone = f"import scratch, shutil; shutil.rmtree({str(folder)!r}, ignore_errors=True); "
    assert install.start(gone + COUNTED) == (COMPILED, "")
    assert install.start() == (FOUND, "")
    a_file = gone + f"open({str(folder)!r}, 'w').close(); "
    assert install.start(a_file + COUNTED) == (COMPILED, "")  # and it is in the home
    assert any(install.home in path.parents for path in install.kept())


# --- files that are not what they should be ---------------------------------------------------------------------------


def damages(content: bytes) -> Iterator[tuple[str, bytes]]:
    rng = np.random.default_rng(0)
    yield "empty", b""
    cuts = {1, 2, 10, 31, 32, 33, 100, len(content) // 2, len(content) - 1, *rng.integers(1, len(content), 5).tolist()}
    for cut in sorted(cuts):
        yield f"cut at {cut}", content[:cut]
    for at in sorted({0, 5, 31, 32, 40, len(content) - 1, *rng.integers(0, len(content), 10).tolist()}):
        yield f"bit {at}", content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :]
    yield "noise", rng.bytes(len(content))
    yield "zeros", bytes(len(content))  # as after a power cut
    yield "twice", content + content
    yield "a pickle", b"\x80\x04K\x01."
    yield "a pickle of another Python", b"\x80\xff."
    yield "text", b"<!DOCTYPE html>"


DAMAGE = """
import pathlib, sys, numpy, warnings
warnings.simplefilter("error")
for line in sys.stdin:
    path, damaged = line.rstrip("\\n").split("\\t")
    pathlib.Path(path).write_bytes(bytes.fromhex(damaged))
    found = []
    for _ in range(2):
        sys.modules.pop("tiny", None)
        import tiny
        x = numpy.ones(3, numpy.float32)
        tiny.double(x)
        assert x.tolist() == [2, 2, 2]
        found.append(sum(tiny.double.stats.cache_hits.values()))
    print(found)
"""
TINY = """
from scratch.compiled.jit import kernel
@kernel
def double(x):
    for i in range(x.size):
        x[i] *= 2
"""


def test_a_damaged_file_is_compiled_anew_and_replaced(install):
    """Cut or changed anywhere: all bytes are checked before they are used."""
    (install.here / "tiny.py").write_text(TINY)
    code = "import numpy, tiny; tiny.double(numpy.ones(3, numpy.float32))"
    install.start(code)
    files = [path for path in install.here.rglob("tiny.double*") if path.is_file()]
    assert files
    cases = {
        f"{path.name}: {name}": f"{path}\t{damaged.hex()}\n" for path in files for name, damaged in damages(path.read_bytes())
    }
    out, warnings = install.start(DAMAGE, input="".join(cases.values()))
    assert warnings == ""
    results = dict(zip(cases, out.splitlines(), strict=True))
    assert {name: result for name, result in results.items() if result != "[0, 1]"} == {}  # not found, then found


KINDS = """
import pathlib, sys, numpy, warnings
import os
warnings.simplefilter("error")
MAKE = {
    "unreadable": lambda path: path.write_bytes(path.with_suffix(".whole").read_bytes()) and path.chmod(0),
    "fifo": os.mkfifo,
    "dangling link": lambda path: path.symlink_to(path.parent / "gone" / "there"),
    "link to itself": lambda path: path.symlink_to(path),
    "folder": lambda path: (path / "full").mkdir(parents=True),
}
def hits():
    sys.modules.pop("tiny", None)
    import tiny
    x = numpy.ones(3, numpy.float32)
    tiny.double(x)
    assert x.tolist() == [2, 2, 2]
    return sum(tiny.double.stats.cache_hits.values())
path = pathlib.Path(sys.argv[1])
path.with_suffix(".whole").write_bytes(path.read_bytes())
assert hits() == 1
for kind, make in MAKE.items():
    path.unlink()
    make(path)
    print(kind, hits(), hits())
"""


def test_something_else_in_a_files_place(install):
    """It is replaced, unless it is a folder: then the kernel is kept in the home."""
    (install.here / "tiny.py").write_text(TINY)
    install.start("import numpy, tiny; tiny.double(numpy.ones(3, numpy.float32))")
    [path] = install.here.rglob("tiny.double*")
    out, warnings = install.start(KINDS, argv=[str(path)])
    assert warnings == ""
    assert out.splitlines() == [f"{kind} 0 1" for kind in ("unreadable", "fifo", "dangling link", "link to itself", "folder")]
    assert [kept.parents[3] for kept in install.home.rglob("tiny.double*")] == [install.home]


def test_what_others_may_write_to_is_not_read(install):
    """It is unpickled, which may run any code."""
    assert install.start() == (COMPILED, "")
    [path] = install.kept()
    path.chmod(0o646)
    assert install.start() == (COMPILED, "")
    assert install.start() == (FOUND, "")  # replaced
    path.parent.chmod(0o777)
    assert install.start() == (COMPILED, "")
    assert install.start() == (FOUND, "")  # in the home
    for path in install.kept():
        path.parent.chmod(0o777)
    out, warnings = install.start()
    assert out == COMPILED
    assert_one_warning(warnings, "others may write to it")


@pytest.mark.parametrize(
    ("cache", "source", "trusted"),
    [
        # Who owns it, its group, its mode. The process is user 1000's.
        ((1000, 1, 0o755), (0, 0, 0o644), True),
        ((0, 0, 0o755), (0, 0, 0o644), True),
        ((2000, 1, 0o755), (2000, 1, 0o644), True),  # could change the source as well
        ((2000, 1, 0o755), (0, 0, 0o644), False),
        ((2000, 1, 0o755), (1000, 1, 0o644), False),
        ((1000, 1, 0o775), (1000, 1, 0o664), True),  # each user has a group, and all is writable to it
        ((1000, 1, 0o775), (1000, 1, 0o644), False),
        ((1000, 1, 0o775), (1000, 2, 0o664), False),
        ((1000, 1, 0o757), (1000, 1, 0o664), False),
        ((0, 0, 0o777), (0, 0, 0o644), False),
    ],
)
def test_whose_files_are_trusted(monkeypatch, cache, source, trusted):
    class Entry:
        def __init__(self, status: tuple[int, int, int]) -> None:
            self.status = status

        def stat(self) -> SimpleNamespace:
            return SimpleNamespace(**dict(zip(("st_uid", "st_gid", "st_mode"), self.status, strict=True)))

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert kernel_cache._trusted(Entry(cache), Entry(source)) == trusted  # type: ignore[arg-type]


def test_many_processes_write_at_once(install):
    """Each compiles the kernel for two types, which must never be mixed up."""
    code = """
import sys, numpy, scratch
sys.stdin.read()
for dtype in sys.argv[1:]:
    x = numpy.array([-1, 2.5], dtype)
    print(scratch.relu.forward(x)[0].tolist())
"""
    orders = [("f", "d"), ("d", "f")] * 2
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, *order], cwd=install.here, env=install.environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for order in orders
    ]  # fmt: skip
    try:
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()  # all begin
            process.stdin = None
        for process in processes:
            assert process.communicate(timeout=300) == ("[0.0, 2.5]\n[0.0, 2.5]\n", "")
    finally:
        for process in processes:
            process.kill()
    both = COUNTED.replace("; print([", "; scratch.relu.forward(numpy.zeros(2)); print([")
    assert install.start(both) == (RIGHT + "[2, 0]\n", "")
    assert not list(install.folder.parent.rglob("*.tmp*"))


# --- files of other times and machines --------------------------------------------------------------------------------


SETTINGS = """
import os, sys, numpy, llvmlite, numba, warnings
import llvmlite.binding as llvm
from unittest import mock
warnings.simplefilter("error")
features = llvm.get_host_cpu_features()
features["avx512f"] = not features.get("avx512f")
CASES = {
    "numba": lambda: mock.patch.object(numba, "__version__", "0.0.1"),
    "llvmlite": lambda: mock.patch.object(llvmlite, "__version__", "0.0.1"),
    "numpy": lambda: mock.patch.object(numpy, "__version__", "0.0.1"),
    "features": lambda: mock.patch.object(llvm, "get_host_cpu_features", lambda: features),
} | {
    setting: lambda setting=setting: mock.patch.dict(os.environ, [setting.split("=")])
    for setting in ("NUMBA_CPU_NAME=generic", "NUMBA_OPT=1", "NUMBA_BOUNDSCHECK=1", "SCRATCH_VECTOR_BITS=128")
}
def hits():
    sys.modules.pop("tiny", None)
    import tiny
    x = numpy.ones(3, numpy.float32)
    tiny.double(x)
    assert x.tolist() == [2, 2, 2]
    return sum(tiny.double.stats.cache_hits.values())
hits()
for name, case in CASES.items():
    assert hits() == 1
    with case():
        print(name, hits(), hits())
    hits()
"""


def test_what_another_numba_or_machine_has_compiled_is_not_used(install):
    (install.here / "tiny.py").write_text(TINY)
    out, warnings = install.start(SETTINGS)
    assert warnings == ""
    names = [line.rsplit(" ", 2)[0] for line in out.splitlines()]
    assert out.splitlines() == [f"{name} 0 1" for name in names]  # not found, then found
    assert len(names) == 8


def test_another_kernels_file_is_not_used(install):
    """Renamed, or left by a kernel of the same name: the file is whole, but not this kernel's."""
    install.start("import numpy, scratch; scratch.relu.forward(numpy.zeros(2)); scratch.relu.forward(numpy.zeros(2, 'f'))")
    one, other, *_ = install.kept()
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    both = COUNTED.replace("; print([", "; print(scratch.relu.forward(numpy.array([-1, 2.0]))[0].tolist()); print([")
    assert install.start(both) == (RIGHT + RIGHT + "[0, 2]\n", "")


def test_a_kernel_is_compiled_anew_when_a_file_changed_that_its_module_imports_by_way_of_others(install):
    """A word two modules away, under another name each time, and a constant, which does not record its origin."""
    folder = install.folder / "scratch"
    first = "from numba.extending import register_jitable\nSIZE = 1\n@register_jitable\ndef f(x):\n    return 2 * x\n"
    (folder / "first.py").write_text(first)
    (folder / "second.py").write_text("from scratch import first\ng = first.f\nSIZE = first.SIZE\n")
    (folder / "third.py").write_text(
        "from scratch.compiled.jit import kernel\nfrom scratch.second import (\n    SIZE,\n    g,\n)\n"
        "@kernel\ndef h(x):\n    return g(x) + SIZE\n"
    )
    code = "from scratch import third; print(third.h(1.0), sum(third.h.stats.cache_hits.values()))"
    before = (folder / "first.py").stat()
    assert install.start(code)[0] == "3.0 0\n"
    assert install.start(code)[0] == "3.0 1\n"
    (folder / "relu.py").write_text((folder / "relu.py").read_text() + "\n")  # an unrelated file
    assert install.start(code)[0] == "3.0 1\n"
    for old, new, result in (("SIZE = 1", "SIZE = 5", "7.0 0\n"), ("2 * x", "4 * x", "5.0 0\n")):
        (folder / "first.py").write_text(first.replace(old, new))  # the same length and, as with some installers, the same time
        os.utime(folder / "first.py", ns=(before.st_atime_ns, before.st_mtime_ns))
        Path(importlib.util.cache_from_source(str(folder / "first.py"))).unlink(missing_ok=True)
        assert install.start(code)[0] == result


ANOTHER_NJIT = """
import numba
njit = numba.njit
def without_a_cache(function=None, **options):
    compiled = njit(function, **options)
    return compiled if function else lambda function: lambda *arguments: compiled(function)(*arguments)
numba.njit = without_a_cache
"""
# Numba's names that no release guarantees. Only writing needs the second part, only forks the third.
READING = (
    "import numba.core.compiler as it; del it.CompileResult._rebuild",
    "import numba.core.codegen as it; del it.CPUCodegen.magic_tuple",
    "import numba; del numba.config.CACHE_DIR",
    ANOTHER_NJIT,
)
WRITING = (
    "import numba.core.compiler as it; del it.CompileResult._reduce",
    "import numba.core as it; it.serialize = None",
    "import numba.core.codegen as it; del it.CodeLibrary.has_dynamic_globals",
)
FORKING = (
    "import llvmlite.binding.ffi as it, threading; it.lib._lock._lock = threading._PyRLock()",
    "import sys; sys.modules['llvmlite.binding.ffi'] = None",
    "import numba.core.compiler_lock as it; lock = it.global_compiler_lock; lock.mine = lock._lock; del lock._lock; "
    "kind = type(lock); kind.acquire = lambda self: self.mine.acquire(); kind.release = lambda self: self.mine.release(); "
    "kind.is_locked = lambda self: True",
)
# Numba is imported once; each child imports scratch without one of the names, uses it, and forks once more.
WITHOUT = """
import os, sys, numpy, numba
for code in sys.stdin.read().split("\\0"):
    sys.stdout.flush()
    if os.fork() == 0:
        exec(code)
        import scratch
        print(scratch.relu.forward(numpy.array([-1, 2], numpy.float32))[0].tolist())
        x = scratch.conv2d.forward(numpy.ones((1, 1, 3, 3)), numpy.ones((1, 1, 3, 3)))[0]
        print(x.tolist(), flush=True)
        if os.fork() == 0:
            x = scratch.conv2d.forward(numpy.ones((1, 1, 3, 3)), numpy.ones((1, 1, 3, 3)))[0]
            os._exit(int(x.sum() != 9))
        print("failed" if os.wait()[1] else "right", flush=True)
        os._exit(0)
    print("failed" if os.wait()[1] else "ended", flush=True)
"""


@pytest.mark.parametrize(("names", "warned"), [(READING, True), (WRITING, True), (FORKING, False)], ids=["read", "write", "fork"])
def test_a_numba_without_the_private_names_that_scratch_uses(install, names, warned):
    """Without them, kernels are compiled at every start, or forks do not wait; nothing else. No old code runs."""
    if names is not WRITING:
        install.start()
    out, warnings = install.start(WITHOUT, input="\0".join(names))
    assert out == "[0.0, 2.0]\n[[[[9.0]]]]\nright\nended\n" * len(names)
    assert warnings.count("Warning: ") == len(names) * warned, warnings
    assert warnings.count("starts are slow") == len(names) * warned
    assert "Traceback" not in warnings


def test_a_kernel_that_is_compiled_anew_by_hand_is_neither_loaded_nor_kept(install):
    """A user who asks for that has changed something that the source does not show."""
    (install.here / "tiny.py").write_text("FACTOR = 2\n" + TINY.replace("*= 2", "*= FACTOR"))
    use = "import numpy, tiny; tiny.double(x := numpy.ones(1, numpy.float32)); print(x)"
    anew = "; tiny.FACTOR = 3; tiny.double.recompile(); tiny.double(x); print(x)"
    assert install.start(use + anew) == ("[2.]\n[6.]\n", "")
    assert install.start(use) == ("[2.]\n", "")


@pytest.mark.parametrize("changed", ["word", "tiny"])
def test_what_was_tried_in_a_notebook_is_not_kept_for_the_file_as_it_was(install, changed):
    """Changed, loaded anew, tried, and changed back: the next process must not find what was tried."""
    (install.folder / "scratch" / "word.py").write_text("FACTOR = 2\n")
    (install.here / "tiny.py").write_text(
        "from scratch.word import FACTOR\nMORE = 0\n" + TINY.replace("*= 2", "*= FACTOR + MORE")
    )
    use = "import numpy, tiny; tiny.double(x := numpy.ones(1, numpy.float32)); print(x)"
    tried = f"""
import importlib, pathlib, sys, tiny, scratch.word, {"scratch.word" if changed == "word" else "tiny"} as module
file = pathlib.Path(module.__file__)
before = file.read_text()
file.write_text(before.replace("FACTOR = 2", "FACTOR = 700").replace("MORE = 0", "MORE = 698"))
importlib.reload(scratch.word)
importlib.reload(tiny)
{use}
file.write_text(before)
"""
    assert install.start(tried) == ("[700.]\n", "")
    assert install.start(use) == ("[2.]\n", "")


def test_a_kernel_without_a_source_file_or_with_a_closure_is_compiled_every_time(install):
    (install.here / "made.py").write_text(
        "from scratch.compiled.jit import kernel\n"
        "def times(factor):\n    @kernel\n    def it(x):\n        return factor * x\n    return it\n"
    )
    assert install.start("import made; print(made.times(2)(1), made.times(3)(1))")[0] == "2 3\n"
    out, warnings = install.start("import made; print(made.times(3)(1), made.times(2)(1))")
    assert out == "3 2\n"
    assert_one_warning(warnings, "times.<locals>.it")
    typed = "from scratch.compiled.jit import kernel\ndef it(x):\n    return 2 * x\nprint(kernel(it)(1))"
    out, warnings = install.start(typed)
    assert out == "2\n"
    assert_one_warning(warnings, "source file")
