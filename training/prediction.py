"""The command line of ``python -m SIDE.predict``, and the tables that it prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from training.data_packages import optional
from training.screen import complain, failing_plainly
from training.text import CommandLine, shown

Predictor = Callable[[str], tuple[Callable[[str], np.ndarray], Sequence[str]]]
"""From a file of weights to what gives an image's probabilities (classes,), by its path, and the names of the classes."""
SHOWN = 5


def command(side: str, predictor: Predictor) -> None:
    """Print the likeliest classes of each image on the command line.

    An image that cannot be read is reported, the others are predicted all the same, and the exit code is 1.
    """
    parser = CommandLine(f"python -m {side}.predict", "What a trained network sees in images.")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="JPEG, PNG or another common format")
    parser.add_argument("--weights", required=True, metavar="FILE", help="a run's weights.safetensors")
    arguments = parser.parse_args()
    failed = False
    with failing_plainly():
        Console, Table, Text = (
            getattr(optional(f"rich.{name.lower()}", "rich", extra="train"), name) for name in ("Console", "Table", "Text")
        )
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
