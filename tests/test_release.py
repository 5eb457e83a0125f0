"""What a release needs: one version number everywhere, and files that the host of the repository understands."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import scratch
import torch_impl
from alexnet_from_scratch import __version__
from tests import release

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_there_is_one_version_number() -> None:
    assert set(release.versions().values()) == {__version__}
    assert scratch.__version__ == torch_impl.__version__ == __version__
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert pyproject["project"]["dynamic"] == ["version"]
    assert pyproject["tool"]["hatch"]["version"]["path"] in release.PLACES


@pytest.fixture
def dated(tmp_path: Path) -> Path:
    """The files with a version number, with a date in the changelog."""
    for file in release.PLACES:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        text = (ROOT / file).read_text(encoding="utf-8")
        text = re.sub(r"^(## \[.*\]) - .*$", r"\1 - 2026-12-31", text, count=1, flags=re.MULTILINE)
        (tmp_path / file).write_text(text, encoding="utf-8")
    return tmp_path


def test_a_tag_of_this_version_may_be_released(dated: Path) -> None:
    assert release.problems(f"v{__version__}", dated) == []


@pytest.mark.parametrize("file", release.PLACES)
def test_another_number_in_one_file_is_found(file: str, dated: Path) -> None:
    text = (dated / file).read_text(encoding="utf-8")
    (dated / file).write_text(text.replace(__version__, "9.8.7", 1), encoding="utf-8")
    (problem,) = release.problems(f"v{__version__}", dated)
    assert problem == f"{file}: its version must be the tag's, v{__version__}, got 9.8.7"


@pytest.mark.parametrize("date", ["unreleased", "2026-13-01", ""])
def test_a_version_without_a_date_is_found(date: str, dated: Path) -> None:
    changelog = dated / "CHANGELOG.md"
    changelog.write_text(changelog.read_text(encoding="utf-8").replace("2026-12-31", date, 1), encoding="utf-8")
    (problem,) = release.problems(f"v{__version__}", dated)
    assert "must have its date" in problem


def test_another_tag_is_refused_by_the_command() -> None:
    command = [sys.executable, "-m", "tests.release"]
    ended = subprocess.run([*command, "9.8.7"], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 1
    assert ended.stderr.count("must be the tag's, 9.8.7") == len(release.PLACES)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_commands_that_exist(workflow: Path) -> None:
    """Make's targets, the project's scripts and its modules."""
    text = workflow.read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for command in re.findall(r"^ *- run: (.*)$", text, re.MULTILINE):
        if called := re.match(r"make ([a-z-]+)", command):
            assert called[1] in targets
        elif called := re.match(r"bash (\S+)", command):
            assert (ROOT / called[1]).is_file()
        elif called := re.match(r"python -m (tests|scratch)\.(\w+)", command):
            assert (ROOT / called[1] / f"{called[2]}.py").is_file()
        else:
            assert command.startswith(("make $", "pip install ", "python -m "))
    for row in re.findall(r"target: \[(.*)\]", text):
        assert set(row.split(", ")) <= set(targets)


def test_windows_runs_the_lines_that_are_documented() -> None:
    documented = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    windows = (ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8").partition("\n  windows:\n")[2]
    commands = re.findall(r"^ *- run: (.*)$", windows, re.MULTILINE)
    assert commands
    for command in commands:
        assert re.search(rf"^{re.escape(command)}( +#.*)?$", documented, re.MULTILINE), command


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_every_action_has_a_version(workflow: Path) -> None:
    for action in re.findall(r"uses: (\S+)", workflow.read_text(encoding="utf-8")):
        assert action.startswith("./") or re.search(r"@v\d[\d.]*$", action), action
