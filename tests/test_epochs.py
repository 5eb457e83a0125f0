"""More than one epoch, on both sides: what each step does, and what a resumed run repeats (see ``epochs.py``)."""

from __future__ import annotations

import pytest

from tests.epochs import (
    check_epochs,
    check_evaluated_again,
    check_interrupted_evaluation,
    check_mirrors,
    check_plateau_resumed,
    check_resumed,
    check_shares,
)
from tests.runs import side_by_side


@side_by_side
def test_three_epochs_do_what_they_should(side, tmp_path):
    check_epochs(side, tmp_path)


@side_by_side
@pytest.mark.parametrize("update", ["torch", "paper"])
def test_a_run_resumed_inside_its_second_epoch_is_the_same(side, update, tmp_path):
    check_resumed(side, tmp_path, update=update)


@side_by_side
def test_a_run_without_momentum_is_resumed(side, tmp_path):
    check_resumed(side, tmp_path, momentum=0.0)


@side_by_side
def test_the_schedule_hears_of_all_shares(side, tmp_path):
    check_shares(side, tmp_path)


@side_by_side
def test_an_ended_run_is_evaluated_again_on_other_threads(side, tmp_path):
    check_evaluated_again(side, tmp_path)


@side_by_side
def test_a_plateaus_patience_survives_a_stop(side, tmp_path):
    check_plateau_resumed(side, tmp_path)


@side_by_side
def test_a_stop_during_an_evaluation_comes_after_it(side, tmp_path):
    check_interrupted_evaluation(side, tmp_path)


@side_by_side
def test_images_are_mirrored_where_that_keeps_their_class(side, tmp_path):
    check_mirrors(side, tmp_path)
