"""Options: ``--profile=quick``, ``default`` or ``deep`` sets how long the suite searches; others set the device and the
report.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from parity_tests.mutants import CASES
from parity_tests.report import Report
from scratch import get_num_threads
from scratch.compiled.emission import VECTOR_BITS
from scratch.compiled.jit import JIT_OFF

KERNELS_ON_DISK = ("test_kernel_cache", "test_kernel_code")
PROFILES = {"quick": 10, "default": CASES, "deep": 3000}  # cases for each operation, rung and dtype
# Whole networks and what is built from them: too slow for the edit loop, and for kernels in plain Python.
NETWORKS = (
    "test_networks",
    "test_training",
    "test_options_matter",
    "test_epochs",
    "test_training_mutants",
    "test_resume",
    "test_run_folder",
    "test_commands",
    "test_checkpoints",
    "test_weights",
    "test_weights_broken",
    "test_weights_written",
    "test_convert",
    "test_convert_strangers",
    "test_predict",
    "test_pictures",
    "test_xray",
    "test_xray_browser",
    "test_docs",
    "test_book_browser",
    "test_notebook",
    "test_accuracy",
)
NOT_QUICK = (
    "test_mutants",
    "test_core_mutants",
    "test_exact",
    "test_long_sums",
    "test_environment",
    "test_exercises",
    "test_vector_widths",  # it compiles everything again
    *KERNELS_ON_DISK,
    *NETWORKS,
)

LONGEST = ("test_vector_widths",)  # these begin first, or a process would be alone with them at the end

REPORT = pytest.StashKey[Report]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("parity")
    group.addoption("--profile", choices=PROFILES, default="default", help="how many cases: quick, default or deep")
    group.addoption(
        "--draws",
        choices=("same", "fresh"),
        default="same" if "CI" in os.environ else "fresh",
        help="whether the cases are those of every run, or new ones; by default the same in CI, and new by hand",
    )
    group.addoption("--device", choices=("cpu", "cuda"), default="cpu", help="where torch computes its side")
    group.addoption("--report", type=Path, help="folder for parity.md, parity.json and parity.svg; also shrinks the mutants")


@pytest.hookimpl(tryfirst=True)  # before Hypothesis looks for its seed
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "planted: plants a mistake; the default profile draws a third of them by its seed")
    config.addinivalue_line("markers", "posix: needs forks, signals or permissions as POSIX has them; skipped on other systems")
    same = config.getoption("--draws") == "same"
    if hasattr(config, "workerinput"):
        config.option.hypothesis_seed = config.workerinput["seed"]
    elif config.getoption("--hypothesis-seed") in (None, "random"):
        config.option.hypothesis_seed = "0" if same else str(random.SystemRandom().randrange(2**32))
    # torch warns once about its own speed
    config.addinivalue_line("filterwarnings", "ignore:Using padding='same' with even kernel lengths:UserWarning")
    settings.register_profile(
        "chosen",
        max_examples=PROFILES[config.getoption("--profile")],
        deadline=None,  # nothing here asserts a time
        derandomize=same,
        print_blob=True,  # a failure's one-line recipe
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("chosen")
    # On a GPU: float32 all the way, and no cuDNN, whose faster algorithms (Winograd, FFT) keep to no elementwise bound.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.enabled = False
    config.stash[REPORT] = Report()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not hasattr(os, "fork"):
        for item in items:
            if item.get_closest_marker("posix"):
                item.add_marker(pytest.mark.skip(reason="needs forks, signals or permissions as POSIX has them"))
    left_out = NOT_QUICK if config.getoption("--profile") == "quick" else NETWORKS if JIT_OFF else ()
    slow = {item for item in items if item.path.stem in left_out}
    if config.getoption("--profile") == "default" and not config.getoption("--report"):
        seed = config.getoption("--hypothesis-seed")
        planted = {item for item in items if item.get_closest_marker("planted")}
        slow |= {item for item in planted if random.Random(f"{seed} {item.nodeid}").random() > 1 / 3}
    config.hook.pytest_deselected(items=list(slow))
    items[:] = sorted((item for item in items if item not in slow), key=lambda item: item.path.stem not in LONGEST)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    config = session.config
    folder, report = config.getoption("--report"), config.stash[REPORT]
    if hasattr(config, "workeroutput"):  # one of pytest-xdist's processes: the report is written by the one that started it
        config.workeroutput["report"] = report.packed()
    elif folder:
        names = ("--profile", "--device", "--hypothesis-seed")
        report.write(folder, *map(config.getoption, names), int(exitstatus))


@pytest.hookimpl(wrapper=True, tryfirst=True)  # after pytest's own summary: these are the last lines but one
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> Iterator[None]:
    """What was proven, with what, how to repeat it, and what was skipped."""
    yield
    for line in config.stash[REPORT].summary():
        terminalreporter.write_line(line)
    seed, profile = config.getoption("--hypothesis-seed"), config.getoption("--profile")
    versions = f"torch {torch.__version__}, NumPy {np.__version__}"
    terminalreporter.write_line(
        f"{versions}, vectors of {VECTOR_BITS} bits, {get_num_threads()} threads, profile {profile}; to repeat the draws: "
        f"--draws={config.getoption('--draws')} --hypothesis-seed={seed}"
    )
    reasons = Counter(each.longrepr[2].removeprefix("Skipped: ") for each in terminalreporter.getreports("skipped"))
    skipped = "; ".join(f"{count} ({reason})" for reason, count in reasons.most_common())
    terminalreporter.write_line(f"skipped: {skipped or 'nothing'}")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """All of pytest-xdist's processes draw by the seed of the one that starts them."""
    node.workerinput["seed"] = node.config.getoption("--hypothesis-seed")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    if not error:
        node.config.stash[REPORT].add(**node.workeroutput["report"])


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> Report:
    return request.config.stash[REPORT]


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    name = request.config.getoption("--device")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("--device cuda: torch sees no GPU here")
    return name
