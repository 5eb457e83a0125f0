"""The command line: ``python -m alexnet_from_scratch.xray conv2d --input photo.jpg --kernel 3 --padding 1`` writes a page."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from alexnet_from_scratch.data.images import BrokenImageError
from alexnet_from_scratch.runs.files import NotWholeError
from alexnet_from_scratch.runs.screen import failing_plainly
from alexnet_from_scratch.text import CommandLine, shown
from alexnet_from_scratch.xray import photo
from alexnet_from_scratch.xray.network import network
from alexnet_from_scratch.xray.operations import OPERATIONS
from alexnet_from_scratch.xray.page import Xray, write
from alexnet_from_scratch.xray.tracing import TooLongError

PAGES: dict[str, Callable[..., Xray]] = {"network": network, **OPERATIONS}
WHOLE = (16, 16, 224)  # the part of a photograph that a network sees
FROM_ZERO = ("padding", "seed", "label")
INPUT = "a photograph; the default is scikit-image's cat"
CROP = "top, left and side of the square to use, in the photograph's 256×256 pixels; the default is its middle, or the cat's eye"
HELP = {
    "alpha": "factor of the mean square",
    "batch": "number of pieces of the photograph",
    "beta": "exponent",
    "ceil_mode": "also take a last window that reaches beyond the edge",
    "channels": "output channels of the convolution",
    "classes": "how many classes there are",
    "dilation": "distance between the window's taps",
    "features": "number of outputs",
    "k": "added to the mean square",
    "kernel": "height and width of the window",
    "label": "the right class",
    "lr": "learning rate of the first step; the second step has a tenth of it",
    "momentum": "how much of the velocity a step keeps",
    "output": "height and width of the output",
    "p": "the probability of dropping a value",
    "padding": "cells around the image",
    "seed": "seed of everything that is drawn at random",
    "size": "pixels that the photograph's square is scaled to",
    "stride": "step of the window",
    "update": "'torch' or 'paper'",
    "variant": "which network: one_tower, paper, torchvision or mini",
    "weight_decay": "how much of the weight is added to its gradient",
    "weights": "a run's weights.safetensors; by default mini has the shipped network's, and the others' are drawn at random",
    "window": "channels in a window",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the requested page, or all pages, and print where it is."""
    parser, commands = _parser()
    given = vars(parser.parse_args(arguments))
    book = given.pop("book", None)
    name, path, region, out = (given.pop(key) for key in ("page", "input", "crop", "out"))
    with failing_plainly():  # reports what is wrong with a file; the parser reports what is wrong with a flag
        try:
            photograph = photo.load(path, region)
            for page in PAGES if name == "all" else [name]:
                siblings = list(PAGES) if name == "all" else []
                target = out / f"{page}.html" if name == "all" else out
                print(shown(write_page(page, photograph, target, siblings, book, **given)))
        except (BrokenImageError, NotWholeError):
            raise
        except TooLongError as error:
            commands[name].error(f"{name}: the kernel {error}")
        except (ValueError, TypeError) as error:
            commands[name].error(str(error))


def write_page(
    name: str, photograph: photo.Photo, path: Path, siblings: Sequence[str] = (), book: str | None = None, **options: Any
) -> Path:
    """Trace one operation on the photograph and write its page; it links to the book in the folder ``book``.

    Raises:
        ValueError: the options contradict each other, or the page would be too large.
    """
    xray = PAGES[name](photograph, **options)
    xray.photograph = photograph.name
    xray.command = _choices(name, photograph, options)
    seen = xray.tape.arrays.get("x")
    if seen is not None and seen.values.shape == (1, 3, *seen.values.shape[2:]):
        xray.panel("x").picture = photograph.square(seen.values.shape[2])
    xray.thumbnail = (photograph._replace(region=WHOLE) if name == "network" else photograph).thumbnail()
    chapter = "network" if name == "network" else f"operations/{name}"
    return write(xray, path, siblings, "" if book is None else f"{book}/{chapter}.html")


def _choices(name: str, photograph: photo.Photo, options: dict[str, Any]) -> list[dict[str, Any]]:
    """What the page was made with, as the form on it shows it: flag, value, default and help."""
    parameters = list(inspect.signature(PAGES[name]).parameters.values())[1:]
    path = "" if photograph.path is None else shown(photograph.path)
    cropped = {"flag": "--crop", "value": photograph.crop, "default": "", "help": CROP}
    return [
        {"flag": "--input", "value": path, "default": "", "help": INPUT},
        *([cropped] if name != "network" else []),  # a network sees all of its photograph
        *(
            {
                "flag": _flag(parameter.name),
                "value": options.get(parameter.name, parameter.default),
                "default": parameter.default,
                "help": HELP[parameter.name],
            }
            for parameter in parameters
        ),
    ]


def _flag(option: str) -> str:
    return "--" + option.replace("_", "-")


def _parser() -> tuple[CommandLine, dict[str, CommandLine]]:
    parser = CommandLine("python -m alexnet_from_scratch.xray", "Write a page that tells how each number was made.")
    common = CommandLine(add_help=False)
    common.add_argument("--input", type=Path, help=INPUT)
    common.add_argument("--crop", type=int, nargs=3, metavar=("TOP", "LEFT", "SIDE"), help=CROP)
    pages = parser.add_subparsers(dest="page", required=True, metavar="PAGE")
    every = pages.add_parser("all", parents=[common], help="every page with its defaults; the pages link to each other")
    every.add_argument("--out", type=Path, required=True, help="folder to write to")
    every.add_argument("--book", help="folder of the built book, relative to --out; the pages link to its chapters")
    commands = {"all": every}
    for name, build in PAGES.items():
        summary = (build.__doc__ or "").splitlines()[0]
        command = commands[name] = pages.add_parser(
            name, parents=[common], help=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        command.add_argument("--out", type=Path, default=Path(f"build/xray/{name}.html"), help="file to write")
        for option, parameter in list(inspect.signature(build).parameters.items())[1:]:
            flag, default = _flag(option), parameter.default
            if isinstance(default, bool):
                command.add_argument(flag, action="store_true", default=default, help=HELP[option])
            elif isinstance(default, int):
                least = 0 if option in FROM_ZERO else 1
                command.add_argument(flag, type=_at_least(least), metavar="N", default=default, help=HELP[option])
            else:
                command.add_argument(flag, type=type(default), metavar=option.upper(), default=default, help=HELP[option])
    return parser, commands


def _at_least(least: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be an int, got {text!r}") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {number}")
        return number

    return integer


if __name__ == "__main__":
    main()
