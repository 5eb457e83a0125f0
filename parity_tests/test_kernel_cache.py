"""Compiled kernels are kept on disk, and whatever folders and files are there only costs time: a warning says why."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from parity_tests.installs import COMPILED, COUNTED, FOUND, HITS, NAMELESS, RIGHT, TINY, assert_one_warning
from scratch.compiled import kernel_cache
from scratch.compiled.jit import JIT_OFF

resource = pytest.importorskip("resource", reason="Windows has other limits and permissions")
pytestmark = pytest.mark.skipif(JIT_OFF, reason="nothing is compiled")


def test_a_second_start_finds_what_the_first_has_compiled(install):
    assert install.start() == (COMPILED, "")
    assert install.start() == (FOUND, "")


def test_settings_that_numba_reads_from_a_file(install):
    """They change the code as those in the environment do."""
    pytest.importorskip("yaml", reason="Numba reads the file with it")
    assert install.start() == (COMPILED, "")
    settings = install.here / ".numba_config.yaml"
    for expected in (COMPILED, FOUND):
        settings.write_text("boundscheck: 1")
        assert install.start() == (expected, "")
        settings.unlink()
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


def test_where_warnings_are_errors_this_one_is_still_seen_and_costs_no_result(install):
    install.allow_writing(False)
    out, warnings = install.start(env={"HOME": "/nonexistent", "PYTHONWARNINGS": "error"})
    assert out == COMPILED
    assert_one_warning(warnings, "NUMBA_CACHE_DIR")


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


def test_two_processes_that_write_one_file_at_the_same_moment(tmp_path, monkeypatch):
    """The second writes its file between the first one's last two steps."""
    path, replace = tmp_path / "it.kernel", Path.replace

    def replace_later(self: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", replace)
        kernel_cache._write(path, b"second")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", replace_later)
    kernel_cache._write(path, b"first")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("it.kernel", b"first")]


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


DAMAGE = (
    HITS
    + """
import pathlib, sys, numpy, warnings
warnings.simplefilter("error")
for line in sys.stdin:
    path, damaged = line.rstrip("\\n").split("\\t")
    pathlib.Path(path).write_bytes(bytes.fromhex(damaged))
    print([hits(), hits()])
"""
)


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


KINDS = (
    HITS
    + """
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
path = pathlib.Path(sys.argv[1])
path.with_suffix(".whole").write_bytes(path.read_bytes())
assert hits() == 1
for kind, make in MAKE.items():
    path.unlink()
    make(path)
    print(kind, hits(), hits())
"""
)


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
