"""The command line of ``python -m SIDE.predict``, and the table that it prints."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from training.screen import failing_plainly

Predict = Callable[[str, str], tuple[np.ndarray, Sequence[str]]]
SHOWN = 5


def command(side: str, predict: Predict) -> None:
    """Print the likeliest classes of the image on the command line.

    ``predict`` takes the image's and the weights' path and returns probabilities (classes,) and the names of the classes.
    """
    parser = argparse.ArgumentParser(f"python -m {side}.predict", description="What a trained network sees in an image.")
    parser.add_argument("image", help="JPEG, PNG or another common format")
    parser.add_argument("--weights", required=True, metavar="FILE", help="a run's weights.safetensors")
    arguments = parser.parse_args()
    with failing_plainly():
        probabilities, classes = predict(arguments.image, arguments.weights)
    table = Table("class", "probability", title=Text(arguments.image))
    for i in np.argsort(-probabilities, kind="stable")[:SHOWN]:
        table.add_row(Text(classes[i]), f"{probabilities[i]:.2%}")
    Console().print(table)
