"""The command line of ``python -m SIDE.predict``, and the tables that it prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from alexnet_from_scratch.packages import optional
from alexnet_from_scratch.runs.screen import complain, failing_plainly
from alexnet_from_scratch.text import CommandLine, shown

Predictor = Callable[[str], tuple[Callable[[str], np.ndarray], Sequence[str]]]
"""Takes a file of weights; returns a function from an image's path to its probabilities (classes,), and the classes' names."""
SHOWN = 5
SHIPPED = Path(__file__).parents[1] / "networks" / "mini-fashion-mnist" / "weights.safetensors"


def command(side: str, predictor: Predictor) -> None:
    """Print the likeliest classes of each image on the command line.

    An image that cannot be read is reported and the others are still predicted; the exit code is then 1.
    """
    parser = CommandLine(f"python -m {side}.predict", "What a trained network sees in images.")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="JPEG, PNG or another common format")
    parser.add_argument(
        "--weights", default=str(SHIPPED), metavar="FILE", help="a run's weights.safetensors; default: the shipped network's"
    )
    arguments = parser.parse_args()
    failed = False
    with failing_plainly():
        Console, Table, Text = (getattr(optional(f"rich.{name.lower()}"), name) for name in ("Console", "Table", "Text"))
        console = Console()
        probabilities_of, classes = predictor(arguments.weights)
        for image in arguments.images:
            try:
                probabilities = probabilities_of(image)
            except (ValueError, OSError) as error:
                complain(error)
                failed = True
                continue
            table = Table()
            table.add_column("class", overflow="fold")
            table.add_column("probability")
            for i in np.argsort(-probabilities, kind="stable")[:SHOWN]:
                table.add_row(Text(shown(classes[i])), f"{probabilities[i]:.2%}")
            console.print(Text(shown(image)), soft_wrap=True)
            console.print(table)
    if failed:
        raise SystemExit(1)
