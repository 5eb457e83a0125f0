"""Another process obeys commands; here the object that it serves is the module ``os`` itself."""

from __future__ import annotations

import importlib
import os

import pytest

from benchmarks.measure.processes import POOLS, Process, WorkerError


@pytest.fixture
def process():
    with Process(3, importlib.import_module, "os", EXTRA="more") as process:
        yield process


def test_commands_are_answered_by_another_process(process: Process) -> None:
    assert process.ask("getpid") != os.getpid()
    assert process.ask("fspath", "x") == "x"


def test_every_pool_is_set_from_outside(process: Process) -> None:
    assert {process.ask("getenv", pool) for pool in POOLS} == {"3"}
    assert process.ask("getenv", "EXTRA") == "more"


def test_what_is_printed_does_not_disturb_the_answers(process: Process) -> None:
    process.ask("write", 1, b"noise\n")
    assert process.ask("fspath", "x") == "x"


def test_errors_come_back(process: Process) -> None:
    with pytest.raises(WorkerError) as caught:
        process.ask("fspath", 1)
    assert caught.value.reason.startswith("TypeError: expected str")
    assert process.ask("fspath", "x") == "x"


def test_a_process_that_died_is_reported(process: Process) -> None:
    with pytest.raises(WorkerError, match="ended with code 7"):
        process.ask("_exit", 7)


def test_closing_ends_the_process() -> None:
    with Process(1, importlib.import_module, "os") as process:
        pass
    assert process.process.returncode is not None
