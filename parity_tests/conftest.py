"""One option chooses how long the suite looks: ``--profile quick``, ``default`` or ``deep``; another the oracle's device."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, settings

PROFILES = {"quick": 15, "default": 300, "deep": 10_000}  # cases for each operation, rung and dtype

for name, examples in PROFILES.items():
    settings.register_profile(
        name,
        max_examples=examples,
        deadline=None,  # nothing here asserts a time
        print_blob=True,  # a failure's one-line recipe
        suppress_health_check=[HealthCheck.too_slow],
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("parity")
    group.addoption("--profile", choices=PROFILES, default="default", help="how many cases: quick, default or deep")
    group.addoption("--device", choices=("cpu", "cuda"), default="cpu", help="where torch runs")


def pytest_configure(config: pytest.Config) -> None:
    # torch, once, about its own speed
    config.addinivalue_line("filterwarnings", "ignore:Using padding='same' with even kernel lengths:UserWarning")
    settings.load_profile(config.getoption("--profile"))
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    name = request.config.getoption("--device")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("--device cuda: torch sees no GPU here")
    return name
