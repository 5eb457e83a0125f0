"""What both walkthroughs share: the photograph, the table of the stages, their pictures, and the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_from_scratch.data import datasets
from alexnet_from_scratch.data.images import read_image
from alexnet_from_scratch.packages import optional
from alexnet_from_scratch.text import CommandLine, shown

SIDE = 256  # height and width to which the photograph is scaled
CHANNELS = 8  # how many channels of each stage are drawn

Stages = Iterable[tuple[str, Any]]  # a stage's name, and its array or tensor


def command(side: str, walk: Callable[[Path | None], Stages]) -> None:
    """``python -m SIDE.walkthrough``: show the stages of ``walk``, which takes the photograph's path."""
    parser = CommandLine(f"python -m {side}.walkthrough", "The tutorial that this project grew from, step by step.")
    parser.add_argument("--input", type=Path, metavar="IMAGE", help="a photograph of yours; the default is scikit-image's cat")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="also draw each stage's first channels into this folder")
    options = parser.parse_args()
    show(walk(options.input), options.pictures)


def photograph(path: Path | None) -> np.ndarray:
    """The pixels of the image at ``path``, or of scikit-image's cat: uint8, (H,W) or (H,W,3).

    Raises:
        BrokenImageError, OSError, ModuleNotFoundError: as ``read_image`` and ``datasets.photographs`` do.
    """
    return datasets.photographs()["chelsea"] if path is None else read_image(path, SIDE)


def show(stages: Stages, pictures: Path | None = None) -> None:
    """Print shape, mean, standard deviation and maximum of every stage; draw each into the folder ``pictures``, if given."""
    print(f"{'stage':<32}{'shape':<20}{'mean':>10}{'std':>10}{'max':>10}")
    for number, (stage, made) in enumerate(stages):
        x = np.asarray(made)
        print(f"{stage:<32}{x.shape!s:<20}{x.mean():>10.4g}{x.std():>10.4g}{x.max():>10.4g}")
        if pictures:
            _draw(x, stage, pictures / f"{number:02}.png")
    if pictures:
        print(f"The stages' pictures are in {shown(pictures)}")


def _draw(x: np.ndarray, stage: str, path: Path) -> None:
    """Draw the first channels of ``x[0]`` in a row, for x (N,C,H,W): those of the first image or of the first filter."""
    planes = x[0, :CHANNELS]
    figure = optional("matplotlib.figure").Figure(figsize=(1.3 * len(planes) + 0.2, 2), layout="constrained")
    peak = float(abs(planes).max()) or 1.0
    for axis, plane in zip(figure.subplots(1, len(planes), squeeze=False)[0], planes, strict=True):
        axis.axis("off")
        axis.imshow(plane, cmap="RdBu_r", vmin=-peak, vmax=peak)
    what = f"{len(planes)} of {x.shape[1]} channels" if len(planes) < x.shape[1] else f"{len(planes)} channels"
    filters = f" of the first of {len(x)} filters" if len(x) > 1 else ""
    figure.suptitle(f"{stage}\n{what}{filters}; red is above zero, blue below", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
