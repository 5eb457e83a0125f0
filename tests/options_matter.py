"""What each flag of the trainers does to a run: it decides what is learned, or it does not change a single bit.

:data:`ROWS` has a row for each flag, with a run in which the flag would show, and a check of what it does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import scratch
from alexnet_from_scratch.data import ahead, loader
from alexnet_from_scratch.runs.checkpoints import Purpose, seeds
from alexnet_from_scratch.runs.options import spelled
from tests.runs import SIDES, checkpoints_of, contents, data_of, dataset, run, weights_of

# Three batches an epoch, the last of two images; mirror images count, so that ten crops differ from one.
BASE: dict[str, Any] = {"epochs": 2, "max_steps": None, "checkpoint_every": 100, "keep": 5}


@dataclass(frozen=True)
class Outcome:
    """What a run has left, and what could be seen meanwhile."""

    folder: Path
    steps: int
    held_out_loss: float
    weights: dict[str, bytes]
    losses: list[float]
    seen: dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A flag's other value, the flags with which it shows, and a check of both runs."""

    value: Any
    check: Callable[[str, str, Outcome, Outcome], None]
    given: dict[str, Any] = field(default_factory=dict)
    sides: tuple[str, ...] = tuple(SIDES)


def check_option(side: str, name: str, folder: Path) -> None:
    """Train twice, with the flag's value changed the second time, and check the difference."""
    row = ROWS[name]
    with dataset(replace(data_of(), mirror=True)):
        first, second = (
            _outcome(side, folder / which, **{**BASE, **row.given, **flags})
            for which, flags in (("first", {}), ("second", {name: row.value}))
        )
        row.check(side, name, first, second)


def check_seed(side: str, part: str, folder: Path) -> None:
    """Train with two seeds of which only one part of the run hears: "weights", "dropout", "order", or none, ""."""
    module = SIDES[side][0]

    def heard(seed: int, purpose: Purpose, step: int = 0) -> Any:
        return seeds(seed if purpose.name.lower() == part else 0, purpose, step)

    def loading(split: Any, preprocessing: Any, batch: int, seed: int, *rest: int) -> Any:
        return loader.Loader(split, preprocessing, batch, seed if part == "order" else 0, *rest)

    with dataset(data_of()), pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "seeds", heard)
        patched.setattr(module, "Loader", loading)
        for seed in (0, 1):
            run(side, folder / str(seed), seed=seed, max_steps=2)
    same = weights_of(folder / "0") == weights_of(folder / "1")
    assert same == (part == ""), f"another seed changes {'nothing' if same else 'more than it should'}: {part}"


def check_defaults(side: str) -> None:
    """What a run without flags learns from, and how: the examples in the documentation count on it."""
    found = asdict(SIDES[side][1]())
    assert {name: found[name] for name in DEFAULTS} == DEFAULTS
    assert not any(value for name, value in found.items() if name not in DEFAULTS), found


def _outcome(side: str, folder: Path, **flags: Any) -> Outcome:
    with _watched(side) as seen:
        summary = run(side, folder, **flags)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    return Outcome(folder, summary["steps"], summary["held_out_loss"], weights_of(folder), losses, seen)


@contextmanager
def _watched(side: str) -> Iterator[dict[str, Any]]:
    """See how many threads compute and read, which tensors are channels_last, how often a compiled network ran, and in what.

    That is the type of its logits in training.
    """
    seen: dict[str, Any] = {"workers": set(), "threads": set(), "channels_last": set(), "compiled": 0, "computed in": set()}
    module = SIDES[side][0]
    threads = scratch.get_num_threads(), torch.get_num_threads()

    def reading(*args: Any, workers: int, real: Any = ahead.ahead) -> Any:
        seen["workers"].add(workers)
        return real(*args, workers=workers)

    def step(self: Any, *args: Any, real: Any = module.SGD.step) -> Any:
        seen["threads"].add((scratch if side == "scratch" else torch).get_num_threads())
        for group in getattr(self, "param_groups", []):
            windows = [w for w in group["params"] if w.ndim == 4 and w.shape[1] > 1]
            seen["channels_last"] |= {w.is_contiguous(memory_format=torch.channels_last) for w in windows}
        return real(self, *args)

    def loss(self: Any, logits: Any, labels: Any, *, real: Any = module.CrossEntropyLoss.forward) -> Any:
        seen["computed in"].add(f"{logits.dtype}")
        return real(self, logits, labels)

    def compiled(network: Any, **options: Any) -> Any:
        assert options == {"options": {"reorder_for_peak_memory": False}}

        def called(images: Any) -> Any:
            seen["compiled"] += 1
            return network(images)

        return called

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loader, "ahead", reading)
        patched.setattr(module.SGD, "step", step)
        patched.setattr(module.CrossEntropyLoss, "forward", loss)
        patched.setattr(torch, "compile", compiled)
        yield seen
    scratch.set_num_threads(threads[0])
    torch.set_num_threads(threads[1])


# --- what a flag may do -----------------------------------------------------------------------------------------------


def decides(side: str, name: str, first: Outcome, second: Outcome) -> None:
    assert first.weights != second.weights, f"{spelled(name)} changes no weight"
    _refused(side, name, first)


def is_refused_later(side: str, name: str, first: Outcome, second: Outcome) -> None:
    """It may change rounding, or only what is read: a run that began without it may not go on with it."""
    _refused(side, name, first)


def _refused(side: str, name: str, first: Outcome) -> None:
    before = contents(first.folder)
    flags = {**BASE, **ROWS[name].given, name: ROWS[name].value}
    with pytest.raises(ValueError, match=rf"belongs to a run with .*{spelled(name)} .*cannot change"):
        run(side, first.folder, resume=True, **flags)
    assert contents(first.folder) == before


def changes_no_bit(side: str, name: str, first: Outcome, second: Outcome) -> None:
    assert first.weights == second.weights, f"{spelled(name)} changes what is learned"
    assert first.losses == second.losses


def and_shows(shows: Callable[[Outcome], Any]) -> Callable[[str, str, Outcome, Outcome], None]:
    """It changes no bit of what is learned, but it changes what ``shows`` looks at."""

    def check(side: str, name: str, first: Outcome, second: Outcome) -> None:
        changes_no_bit(side, name, first, second)
        assert shows(second) == ROWS[name].value, f"{spelled(name)} does nothing"
        assert shows(first) != ROWS[name].value

    return check


def computes_on_threads(side: str, name: str, first: Outcome, second: Outcome) -> None:
    """On scratch's side not a bit depends on how many. torch promises no more than the same result up to rounding."""
    assert (_only(first.seen["threads"]), _only(second.seen["threads"])) == (1, 2)
    if side == "scratch":
        changes_no_bit(side, name, first, second)
    else:
        assert second.losses == pytest.approx(first.losses, rel=1e-5)


def ends_earlier(side: str, name: str, first: Outcome, second: Outcome) -> None:
    """The run is the same as far as it goes."""
    assert second.steps == {"epochs": 3, "max_steps": 2}[name]
    assert first.losses[: second.steps] == second.losses


def changes_the_evaluation(side: str, name: str, first: Outcome, second: Outcome) -> None:
    changes_no_bit(side, name, first, second)
    assert first.held_out_loss != second.held_out_loss, f"{spelled(name)} does not change the evaluation"


def lays_out_the_weights(side: str, name: str, first: Outcome, second: Outcome) -> None:
    assert (first.seen["channels_last"], second.seen["channels_last"]) == ({False}, {True})
    _refused(side, name, first)


def computes_in_bfloat16(side: str, name: str, first: Outcome, second: Outcome) -> None:
    """Not in float16, whose largest number is 65504: without a scale for the loss, gradients would vanish."""
    assert (first.seen["computed in"], second.seen["computed in"]) == ({"torch.float32"}, {"torch.bfloat16"})
    decides(side, name, first, second)


def compiles(side: str, name: str, first: Outcome, second: Outcome) -> None:
    assert (first.seen["compiled"], second.seen["compiled"]) == (0, second.steps)
    _refused(side, name, first)


def _only(values: set[int]) -> int:
    (value,) = values
    return value


# All others are off or not given.
DEFAULTS: dict[str, Any] = {
    "data": "digits",
    "variant": "mini",
    "init": "torch",
    "dropout": 0.5,
    "batch": 32,
    "epochs": 25,
    "lr": 0.004,
    "schedule": "steps",
    "patience": 5,
    "lr_every": 20,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "update": "torch",
    "workers": 2,
    "device": "cpu",
    "checkpoint_every": 100,
    "keep": 3,
}
IMAGES = {"data": "imagefolder", "data_dir": "somewhere"}
# A rate that drops after the first epoch, and a run in which the held-out error stays: with such a small rate no answer changes.
ROWS: dict[str, Row] = {
    "init": Row("paper", decides),
    "dropout": Row(0.25, decides),
    "batch": Row(3, decides),
    "lr": Row(2e-4, decides),
    "schedule": Row("plateau", decides, {"epochs": 7}),
    "patience": Row(2, decides, {"epochs": 3, "schedule": "plateau", "patience": 1}),
    "lr_every": Row(2, decides, {"lr_every": 1}),
    "momentum": Row(0.5, decides),
    "weight_decay": Row(0.1, decides),
    "update": Row("paper", decides, {"lr_every": 1}),
    "seed": Row(1, decides),
    "amp": Row(True, computes_in_bfloat16, sides=("torch_impl",)),
    "channels_last": Row(True, lays_out_the_weights, sides=("torch_impl",)),
    "compile": Row(True, compiles, sides=("torch_impl",)),
    "data": Row("photographs", is_refused_later),
    "skip_broken": Row(True, is_refused_later, IMAGES),
    "data_dir": Row("elsewhere", changes_no_bit, IMAGES),
    "epochs": Row(1, ends_earlier),
    "max_steps": Row(2, ends_earlier),
    "ten_crops": Row(True, changes_the_evaluation),
    "threads": Row(2, computes_on_threads),
    "workers": Row(3, and_shows(lambda outcome: _only(outcome.seen["workers"]))),
    "checkpoint_every": Row(1, and_shows(lambda outcome: 1 if len(checkpoints_of(outcome.folder)) == 5 else 100)),
    "keep": Row(1, and_shows(lambda outcome: len(checkpoints_of(outcome.folder)))),
    "no_pictures": Row(False, and_shows(lambda outcome: not list(outcome.folder.glob("*.svg")))),
}
