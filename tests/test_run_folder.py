"""A run's folder: one run at a time, nothing existing is lost, nothing is half-written, and signals save first."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from alexnet_from_scratch.runs import run_folder, session
from alexnet_from_scratch.runs.checkpoints import Checkpoints
from alexnet_from_scratch.runs.options import Options
from alexnet_from_scratch.runs.run_folder import RunFolder
from tests.runs import after_step, checkpoints_of, contents, data_of, dataset, run, side_by_side, steps_of, weights_of

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _tiny():
    with dataset(data_of()):
        yield


def folder_of(path: Path) -> RunFolder:
    return RunFolder(path, Checkpoints(path / "checkpoints", "scratch", 3))


# --- one run at a time ------------------------------------------------------------------------------------------------


@side_by_side
@pytest.mark.parametrize("resume", [False, True])
def test_a_second_run_in_the_folder_is_refused_and_the_first_ends_as_if_alone(side, resume, tmp_path):
    run(side, tmp_path / "alone", max_steps=4)
    run(side, tmp_path / "shared", max_steps=2)
    refused: list[BaseException] = []

    def second(first: session.Run) -> None:
        with pytest.raises((OSError, ValueError)) as caught:
            run(side, tmp_path / "shared", resume=resume)
        refused.append(caught.value)

    with after_step(3, second):
        run(side, tmp_path / "shared", max_steps=4, resume=True)
    said = "another run is writing to this folder" if resume else "already holds a run"
    assert said in str(refused[0])
    assert str(tmp_path / "shared") in str(refused[0])
    assert weights_of(tmp_path / "shared") == weights_of(tmp_path / "alone")
    assert [step for step in steps_of(tmp_path / "shared") if step > 0] == [1, 2, 3, 4]


def test_of_two_runs_that_begin_at_once_one_is_refused(tmp_path):
    folder = folder_of(tmp_path)
    with folder.opened(pytest.fail):
        folder.require_free()  # nothing is there yet
        with (
            pytest.raises(BlockingIOError, match="another run is writing to this folder"),
            folder_of(tmp_path).opened(pytest.fail),
        ):
            pass
    with folder_of(tmp_path).opened(pytest.fail):
        pass


# The process holds the folder, starts another process that does not end, and dies.
CRASHES = """
import os, sys, time
from pathlib import Path
from alexnet_from_scratch.runs.checkpoints import Checkpoints
from alexnet_from_scratch.runs.options import Options
from alexnet_from_scratch.runs.options import Options
from alexnet_from_scratch.runs.run_folder import RunFolder

path = Path(sys.argv[1])
with RunFolder(path, Checkpoints(path / "checkpoints", "scratch", 3)).opened(print):
    if (child := os.fork()) == 0:
        os.closerange(1, 3)
        time.sleep(100)
    print(child, flush=True)
    os._exit(9)
"""


@pytest.mark.posix
def test_a_crash_leaves_no_lock_though_a_child_lives_on(tmp_path):
    crashed = subprocess.run(
        [sys.executable, "-c", CRASHES, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert crashed.returncode == 9, crashed.stderr
    child = int(crashed.stdout)
    try:
        with folder_of(tmp_path).opened(pytest.fail):
            os.kill(child, 0)  # the child is running
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_a_file_system_has_no_locks_the_run_says_so_and_goes_on(tmp_path, monkeypatch, capsys, number):
    def none(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(run_folder, "_lock", none)
    run("scratch", tmp_path)
    said = capsys.readouterr().out
    assert f"{tmp_path}: cannot be locked ({os.strerror(number)}): make sure that no other run writes to it" in said


def test_a_folder_that_was_replaced_is_left_alone(tmp_path):
    folder = tmp_path / "run"

    def replace(first: session.Run) -> None:
        if not (tmp_path / "away").exists():  # the second run reaches this too
            folder.rename(tmp_path / "away")
            run("scratch", folder)

    with after_step(2, replace), pytest.raises(OSError, match=r"metrics.jsonl: was replaced by another file while this run"):
        run("scratch", folder, max_steps=8)
    assert [path.name for path in checkpoints_of(folder)] == [f"step-{step:09}.safetensors" for step in (0, 2, 3)]
    assert steps_of(folder) == [1, 2, 3, -3]


# --- what was there ---------------------------------------------------------------------------------------------------


@side_by_side
@pytest.mark.parametrize("name", run_folder.RESULTS)
def test_a_new_run_replaces_no_file(side, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=f"{tmp_path}: already holds {name}, which a run would replace. .* --out DIR"):
        run(side, tmp_path)
    assert contents(tmp_path) == {tmp_path / name: b"mine"}


def test_a_new_run_may_begin_where_one_has_not_got_to_its_first_checkpoint(tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".step-000000009.safetensors.unfinished").write_bytes(b"half")
    (tmp_path / ".mine.unfinished").touch()
    run("scratch", tmp_path)
    left = [path.name for path in tmp_path.rglob("*.unfinished")]
    assert left == [".mine.unfinished"]


@side_by_side
def test_one_class_is_nothing_to_learn(side, tmp_path):
    with dataset(data_of(("cat",))), pytest.raises(ValueError, match=r"digits: has only one class, 'cat'.* Add a folder"):
        run(side, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- full disks -------------------------------------------------------------------------------------------------------


@contextmanager
def files_no_longer_than(size: int):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@side_by_side
@pytest.mark.posix
@pytest.mark.parametrize("what", ["metrics", "checkpoint"])
def test_a_disk_that_fills_during_a_run_leaves_what_is_whole(side, what, tmp_path):
    run(side, tmp_path / "whole", max_steps=6)
    folder = tmp_path / "full"
    limits: list[Any] = []

    def fill(full: session.Run) -> None:
        size = full.folder.metrics.stat().st_size
        limits.append(files_no_longer_than(size + 10 if what == "metrics" else size + 1000))
        limits[0].__enter__()

    with after_step(4, fill), pytest.raises(OSError, match="File too large") as caught:
        run(side, folder, max_steps=6)
    limits[0].__exit__(None, None, None)
    name = "metrics.jsonl" if what == "metrics" else "step-000000004.safetensors"
    last = folder / "checkpoints" / "step-000000002.safetensors"
    assert f"{name}: File too large. --resume continues from {last}" in str(caught.value)
    assert steps_of(folder) == [1, 2, 3, -3] + ([4] if what == "checkpoint" else [])
    assert list(tmp_path.rglob("*.unfinished")) == []
    run(side, folder, max_steps=6, resume=True)
    assert weights_of(folder) == weights_of(tmp_path / "whole")
    assert steps_of(folder) == steps_of(tmp_path / "whole")


@pytest.mark.parametrize("refused", ["mkdir", "open"])
def test_a_folder_that_cannot_be_written_to_is_named_with_the_flag(tmp_path, monkeypatch, refused):
    def refuse(path: Any, *_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(*((Path, "mkdir") if refused == "mkdir" else (run_folder, "open")), refuse, raising=False)
    with pytest.raises(PermissionError, match=f"Permission denied. .* choose another one with --out DIR: '{tmp_path}"):
        run("scratch", tmp_path / "run")


def test_a_run_is_not_resumed_where_its_results_could_not_be_written(tmp_path, monkeypatch):
    """The metrics and the checkpoints' folder may be written to, the run's folder not."""
    run("scratch", tmp_path / "run", max_steps=2)
    before = contents(tmp_path / "run")
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path / "run" and allowed(path, mode))
    with pytest.raises(PermissionError, match=f"Permission denied. .* choose another one with --out DIR: '{tmp_path}"):
        run("scratch", tmp_path / "run", max_steps=4, resume=True)
    assert contents(tmp_path / "run") == before


def test_metrics_that_cannot_be_cut_are_named(tmp_path, monkeypatch):
    """As where the file may only be appended to."""
    folder = folder_of(tmp_path)
    with folder.opened(pytest.fail):

        class AppendOnly:
            def truncate(self, length: int) -> None:
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        with monkeypatch.context() as patched:
            patched.setattr(folder, "_file", AppendOnly())
            with pytest.raises(PermissionError, match=r"metrics.jsonl: Operation not permitted. No checkpoint"):
                folder.cut(0)


@pytest.mark.parametrize("name", ["weights.safetensors", "summary.json", "confusion.json"])
def test_results_that_cannot_be_written_are_named_and_made_again(name, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        synced = os.replace

        def full(source: Path, to: Path) -> None:
            if to.name == name:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source))
            synced(source, to)

        patched.setattr(os, "replace", full)
        with pytest.raises(OSError, match=re.escape(f"No space left on device: '{tmp_path / name}'")):
            run("scratch", tmp_path)
    assert list(tmp_path.rglob("*.unfinished")) == []
    assert run("scratch", tmp_path, resume=True)["steps"] == 3
    assert (tmp_path / name).exists()


# --- signals ----------------------------------------------------------------------------------------------------------


@side_by_side
@pytest.mark.posix
def test_a_closed_terminal_saves(side, tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with after_step(2, lambda _: os.kill(os.getpid(), signal.SIGHUP)), pytest.raises(session.InterruptedRunError):
        run(side, tmp_path)
    assert checkpoints_of(tmp_path)[-1].name == "step-000000002.safetensors"
    assert signal.signal(signal.SIGHUP, before) == signal.SIG_DFL


@pytest.mark.posix
@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT"])
def test_a_signal_that_is_ignored_stays_ignored(name, tmp_path):
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_IGN)  # as nohup does, or a shell for background jobs
    try:
        with after_step(2, lambda _: os.kill(os.getpid(), number)):
            assert run("scratch", tmp_path)["steps"] == 3
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


@side_by_side
@pytest.mark.posix
def test_a_second_ctrl_c_while_saving_leaves_no_half_file(side, tmp_path, monkeypatch):
    run(side, tmp_path / "whole")
    synced, folder = os.fsync, tmp_path / "run"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupted(descriptor: int) -> None:
        synced(descriptor)
        if list(folder.rglob(".step-*.unfinished")):
            os.kill(os.getpid(), signal.SIGINT)

    def stop(_: session.Run) -> None:
        monkeypatch.setattr(os, "fsync", interrupted)
        os.kill(os.getpid(), signal.SIGINT)

    with after_step(1, stop), pytest.raises(KeyboardInterrupt):
        run(side, folder)
    monkeypatch.setattr(os, "fsync", synced)
    signal.signal(signal.SIGINT, before)
    assert list(folder.rglob("*.unfinished")) == []
    assert [path.name for path in checkpoints_of(folder)] == ["step-000000000.safetensors"]
    run(side, folder, resume=True)
    assert weights_of(folder) == weights_of(tmp_path / "whole")


def test_a_command_that_is_interrupted_prints_a_line(capsys):
    def interrupted(_: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:  # as compiled modules do during their import
            raise ImportError("initialization failed") from error

    for train in (interrupted, lambda _: (_ for _ in ()).throw(KeyboardInterrupt)):
        with pytest.raises(SystemExit) as left:
            session.command(lambda options, train=train: next(train(options)), None)  # type: ignore[arg-type, misc]
        assert left.value.code == 130
        assert capsys.readouterr().err == "interrupted\n"


@pytest.fixture
def cut():
    """A stream that nothing reads."""
    read, write = os.pipe()
    os.close(read)
    with open(write, "w", buffering=1) as stream:
        yield stream


def test_output_that_is_cut_off_stops_no_run(tmp_path, monkeypatch, cut):
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", cut)
        assert run("scratch", tmp_path)["steps"] == 3


@pytest.mark.posix
def test_a_closed_terminal_changes_no_exit_code(tmp_path, monkeypatch, cut):
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with monkeypatch.context() as patched, after_step(2, lambda _: os.kill(os.getpid(), signal.SIGTERM)):
        patched.setattr(sys, "stderr", cut)
        with pytest.raises(SystemExit) as left:
            session.command(lambda _: run("scratch", tmp_path), Options())
    signal.signal(signal.SIGTERM, before)
    assert left.value.code == 130
    assert checkpoints_of(tmp_path)[-1].name == "step-000000002.safetensors"
