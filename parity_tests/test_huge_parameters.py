"""Strides and windows far larger than the image: results are the same as with sizes just beyond it, and cost no more."""

from __future__ import annotations

import numpy as np
import pytest

import scratch
from scratch import conv2d, max_pool2d

HUGE = 2**62


def _there_and_back(operation, *arrays, **params) -> tuple[np.ndarray, ...]:
    out, cache = operation.forward(*arrays, **params)
    return out, *operation.backward(np.ones_like(out), cache)


@pytest.mark.parametrize("rung", conv2d.RUNGS)
@pytest.mark.parametrize("padding", [0, (1, 2), "valid"])
def test_a_stride_beyond_the_image_is_as_good_as_any_such(rung, padding):
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 3, 5, 7)), rng.standard_normal((4, 3, 3, 3))
    with scratch.use_rung(conv2d=rung):
        expected = _there_and_back(conv2d, x, weight, stride=(7, 11), padding=padding)
        actual = _there_and_back(conv2d, x, weight, stride=(HUGE, HUGE), padding=padding)
    for a, e in zip(actual[:3], expected[:3], strict=True):
        np.testing.assert_array_equal(a, e)


@pytest.mark.parametrize("rung", max_pool2d.RUNGS)
def test_a_window_beyond_the_image_costs_no_more_than_the_image(rung):
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 7))
    with scratch.use_rung(max_pool2d=rung):
        expected = _there_and_back(max_pool2d, x, kernel_size=20, stride=HUGE, padding=10)
        actual = _there_and_back(max_pool2d, x, kernel_size=HUGE, padding=HUGE // 2)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, e)
