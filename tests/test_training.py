"""The trainer: its steps are those of the operations, its folder is complete, its errors are plain, and processes share a run."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import scratch.predict
import scratch.train
import torch_impl.modules
import torch_impl.train
from alexnet_from_scratch.data.datasets import open_dataset
from alexnet_from_scratch.runs import files, options, session
from alexnet_from_scratch.runs.options import Options
from alexnet_from_scratch.variants import VARIANTS
from scratch.alexnet import AlexNet
from scratch.modules import Dropout
from torch_impl.train import TorchOptions

SIDES: dict[str, Any] = {"scratch": (scratch.train.train, Options), "torch_impl": (torch_impl.train.train, TorchOptions)}
TINY: dict[str, Any] = {"batch": 4, "max_steps": 4, "checkpoint_every": 3, "threads": 1, "workers": 1, "no_pictures": True}
side_by_side = pytest.mark.parametrize("side", SIDES)


def run(side: str, folder: Path, **flags: Any) -> dict[str, Any]:
    train, kind = SIDES[side]
    return train(kind(out=str(folder), **{**TINY, **flags}))


def weights_of(folder: Path) -> dict[str, np.ndarray]:
    return files.read_header(folder / "weights.safetensors", "weights").read()


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_close(one: Path, other: Path) -> None:
    """The weights differ only by the rounding of a few steps."""
    others = weights_of(other)
    for name, array in weights_of(one).items():
        if name.startswith("network."):
            assert np.abs(array - others[name]).max() <= 1e-5 * np.abs(array).max(), name


def losses_of(folder: Path) -> list[float]:
    return [line["loss"] for line in metrics_of(folder) if "loss" in line]


@side_by_side
def test_a_run_leaves_everything(side, tmp_path):
    summary = run(side, tmp_path)
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert (summary["side"], summary["variant"], summary["data"], summary["steps"]) == (side, "mini", "digits", 4)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        f"step-{step:09}.safetensors" for step in (0, 3, 4)
    ]
    steps, [evaluation] = metrics_of(tmp_path)[:-1], metrics_of(tmp_path)[-1:]
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    assert all(line["loss"] > 0 and 0 <= line["accuracy"] <= 1 and line["lr"] > 0 for line in steps)
    assert evaluation["held_out_accuracy"] == summary["held_out_accuracy"]
    _, _, classes = scratch.predict.load(tmp_path / "weights.safetensors")  # whichever side trained them
    assert classes == tuple("0123456789")


@side_by_side
def test_the_same_seed_gives_the_same_bits(side, tmp_path):
    for name, flags in {"a": {}, "b": {"workers": 3}, "c": {"seed": 1}}.items():
        run(side, tmp_path / name, max_steps=2, **flags)
    a, b, c = (weights_of(tmp_path / name)["network.classifier.6.weight"] for name in "abc")
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


@side_by_side
def test_a_longer_run_goes_on_where_a_shorter_one_ended(side, tmp_path):
    run(side, tmp_path / "whole", max_steps=6)
    run(side, tmp_path / "parts", max_steps=2)
    run(side, tmp_path / "parts", max_steps=6, resume=True)
    whole, parts = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    for name, array in whole.items():
        assert np.array_equal(array, parts[name]), name
    assert losses_of(tmp_path / "whole") == losses_of(tmp_path / "parts")


def test_resuming_what_is_finished_changes_nothing(tmp_path):
    summary = run("scratch", tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert run("scratch", tmp_path, resume=True) == summary
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "already holds a run. Continue it with --resume, or start another with --out DIR"),
        ({"resume": True, "variant": "paper"}, "belongs to a run with --variant mini, not paper"),
        ({"resume": True, "batch": 5, "lr": 1}, "belongs to a run with --batch 4, not 5, --lr .*, not 1"),
    ],
)
def test_another_run_is_not_gone_on_with(tmp_path, flags, message):
    run("scratch", tmp_path, max_steps=1)
    with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path))}.*{message}"):
        run("scratch", tmp_path, **flags)


def test_how_a_run_is_tested_may_change_unless_the_learning_rate_hears_of_it(tmp_path):
    for schedule in ("steps", "plateau"):
        run("scratch", tmp_path / schedule, max_steps=1, schedule=schedule)
    assert run("scratch", tmp_path / "steps", schedule="steps", resume=True, ten_crops=True)["steps"] > 1
    with pytest.raises(ValueError, match="belongs to a run with --ten-crops False, not True"):
        run("scratch", tmp_path / "plateau", schedule="plateau", resume=True, ten_crops=True)


def test_the_other_sides_run_is_not_gone_on_with(tmp_path):
    run("scratch", tmp_path, max_steps=1)
    with pytest.raises(ValueError, match="must be a checkpoint of torch_impl in format 1, got one of scratch"):
        run("torch_impl", tmp_path, resume=True)


def test_other_images_are_not_gone_on_with(tmp_path, monkeypatch):
    run("scratch", tmp_path, max_steps=1)
    dataset = open_dataset("digits")
    fewer = replace(dataset, train=replace(dataset.train, labels=dataset.train.labels[:-1]))
    monkeypatch.setattr(scratch.train, "open_dataset", lambda *_, **__: fewer)
    with pytest.raises(ValueError, match="belongs to a run on other images than digits has now"):
        run("scratch", tmp_path, resume=True)


def test_metrics_that_were_cut_are_missed(tmp_path):
    run("scratch", tmp_path, max_steps=1)
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"metrics.jsonl: must have at least the \d+ bytes .* lines are lost"):
        run("scratch", tmp_path, resume=True)


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(tmp_path, capsys):
    run("scratch", tmp_path / "whole")
    run("scratch", tmp_path / "damaged")
    last = max((tmp_path / "damaged" / "checkpoints").iterdir())
    last.write_bytes(last.read_bytes()[:-1])
    run("scratch", tmp_path / "damaged", resume=True)
    assert f"{last}: must be a complete safetensors file" in capsys.readouterr().out
    whole, damaged = weights_of(tmp_path / "whole"), weights_of(tmp_path / "damaged")
    assert all(np.array_equal(array, damaged[name]) for name, array in whole.items())
    assert len(metrics_of(tmp_path / "damaged")) == len(metrics_of(tmp_path / "whole"))


def test_a_run_may_die_again_before_its_first_step_counts(tmp_path, monkeypatch):
    class DeathError(Exception):
        pass

    live = session.Run.batches
    for resume, steps in enumerate((1, 0)):

        def die(self, batches, steps=steps):
            yield from itertools.islice(live(self, batches), steps)
            raise DeathError

        with monkeypatch.context() as patched:
            patched.setattr(session.Run, "batches", die)
            with pytest.raises(DeathError):
                run("scratch", tmp_path, resume=bool(resume))
    run("scratch", tmp_path, resume=True)
    assert [line["step"] for line in metrics_of(tmp_path)] == [1, 2, 3, 4, 4]


@side_by_side
def test_a_run_that_diverges_says_so(side, tmp_path):
    with pytest.raises(FloatingPointError, match=r"training diverged: the loss of step \d+ is .*; try an --lr below"):
        run(side, tmp_path, lr=1e30)


@side_by_side
@pytest.mark.posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_says_how_to_go_on(side, number, tmp_path, monkeypatch):
    run(side, tmp_path / "whole")
    noted = session.Run.after_step
    before = signal.signal(number, signal.default_int_handler)  # a shell ignores Ctrl-C for background jobs

    def interrupted(self: session.Run, loss: float, correct: int) -> None:
        if self.position.step == 1:
            os.kill(os.getpid(), number)
        noted(self, loss, correct)

    monkeypatch.setattr(session.Run, "after_step", interrupted)
    with pytest.raises(session.InterruptedRunError, match=f"stopped after step 2; .*{side}.train --out .* --resume' continues"):
        run(side, tmp_path / "stopped")
    assert signal.signal(number, before) == signal.default_int_handler
    assert weights_of(tmp_path / "stopped")
    run(side, tmp_path / "stopped", resume=True)
    whole, stopped = weights_of(tmp_path / "whole"), weights_of(tmp_path / "stopped")
    assert all(np.array_equal(array, stopped[name]) for name, array in whole.items())


def test_a_run_can_train_outside_the_main_thread(tmp_path):
    thread = threading.Thread(target=run, args=("scratch", tmp_path), kwargs={"max_steps": 1})
    thread.start()
    thread.join()
    assert weights_of(tmp_path)


@pytest.mark.parametrize("update", ["torch", "paper"])
def test_both_sides_take_the_same_steps(update, tmp_path, monkeypatch):
    # From the same weights, and without dropout, whose masks differ.
    flags = {"dropout": 0.0, "max_steps": 3, "update": update, "lr": 1e-3}
    start = {
        name: torch.from_numpy(array) for name, array in AlexNet("mini", 10, rng=np.random.default_rng(0)).state_dict().items()
    }
    for module in (scratch.train, torch_impl.train):

        def same(*args: Any, _kind: Any = module.AlexNet, _torch: bool = module is torch_impl.train, **kwargs: Any) -> Any:
            model = _kind(*args, **kwargs)
            model.load_state_dict(start if _torch else {name: tensor.numpy() for name, tensor in start.items()})
            return model

        monkeypatch.setattr(module, "AlexNet", same)
    summaries = [run(side, tmp_path / side, **flags) for side in SIDES]
    assert_close(tmp_path / "scratch", tmp_path / "torch_impl")
    np.testing.assert_allclose(losses_of(tmp_path / "scratch"), losses_of(tmp_path / "torch_impl"), rtol=1e-5)
    np.testing.assert_allclose(summaries[0]["held_out_loss"], summaries[1]["held_out_loss"], rtol=1e-5)


def masks_of(network: torch.nn.Module) -> list[Any]:
    return [module.mask for module in network.modules() if isinstance(module, torch_impl.modules.Dropout)]


@side_by_side
def test_dropout_depends_on_seed_and_step_alone(side):
    def drop(seed: int, step: int) -> np.ndarray:
        if side == "scratch":
            model = AlexNet("mini", 10)
            scratch.train.seed_dropout(model, seed, step)
            layers = [module for _, module in model.named_modules() if isinstance(module, Dropout)]
            return np.stack([layer(np.ones((6, 256), np.float32)) != 0 for layer in layers])
        network = torch_impl.alexnet.AlexNet("mini", 10)
        torch_impl.train.draw_masks(network, seed, step, 6, torch_impl.train.Workers(0, 1, torch.device("cpu")))
        return np.stack(masks_of(network))

    first = drop(0, 0)
    assert np.array_equal(first, drop(0, 0))
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first, drop(0, 1))
    assert not np.array_equal(first, drop(1, 0))
    assert 0.4 < first.mean() < 0.6


@pytest.mark.parametrize("variant", VARIANTS)
def test_masks_fit_every_variant_and_are_dealt_out_in_rows(variant):
    def masks(rank: int, world: int) -> list[torch.Tensor]:
        model = torch_impl.alexnet.AlexNet(variant, 10, device="meta")
        torch_impl.train.draw_masks(model, 0, 0, 5, torch_impl.train.Workers(rank, world, torch.device("cpu")))
        return masks_of(model)

    shares = [masks(rank, 3) for rank in range(3)]
    for layer, whole in enumerate(masks(0, 1)):
        assert torch.equal(torch.cat([share[layer] for share in shares]), whole)
        assert whole.shape[0] == 5


def test_resume_takes_the_flags_that_are_not_given(tmp_path):
    run("scratch", tmp_path, max_steps=1, lr=0.003)
    parsed = Options.parse("scratch", ["--out", str(tmp_path), "--resume", "--max-steps", "2"])
    expected: dict[str, Any] = {**TINY, "max_steps": 2, "lr": 0.003}
    assert parsed == Options(out=str(tmp_path), **expected, resume=True)


@pytest.mark.parametrize(("side", "device"), [("scratch", "cuda"), ("torch_impl", "mps")])
def test_a_device_that_is_not_there(side, device, tmp_path):
    with pytest.raises(ValueError, match=f"--device must be cpu.*got '{device}'"):
        run(side, tmp_path, device=device)
    assert list(tmp_path.iterdir()) == []


def test_numbers_do_not_depend_on_how_often_they_are_saved(tmp_path):
    for every in (1, 100):
        run("scratch", tmp_path / str(every), checkpoint_every=every)
    assert (tmp_path / "1" / "weights.safetensors").read_bytes() == (tmp_path / "100" / "weights.safetensors").read_bytes()


# --- several processes ------------------------------------------------------------------------------------------------


# Two processes, with a checkpoint after two steps; the second process is killed after three. The first is slow to leave its run,
# so that torchrun asks it to stop before it can say what happened.
LOSES_ONE = """
import os, signal, time
from torch_impl.train import TorchOptions, train
from alexnet_from_scratch.runs import session

def after_step(self, loss, correct, noted=session.Run.after_step):
    noted(self, loss, correct)
    if self.position.step == 3 and not self.main:
        os.kill(os.getpid(), signal.SIGKILL)

def leave(self, *error, left=session.Run.__exit__):
    left(self, *error)
    time.sleep(1)

session.Run.after_step = after_step
session.Run.__exit__ = leave
session.command(train, TorchOptions.parse("torch_impl"))
"""


@pytest.mark.posix
def test_two_processes_do_as_one_until_one_is_lost_and_go_on_alone_or_together(tmp_path):
    flags = {"batch": 5, "lr": 0.001, "checkpoint_every": 2, "max_steps": 5}  # 5 images for two processes: 2 and 3
    run("torch_impl", tmp_path / "one", **flags)
    (tmp_path / "loses_one.py").write_text(LOSES_ONE)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    given = {**TINY, **flags}.items()
    spelled = [word for name, value in given for word in (options.spelled(name), str(value)) if word != "True"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    lost = subprocess.run(
        [*command, str(tmp_path / "loses_one.py"), *spelled, "--out", str(tmp_path / "two")],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert lost.returncode != 0
    assert "error: process 0 of 2 lost another one. Continue from the last checkpoint with --resume" in lost.stderr
    assert sorted(path.name for path in (tmp_path / "two" / "checkpoints").iterdir())[-1] == "step-000000002.safetensors"
    np.testing.assert_allclose(losses_of(tmp_path / "two"), losses_of(tmp_path / "one")[:3], rtol=1e-5)

    shutil.copytree(tmp_path / "two", tmp_path / "together")
    run("torch_impl", tmp_path / "two", **flags, resume=True)
    together = [*command, "-m", "torch_impl.train", "--out", str(tmp_path / "together"), "--resume"]
    subprocess.run(together, env=environment, capture_output=True, check=True)  # only one of the two locks the folder
    for out in (tmp_path / "two", tmp_path / "together"):
        assert_close(out, tmp_path / "one")
        np.testing.assert_allclose(losses_of(out), losses_of(tmp_path / "one"), rtol=1e-5)


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # from torch.compile itself
@pytest.mark.parametrize("flag", ["channels_last", "compile", "amp"])
def test_torchs_own_flags_change_rounding_only(flag, tmp_path):
    run("torch_impl", tmp_path / "plain", lr=0.001, max_steps=3)
    run("torch_impl", tmp_path / flag, lr=0.001, max_steps=3, **{flag: True})
    # bfloat16 has 8 bits where float32 has 24.
    np.testing.assert_allclose(losses_of(tmp_path / flag), losses_of(tmp_path / "plain"), rtol=2**-8 if flag == "amp" else 1e-5)
