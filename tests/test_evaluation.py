"""What an evaluation counts, on numbers that were counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alexnet_from_scratch.runs.evaluation import Evaluation
from tests.exact import check_empty_shares, check_ties

# Six classes. The label's rank in each row, counted by hand: 1, 5, 6, 2 and 5; class 0 comes before class 5 where they tie.
PROBABILITIES = np.array(
    [
        [0.50, 0.10, 0.10, 0.10, 0.10, 0.10],
        [0.05, 0.30, 0.25, 0.20, 0.19, 0.01],
        [0.05, 0.30, 0.25, 0.20, 0.19, 0.01],
        [0.00, 0.00, 0.40, 0.60, 0.00, 0.00],
        [0.05, 0.30, 0.25, 0.20, 0.15, 0.05],
    ]
)
LABELS = np.array([0, 0, 5, 2, 0])
TOP1, TOP5 = 1 / 5, 4 / 5
LOSS = -(math.log(0.5) + math.log(0.05) + math.log(0.01) + math.log(0.4) + math.log(0.05)) / 5


@pytest.mark.parametrize("batches", [[5], [2, 3], [1, 1, 1, 1, 1]], ids=str)
def test_it_counts_what_a_hand_counts(batches):
    evaluation, done = Evaluation.of(6), 0
    for size in batches:
        evaluation.add(PROBABILITIES[done : done + size], LABELS[done : done + size])
        done += size
    numbers = evaluation.numbers()
    assert numbers["held_out_accuracy"] == TOP1
    assert numbers["held_out_top5"] == TOP5
    assert numbers["held_out_loss"] == pytest.approx(LOSS, rel=1e-12)
    assert evaluation.images == 5
    expected = np.zeros((6, 6), int)
    for label, chosen in ((0, 0), (0, 1), (5, 1), (2, 3), (0, 1)):
        expected[label, chosen] += 1
    np.testing.assert_array_equal(evaluation.confusion, expected)


def test_with_five_classes_the_label_is_always_among_five():
    evaluation = Evaluation.of(5)
    evaluation.add(np.eye(5), np.array([4, 3, 2, 1, 0]))
    assert evaluation.numbers()["held_out_top5"] == 1
    assert evaluation.numbers()["held_out_accuracy"] == 1 / 5


def test_ties_are_in_the_order_of_the_classes():
    check_ties()


def test_a_process_without_images_counts_none():
    check_empty_shares()
