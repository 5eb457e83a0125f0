"""Every flag of the trainers matters, and only as it should."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from alexnet_from_scratch.runs.options import Options
from tests.options_matter import ROWS, check_defaults, check_option, check_seed
from tests.runs import FLAGS, SIDES, data_of, dataset, run, side_by_side, weights_of
from torch_impl.train import TorchOptions

# Tests below are about these: they need another network, another machine, another place or a run that has ended.
APART = {"variant", "device", "out", "resume"}


class SeenError(Exception):
    pass


def test_every_flag_has_a_row():
    assert {option.name for option in fields(TorchOptions)} == set(ROWS) | APART
    assert not set(ROWS) & APART
    own = {option.name for option in fields(TorchOptions)} - {option.name for option in fields(Options)}
    assert {name for name, row in ROWS.items() if "scratch" not in row.sides} == own


@side_by_side
def test_without_flags_a_run_is_what_it_was(side):
    check_defaults(side)


@pytest.mark.parametrize(("side", "name"), [(side, name) for name, row in ROWS.items() for side in row.sides])
def test_a_flag_matters_as_it_should(side, name, tmp_path):
    check_option(side, name, tmp_path)


@side_by_side
def test_the_run_is_in_the_folder_that_out_names(side, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with dataset(data_of()):
        run(side, tmp_path / "named", max_steps=1)
        module, kind = SIDES[side]
        module.train(kind(**{**FLAGS, "max_steps": 1}))
    assert weights_of(tmp_path / "named") == weights_of(tmp_path / f"runs/{side}-mini-digits")


@side_by_side
def test_resume_goes_on_or_changes_nothing(side, tmp_path):
    with dataset(data_of()):
        run(side, tmp_path / "whole", max_steps=3)
        run(side, tmp_path / "parts", max_steps=1)
        for _ in range(2):
            run(side, tmp_path / "parts", max_steps=3, resume=True)
            assert weights_of(tmp_path / "parts") == weights_of(tmp_path / "whole")


@side_by_side
def test_the_summary_counts_the_images_that_were_left_out(side, tmp_path):
    data = data_of()
    some = replace(data, train=replace(data.train, skipped=("a",)), test=replace(data.test, skipped=("b", "c")))
    with dataset(some):
        assert run(side, tmp_path, max_steps=1)["skipped_images"] == 3


@side_by_side
def test_the_data_are_those_that_the_flags_name(side, monkeypatch):
    def seen(*args: Any, **kwargs: Any) -> None:
        raise SeenError(args, kwargs)

    module, kind = SIDES[side]
    monkeypatch.setattr(module, "open_dataset", seen)
    flags = {"data": "imagefolder", "data_dir": "d", "skip_broken": True, "seed": 3, "workers": 5}
    for variant, size in (("mini", 28), ("one_tower", 256)):
        with pytest.raises(SeenError) as caught:
            module.train(kind(variant=variant, threads=1, **flags))
        assert caught.value.args == (("imagefolder", "d"), {"skip_broken": True, "seed": 3, "workers": 5, "for_size": size})


@side_by_side
@pytest.mark.parametrize("variant", ["mini", "one_tower"])
def test_the_network_is_the_one_that_the_flags_name(side, variant, monkeypatch):
    def seen(*args: Any, **kwargs: Any) -> None:
        kwargs.pop("rng", None)
        raise SeenError(args, kwargs)

    module, kind = SIDES[side]
    monkeypatch.setattr(module, "AlexNet", seen)
    with dataset(data_of(("a", "b", "c"))), pytest.raises(SeenError) as caught:
        module.train(kind(**{**FLAGS, "variant": variant, "dropout": 0.3, "init": "paper"}))
    assert caught.value.args == ((variant, 3), {"dropout": 0.3, "init": "paper"})


def test_scratch_runs_on_the_cpu_alone_and_torch_where_it_is_told(tmp_path):
    with dataset(data_of()):
        with pytest.raises(ValueError, match="--device must be cpu, the only device of scratch, got 'cuda'"):
            run("scratch", tmp_path / "scratch", device="cuda")
        if not torch.cuda.is_available():
            with pytest.raises(ValueError, match="--device must be cpu, or cuda where torch finds a GPU, got 'cuda'"):
                run("torch_impl", tmp_path / "torch_impl", device="cuda")


@side_by_side
@pytest.mark.parametrize("part", ["weights", "order", "dropout", ""])
def test_the_seed_decides_each_of_its_parts(side, part, tmp_path):
    check_seed(side, part, tmp_path)
