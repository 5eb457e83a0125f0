"""A resumed run continues as if nothing had happened, or says why it cannot: no flag is ignored, no checkpoint is trusted."""

from __future__ import annotations

import copy
import json
import re
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alexnet_from_scratch.runs import resuming, session
from alexnet_from_scratch.runs.checkpoints import Checkpoints
from alexnet_from_scratch.runs.options import Options
from alexnet_from_scratch.runs.run_folder import RunFolder
from tests.exact import check_fingerprint
from tests.odd_files import link, pipe
from tests.runs import (
    SIDES,
    after_step,
    checkpoints_of,
    contents,
    data_of,
    dataset,
    run,
    side_by_side,
    spoil,
    steps_of,
    weights_of,
)


@pytest.fixture(autouse=True)
def _tiny():
    with dataset(data_of()):
        yield


@pytest.fixture(scope="module", params=SIDES)
def begun(request, tmp_path_factory):
    """A side, the folder of a four-step run that was stopped after the third step, and the folder of one that was not."""
    folder = tmp_path_factory.mktemp(request.param)
    with dataset(data_of()):
        run(request.param, folder / "whole", max_steps=4)
        with after_step(3, lambda run: run._interrupt(15, None)), pytest.raises(session.InterruptedRunError):
            run(request.param, folder / "begun", max_steps=4)
    return request.param, folder / "begun", folder / "whole"


@pytest.fixture
def stopped(begun, tmp_path):
    """The same, with a copy of the stopped run."""
    side, folder, whole = begun
    return side, shutil.copytree(folder, tmp_path / "run"), whole


def parse(side: str, *words: str) -> Options:
    options: Options = SIDES[side][1].parse(side, words)
    return options


# --- flags ------------------------------------------------------------------------------------------------------------


@side_by_side
def test_where_there_is_no_run_none_is_gone_on_with(side, tmp_path):
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ValueError, match=f"{folder}: has no run to continue: .* holds no checkpoint"):
            run(side, folder, resume=True)
    assert list(tmp_path.iterdir()) == []


USELESS = [
    ("--patience 5", "--patience must come with --schedule plateau: with --schedule steps it does nothing"),
    ("--lr-every 20 --schedule plateau", "--lr-every must come with --schedule steps"),
    ("--data-dir d", "--data-dir must come with --data fashion-mnist or --data imagefolder: with --data digits it does"),
    ("--data-dir d --data photographs", "--data-dir must come with --data fashion-mnist"),
    ("--skip-broken", "--skip-broken must come with --data imagefolder"),
    ("--skip-broken --data fashion-mnist", "--skip-broken must come with --data imagefolder"),
    ("--data imagefolder", "--data imagefolder needs the folder that its images are in: --data-dir DIR"),
    ("--out=", "--out must name a folder, got nothing"),
    ("--data imagefolder --data-dir=", "--data-dir must name a folder, got nothing"),
    ("--threads 100000", "--threads must be 1024 or less, got 100000"),
    ("--workers 99999999999999999999", "--workers must be 1024 or less"),
]


@side_by_side
@pytest.mark.parametrize(("flags", "message"), USELESS)
def test_a_flag_that_does_nothing_is_refused(side, flags, message, capsys):
    with pytest.raises(SystemExit) as left:
        parse(side, *flags.split())
    assert left.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"batch": "4"}, "--batch must be int, got '4'"),
        ({"batch": True}, "--batch must be int, got True"),
        ({"lr": 10**400}, "--lr must be float, got 1000"),
        ({"out": Path("x")}, r"--out must be str \| None, got "),
        ({"variant": "vgg"}, "--variant must be one of .*, got 'vgg'"),
        ({"resume": 1}, "--resume must be bool, got 1"),
        ({"patience": 3}, "--patience must come with --schedule plateau"),
    ],
)
def test_options_of_other_types_are_refused(flags, message):
    with pytest.raises(ValueError, match=message):
        Options(**flags)


def test_fewer_steps_than_were_taken_are_refused(stopped):
    side, folder, _ = stopped
    before = contents(folder)
    with pytest.raises(ValueError, match="--epochs and --max-steps end the run after step 2, but it has already taken 3 steps"):
        run(side, folder, resume=True, max_steps=2)
    assert contents(folder) == before


def test_every_flag_that_may_change_has_its_effect_on_an_unfinished_run(stopped):
    side, folder, whole = stopped
    options = parse(side, "--out", str(folder), "--resume", "--epochs", "2", "--max-steps", "6", "--keep", "1")
    assert (options.epochs, options.max_steps, options.keep, options.batch) == (2, 6, 1, 4)
    summary = run(side, folder, resume=True, epochs=2, max_steps=6, keep=1, threads=2, workers=2, ten_crops=True)
    assert summary["steps"] == 6
    assert [path.name for path in checkpoints_of(folder)] == ["step-000000006.safetensors"]
    assert steps_of(folder) == [1, 2, 3, -3, 4, 5, 6, -6]
    assert steps_of(whole) == [1, 2, 3, -3, 4, -4]


def test_an_ended_run_is_evaluated_again_if_asked_for(begun, tmp_path, capsys):
    side, _, whole = begun
    folder = shutil.copytree(whole, tmp_path / "run")
    before = weights_of(folder)
    first = json.loads((folder / "summary.json").read_text())
    capsys.readouterr()
    again = run(side, folder, max_steps=4, resume=True, ten_crops=True)
    assert "the run ended after 4 steps; its last evaluation is repeated" in capsys.readouterr().out
    assert again["held_out_loss"] != first["held_out_loss"]
    assert json.loads((folder / "summary.json").read_text()) == again
    assert steps_of(folder) == [1, 2, 3, -3, 4, -4, -4]
    assert weights_of(folder) == before
    assert run(side, folder, max_steps=4, resume=True, ten_crops=True) == again  # as it was tested last
    assert "nothing is left to do" in capsys.readouterr().out


def test_a_folders_name_is_text(begun, tmp_path, capsys):
    side, _, whole = begun
    folder = shutil.copytree(whole, tmp_path / "[red]run[/]:smile:\x1b[2J")
    run(side, folder, max_steps=4, resume=True)
    out = capsys.readouterr().out
    assert r"[red]run[/]:smile:\x1b[2J: the run ended" in out
    assert "\x1b" not in out


@pytest.mark.parametrize("flags", [{"keep": 1}, {"threads": 2}, {"epochs": 30}, {"checkpoint_every": 1}, {"no_pictures": False}])
def test_an_ended_run_refuses_what_changes_nothing(begun, tmp_path, flags):
    side, _, whole = begun
    folder = shutil.copytree(whole, tmp_path / "run")
    before = contents(folder)
    (name,) = flags
    with pytest.raises(ValueError, match=f"ended after 4 steps, so another --{name.replace('_', '-')} changes nothing"):
        run(side, folder, max_steps=4, resume=True, **flags)
    assert contents(folder) == before


def test_a_pipe_is_no_summary(tmp_path):
    """Opened, it would wait for a writer forever."""
    folder = RunFolder(tmp_path, Checkpoints(tmp_path / "checkpoints", "scratch", 1))
    pipe(folder.summary)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(resuming.summary_of(folder, 1)), daemon=True)
    thread.start()
    thread.join(10)
    assert found == [None]


@pytest.mark.parametrize("lost", ["summary.json", "weights.safetensors"])
def test_results_that_are_gone_are_made_again(begun, tmp_path, lost):
    side, _, whole = begun
    folder = shutil.copytree(whole, tmp_path / "run")
    (folder / lost).unlink()
    run(side, folder, max_steps=4, resume=True)
    assert weights_of(folder) == weights_of(whole)
    assert json.loads((folder / "summary.json").read_text())["steps"] == 4


def test_a_run_that_has_moved_is_resumed_where_it_is(begun, tmp_path, monkeypatch):
    side, folder, _ = begun
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, f"runs/{side}-mini-digits")
    assert parse(side, "--resume").out is None
    assert parse(side, "--resume", "--out", f"runs/{side}-mini-digits").out == f"runs/{side}-mini-digits"


# --- checkpoints ------------------------------------------------------------------------------------------------------


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "mine").write_text("stays")


def as_fifo(path: Path) -> None:
    path.unlink()
    pipe(path)


def as_dangling_link(path: Path) -> None:
    path.unlink()
    link(path, "nowhere")


@pytest.mark.parametrize("make", [as_folder, as_fifo, as_dangling_link])
def test_a_newest_checkpoint_that_is_no_file_is_passed_over(stopped, make, capsys):
    side, folder, whole = stopped
    newest = checkpoints_of(folder)[-1]
    make(newest)
    run(side, folder, max_steps=4, resume=True)
    assert f"{newest}: " in (said := capsys.readouterr().out)
    assert "Trying the checkpoint before it" in said
    assert weights_of(folder) == weights_of(whole)
    assert steps_of(folder) == steps_of(whole)
    assert all(path.is_file() for path in checkpoints_of(folder))
    if make is as_folder:
        assert [path.read_text() for path in folder.rglob("mine")] == ["stays"]


def test_a_newest_checkpoint_that_cannot_be_read_is_passed_over(stopped, monkeypatch, capsys):
    side, folder, whole = stopped
    newest, opened = checkpoints_of(folder)[-1], Path.open

    def refused(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self == newest:
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refused)
    run(side, folder, max_steps=4, resume=True)
    assert f"{newest}: Permission denied" in capsys.readouterr().out
    assert weights_of(folder) == weights_of(whole)


def test_other_files_among_checkpoints_are_none(stopped):
    side, folder, whole = stopped
    for name in ("step-best.safetensors", "step-000000009.safetensors.bak", "notes"):
        (folder / "checkpoints" / name).write_text("mine")
    run(side, folder, max_steps=4, resume=True)
    assert weights_of(folder) == weights_of(whole)
    assert len(list((folder / "checkpoints").iterdir())) == 6


def test_steps_of_ten_digits_come_after_those_of_nine(tmp_path):
    checkpoints = Checkpoints(tmp_path, "scratch", 3)
    for step in (999_999_999, 1_000_000_000, 5):
        (tmp_path / f"step-{step:09}.safetensors").touch()
    assert [int(path.stem[5:]) for path in checkpoints.paths()] == [5, 999_999_999, 1_000_000_000]


def test_a_folder_in_a_checkpoints_place_is_moved_aside(tmp_path):
    checkpoints = Checkpoints(tmp_path, "scratch", 3)
    checkpoints.path(5).mkdir()
    (checkpoints.path(5) / "mine").write_text("stays")
    assert checkpoints.save(5, {"a": np.ones(3)}, {}).is_file()
    assert [path.read_text() for path in tmp_path.rglob("mine")] == ["stays"]


WEIGHT, VELOCITY = "network.features.0.weight", "velocity.features.0.weight"
# Changes to a checkpoint's state and arrays, and the resulting messages.
SPOILT: dict[str, tuple[Any, str]] = {
    "an array missing": (lambda state, arrays: arrays.pop(WEIGHT), f"{WEIGHT} is missing"),
    "a velocity missing": (lambda state, arrays: arrays.pop(VELOCITY), f"{VELOCITY} is missing"),
    "an array too many": (lambda state, arrays: arrays.update(more=arrays[WEIGHT]), "more must not be there"),
    "a shape": (lambda state, arrays: arrays.update({WEIGHT: arrays[WEIGHT][:1]}), rf"{WEIGHT} must be .* shape \(32, 1, 5, 5\)"),
    "a dtype": (
        lambda state, arrays: arrays.update({VELOCITY: arrays[VELOCITY].astype("f8")}),
        f"{VELOCITY} must be .*64",
    ),
    "a string as step": (lambda state, arrays: state["position"].update(step="3"), "position.step must be int, .* got '3'"),
    "NaN as step": (lambda state, arrays: state["position"].update(step=float("nan")), "position.step must be int, .* got nan"),
    "a step beyond the end": (lambda state, arrays: state["position"].update(step=5), "position.step must be int, 0 to 4, got 5"),
    "another step": (lambda state, arrays: state["position"].update(step=2, epoch=0, batch=2), "must have the name of step 2"),
    "a negative batch": (lambda state, arrays: state["position"].update(batch=-1), "position.batch must be int, 0 to 3, got -1"),
    "a huge epoch": (
        lambda state, arrays: state["position"].update(epoch=10**400),
        "position.step must be that of position.epoch",
    ),
    "a field missing": (lambda state, arrays: state["position"].pop("seconds"), "position must have .* without seconds"),
    "a field too many": (lambda state, arrays: state["position"].update(loss=1), "position must have .* with loss"),
    "negative seconds": (lambda state, arrays: state["position"].update(seconds=-1), "position.seconds must be float, 0 or more"),
    "fewer metrics": (lambda state, arrays: state["position"].update(metrics=3), "metrics.jsonl: "),
    "more metrics than memory": (lambda state, arrays: state["position"].update(metrics=10**15), "at least the 10{15} "),
    "more than any file has": (lambda state, arrays: state["position"].update(metrics=10**30), "at least the 10{30} "),
    "no metrics": (lambda state, arrays: state["position"].update(metrics=0), "must have one line for each of the 3 steps"),
    "another rate": (lambda state, arrays: state["position"]["schedule"].update(drops=1), "schedule.drops must be .* got 1"),
    "another start": (lambda state, arrays: state["position"]["schedule"].update(start=9), "schedule.start must be .* got 9"),
    "another kind": (lambda state, arrays: state["position"]["schedule"].update(kind=[]), r"schedule.kind must be .* got \[\]"),
    "an error above 1": (lambda state, arrays: state["position"]["schedule"].update(best=2), "best must be float, 0 to 1, got 2"),
    "epochs to come": (lambda state, arrays: state["position"]["schedule"].update(waited=9), "waited must be int, .* got 9"),
    "no position": (lambda state, arrays: state.pop("position"), "its state must have the fields options, data, position"),
    "another version's option": (lambda state, arrays: state["options"].update(nesterov=True), "options must .* with nesterov"),
    "an option too few": (lambda state, arrays: state["options"].pop("update"), "options must .* without update"),
    "an option of another type": (lambda state, arrays: state["options"].update(epochs="9"), "options: --epochs must be int"),
    "an option out of range": (lambda state, arrays: state["options"].update(batch=0), "options: --batch must be 1 or more"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_checkpoint_is_not_trusted_because_its_checksum_fits(stopped, what):
    side, folder, _ = stopped
    change, message = SPOILT[what]
    newest = checkpoints_of(folder)[-1]
    spoil(newest, lambda content, arrays: change(content["state"], arrays))
    before = contents(folder)
    with pytest.raises(ValueError, match=f"(?s)^{folder}.*{message}"):
        run(side, folder, max_steps=4, resume=True)
    assert contents(folder) == before
    if "option" in what or "no position" in what:
        with pytest.raises(SystemExit) as left:
            parse(side, "--resume", "--out", str(folder))
        assert left.value.code == 2


OTHERS = {
    "nothing": (lambda saved: None, ""),
    "sources": (lambda saved: saved.update({"scratch": "", "torch_impl": ""}), "another {side}"),
    "a library": (lambda saved: saved.update(numba="0.1", torch="0.1"), "another {library}"),
    "a processor": (lambda saved: saved.update(processor="Abacus", numpy="0.1"), "another .*processor"),
    "what was not noted": (lambda saved: saved.clear(), "another {side} and .* and processor"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_run_that_other_kernels_began_says_that_its_bits_differ(stopped, what, capsys):
    side, folder, _ = stopped
    change, other = OTHERS[what]
    spoil(checkpoints_of(folder)[-1], lambda content, arrays: change(content["arithmetic"]))
    run(side, folder, max_steps=4, resume=True)
    said = "".join(capsys.readouterr().out.split("\n"))
    if other:
        other = other.format(side=side, library="numba" if side == "scratch" else "torch")
        assert re.search(f"It was saved with {other}, so from here on its last bits differ", said), said
    else:
        assert "It was saved with" not in said


def test_a_checkpoint_of_an_earlier_version_may_be_resumed(stopped, capsys):
    side, folder, whole = stopped
    spoil(checkpoints_of(folder)[-1], lambda content, arrays: content.pop("arithmetic"))
    run(side, folder, max_steps=4, resume=True)
    assert "It was saved with an unknown version, so" in capsys.readouterr().out
    assert weights_of(folder) == weights_of(whole)


def test_the_seconds_of_all_parts_are_counted(stopped):
    side, folder, _ = stopped
    spoil(checkpoints_of(folder)[-1], lambda content, arrays: content["state"]["position"].update(seconds=1e6))
    assert run(side, folder, max_steps=4, resume=True)["seconds"] > 1e6
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["seconds"] > 1e6 for line in lines if "loss" in line] == [False] * 3 + [True]


def test_other_images_are_noticed():
    check_fingerprint()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([10**400, -1, 0, 3, "steps"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def places(value: Any, place: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths to all fields of a JSON object."""
    if not isinstance(value, dict):
        return [place]
    return [place, *(inner for name, part in value.items() for inner in places(part, (*place, name)))]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(st.data())
def test_whatever_a_checkpoint_says_the_run_is_the_same_or_refused(begun, tmp_path, data):
    side, folder, whole = begun
    copied = tmp_path / "run"
    shutil.rmtree(copied, ignore_errors=True)
    shutil.copytree(folder, copied)
    newest = checkpoints_of(copied)[-1]
    changed: list[str] = []

    def change(content: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        *outer, name = data.draw(st.sampled_from(places(copy.deepcopy(content))[1:]))
        holder = content
        for part in outer:
            holder = holder[part]
        match data.draw(st.sampled_from(["replace"] * 4 + ["remove", "add"])):
            case "replace":
                holder[name] = data.draw(JSON)
            case "remove":
                del holder[name]
            case "add":
                holder[name + "_"] = data.draw(JSON)
        changed.append(name)

    spoil(newest, change)
    try:
        run(side, copied, max_steps=4, resume=True)
    except ValueError as error:
        said = str(error)
        assert said.startswith(str(copied))
        # If two fields contradict each other, the message may name either; side and data are described.
        named = said.replace("-", "_")
        assert changed[0] in named or changed[0] in ("side", "data") or "position.step" in said
    else:
        assert weights_of(copied) == weights_of(whole)


# --- metrics ----------------------------------------------------------------------------------------------------------


def without_line(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))


def with_a_damaged_line(path: Path) -> None:
    first, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"\0" * (len(first) - 1) + b"\n" + b"".join(rest))


def with_a_line_of_text(path: Path) -> None:
    first, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b'"' + b"x" * (len(first) - 3) + b'"\n' + b"".join(rest))


def swapped(path: Path) -> None:
    first, second, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([second, first, *rest]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_line, "must have at least the .* bytes it had when step-000000003.safetensors was saved"),
        (with_a_damaged_line, "line 1 is damaged: "),
        (with_a_line_of_text, "line 1 is damaged: it is not an object of numbers"),
        (swapped, "must have one line for each of the 3 steps before step-000000003.safetensors"),
        (Path.unlink, "must have at least the .* bytes it had when .* got 0"),
        (as_folder, "must be a file"),
        (as_fifo, "must be a file"),
    ],
)
def test_damaged_metrics_are_named(stopped, damage, message):
    side, folder, _ = stopped
    damage(folder / "metrics.jsonl")
    with pytest.raises((ValueError, OSError), match=message) as caught:
        run(side, folder, max_steps=4, resume=True)
    assert "metrics.jsonl" in str(caught.value)
