"""Code on disk is used only for the kernel, the source, the settings and the versions that it was compiled from."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity_tests.installs import COUNTED, HITS, RIGHT, TINY, assert_one_warning
from scratch.compiled.jit import JIT_OFF, kernel

resource = pytest.importorskip("resource", reason="Windows has other limits and permissions")
pytestmark = pytest.mark.skipif(JIT_OFF, reason="nothing is compiled")


SETTINGS = (
    HITS
    + """
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
hits()
for name, case in CASES.items():
    assert hits() == 1
    with case():
        print(name, hits(), hits())
    hits()
"""
)


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


@kernel
def _element(values: np.ndarray, i: int) -> float:
    return values[i]


@kernel
def _sum_of_three(values: np.ndarray) -> float:
    return _element(values, 0) + _element(values, 1) + _element(values, len(values) - 1)


def test_a_kernel_is_compiled_once_whatever_constants_it_is_passed():
    assert _sum_of_three(np.array([1.0, 2.0, 3.0, 4.0])) == 7.0
    compiled: Any = _element
    assert len(compiled.signatures) == 1
