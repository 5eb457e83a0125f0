"""What a picture must show, checked by a function that :mod:`tests.mutants_training` also runs on planted mistakes."""

from __future__ import annotations

import numpy as np

from alexnet_from_scratch.runs import pictures


def check_curves() -> None:
    """2,000 steps in 200 stretches of ten: the line is their mean, the band leaves out the lowest and the highest tenth."""
    steps = [{"step": i + 1, "loss": 0.1 * (i * 7 % 10), "accuracy": 0.05 * (i * 3 % 10), "lr": 1.0} for i in range(2000)]
    for axis, unit in zip(pictures.curves(steps).axes, (0.1, 0.05), strict=True):
        (band,) = axis.collections
        heights = np.asarray(band.get_paths()[0].vertices)[:, 1]
        np.testing.assert_allclose((heights.min(), heights.max()), (0.9 * unit, 8.1 * unit))
        across, means = (np.asarray(data) for data in axis.lines[0].get_data())
        np.testing.assert_allclose(means, np.full(200, 4.5 * unit))
        np.testing.assert_allclose(across, 5.5 + 10 * np.arange(200))
