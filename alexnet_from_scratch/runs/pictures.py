"""Pictures of what a run has learned and how it learned, from the files in its folder. matplotlib draws them as PNG and SVG.

=============  ==========================  ================================================================================
picture        drawn from                  what it shows
=============  ==========================  ================================================================================
filters        weights.safetensors         what conv1 looks for, as in the paper's figure 3
activations    weights.safetensors, image  what each layer makes of an image
curves         metrics.jsonl               loss and accuracy, in training and on held-out images
confusion      confusion.json              which classes are confused with which
=============  ==========================  ================================================================================

Two results that are not in a run's metrics are saved next to them: the confusion matrix, and ``example.png``, a held-out image to
try the network with. A picture whose file is missing is left out.
"""

from __future__ import annotations

import io
import itertools
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alexnet_from_scratch.data.datasets import Dataset
from alexnet_from_scratch.packages import optional
from alexnet_from_scratch.runs import files
from alexnet_from_scratch.runs.run_folder import metrics_of
from alexnet_from_scratch.runs.screen import failing_plainly
from alexnet_from_scratch.runs.weights import open_weights
from alexnet_from_scratch.signs import require_file
from alexnet_from_scratch.text import CommandLine, shown

if TYPE_CHECKING:  # a run also works where matplotlib is not installed
    from matplotlib.figure import Figure

Stages = Callable[[Path | str, Path | str], tuple[list[tuple[str, np.ndarray]], Sequence[str]]]
"""Takes the paths of an image and of weights; returns each layer's name and output, (C,H,W) or (n,), and the classes' names.

The last output is the probabilities.
"""

TRAINING, HELD_OUT = "#1d4ed8", "#c2410c"
CHANNELS = 16  # how many of a layer's channels are shown
POINTS = 200  # how many means make up a curve of steps
LONGEST = 24  # letters shown of a class's name
ANNOTATED = 20  # up to this many classes, a confusion matrix has room for numbers


def keep_confusion(folder: Path, confusion: np.ndarray, dataset: Dataset) -> None:
    """Save the confusion matrix next to metrics and weights.

    Raises:
        OSError: the file could not be written.
    """
    content = {"classes": dataset.classes, "confusion": confusion.tolist()}
    files.write_bytes(folder / "confusion.json", json.dumps(content).encode())


def keep_example(folder: Path, dataset: Dataset) -> None:
    """Save the first held-out image.

    Raises:
        ModuleNotFoundError: Pillow is not installed.
        OSError: the file could not be written.
    """
    content = io.BytesIO()
    optional("PIL.Image").fromarray(dataset.test.image(0)).save(content, "PNG")
    files.write_bytes(folder / "example.png", content.getvalue())


def draw(folder: Path, stages: Stages, image: Path | str | None = None, out: Path | None = None) -> tuple[list[Path], list[str]]:
    """Draw what the folder has files for. If one picture fails, the others are still drawn.

    Args:
        folder: the run's.
        stages: runs an image through the network.
        image: the path of that image; by default the example that the run saved.
        out: where the pictures go; by default into ``folder``.

    Returns:
        the pictures' paths, and for each missing one the reason.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        FileNotFoundError: the folder holds nothing to draw from.
        OSError: the pictures cannot be written; then none of them is.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # without a home folder, it reports at length where its caches are
    matplotlib = optional("matplotlib")
    weights, metrics, confused = (folder / name for name in ("weights.safetensors", "metrics.jsonl", "confusion.json"))
    example = Path(image or folder / "example.png")
    figures: dict[str, Callable[[], Figure]] = {}
    if weights.exists():
        figures["filters"] = lambda: filters(open_weights(weights).first_layer())
    if image is not None or (weights.exists() and example.exists()):
        figures["activations"] = lambda: activations(*stages(example, weights))
    if metrics.exists() and metrics.stat().st_size > 0:
        figures["curves"] = lambda: curves(metrics_of(metrics, metrics.read_bytes()))
    if confused.exists():
        figures["confusion"] = lambda: confusion(*_confusion_of(confused))
    if not figures:
        raise FileNotFoundError(f"{folder}: holds no run: weights.safetensors, metrics.jsonl and confusion.json are all missing")
    contents: dict[str, bytes] = {}
    problems = []
    # The names of classes are plain text, even if matplotlib would take one for a formula. The user's settings do not count.
    settings = {"text.parse_math": False, "svg.hashsalt": "run", "svg.fonttype": "none"}
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # a box in the PNG; the SVG has the text
        for name, figure in figures.items():
            try:
                contents |= _drawn(name, figure())
            except Exception as error:
                problems.append(f"{name}: {error or type(error).__name__}")
    return _write(out or folder, contents), problems


def _drawn(name: str, figure: Figure) -> dict[str, bytes]:
    """The contents of the figure's files, a PNG and an SVG."""
    _lay_out(figure)
    contents = {}
    for suffix, metadata in (("png", {}), ("svg", {"Date": None})):
        content = io.BytesIO()
        figure.savefig(content, format=suffix, dpi=130, metadata=metadata)
        contents[f"{name}.{suffix}"] = content.getvalue()
    return contents


def _write(folder: Path, contents: dict[str, bytes]) -> list[Path]:
    """Write the files; if there is no room for all, write none of them."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder) as unfinished:
        for name, content in contents.items():
            try:
                files.write_bytes(Path(unfinished, name), content)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(folder / name)) from error
        for name in contents:
            os.replace(Path(unfinished, name), folder / name)
    files.sync_folder(folder)
    return [folder / name for name in contents]


def _confusion_of(path: Path) -> tuple[np.ndarray, list[str]]:
    """The matrix and the classes in the file. If the file does not hold them, a ValueError names the file."""
    require_file(path)  # opening a pipe might wait forever
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        counts, classes = np.array(content["confusion"]), [str(name) for name in content["classes"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path}: must hold classes and confusion, got: {error}") from error
    if counts.shape != (len(classes),) * 2 or counts.dtype.kind != "i" or counts.size == 0 or counts.min() < 0:
        raise ValueError(f"{path}: confusion must be counts of shape {(len(classes),) * 2}, got {counts.dtype} {counts.shape}")
    return counts, classes


def filters(weight: np.ndarray) -> Figure:
    """The filters (OC,C,KH,KW), sixteen in a row: zero is grey, and each filter's largest weight is fully bright or dark."""
    OC, C, KH, KW = weight.shape
    shown = 0.5 + 0.5 * weight / np.abs(weight).max(axis=(1, 2, 3), keepdims=True).clip(np.finfo(np.float32).tiny)
    columns = 16
    rows = -(-OC // columns)
    sheet = np.ones((rows * (KH + 1) - 1, columns * (KW + 1) - 1, C))
    for i in range(OC):
        top, left = i // columns * (KH + 1), i % columns * (KW + 1)
        sheet[top : top + KH, left : left + KW] = shown[i].transpose(1, 2, 0)
    figure = _figure(10, 0.6 + 10 * rows / columns)
    axis = figure.subplots()
    axis.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="none")
    axis.set_axis_off()
    axis.set_title(f"conv1: {OC} filters, {KH}×{KW}{'' if C == 1 else f'×{C}'}; grey is zero")
    return figure


def activations(stages: list[tuple[str, np.ndarray]], classes: Sequence[str]) -> Figure:
    """An image's way through the network. Of the layers around a ReLU, the channels with its largest mean outputs are drawn."""
    (_, image), *layers, (_, probabilities) = stages
    maps = [(name, out) for name, out in layers if out.ndim == 3]
    vectors = [(name, out) for name, out in layers if out.ndim == 1]
    strongest = {}
    for name, out in maps:
        if name.startswith("relu"):
            strongest[name[-1]] = np.argsort(-out.mean(axis=(1, 2)), kind="stable")[:CHANNELS]

    heights = [1.6, *[0.95] * len(maps), *[0.4] * len(vectors), 2.2]
    figure = _figure(13, 0.8 * sum(heights))
    axes = figure.subplots(len(heights), 1, height_ratios=heights)
    low, high = image.min(), image.max()
    shown = ((image - low) / max(high - low, np.finfo(np.float32).tiny)).transpose(1, 2, 0)
    axes[0].imshow(shown, cmap="gray", interpolation="none")
    axes[0].set_axis_off()
    axes[0].set_title(f"the image, {_shape(image)}, without the mean image", fontsize=9)
    for axis, (name, out) in zip(axes[1:-1], maps + vectors, strict=True):
        limit = float(np.abs(out).max()) or 1.0
        # Before ReLU, values may be negative: red and blue, with white for zero.
        colours, low = ("RdBu_r", -limit) if name.startswith(("conv", "fc")) else ("magma", 0)
        tiles = out[strongest[name[-1]]] if out.ndim == 3 else out[np.newaxis, np.newaxis]
        for i, tile in enumerate(tiles):
            width = 0.9 if out.ndim == 3 else CHANNELS
            axis.imshow(
                tile, extent=(i, i + width, 0, 0.9), aspect="auto", interpolation="none", cmap=colours, vmin=low, vmax=limit
            )
        axis.set(xlim=(0, CHANNELS), ylim=(0, 0.9), xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        axis.set_ylabel(f"{name}\n{_shape(out)}", rotation=0, ha="right", va="center", fontsize=7)
    likeliest = np.argsort(-probabilities, kind="stable")[:10]
    axes[-1].bar(range(len(likeliest)), probabilities[likeliest], color=TRAINING)
    axes[-1].set_xticks(range(len(likeliest)), [_label(classes[i]) for i in likeliest])
    axes[-1].set(ylim=(0, 1), ylabel="probability")
    axes[-1].tick_params(labelsize=8)
    return figure


def curves(lines: list[dict[str, Any]]) -> Figure:
    """Loss and accuracy from a run's metrics. Steps are averaged over stretches; a band shows the middle 80 % of each stretch."""
    steps = [line for line in lines if "loss" in line]
    if not steps:
        raise ValueError("no step has been taken")
    evaluations = [line for line in lines if "held_out_loss" in line]
    figure = _figure(11, 4)
    for axis, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        stretches = np.array_split(np.array([(line["step"], line[name]) for line in steps]), min(POINTS, len(steps)))
        middle = [stretch[:, 0].mean() for stretch in stretches]
        low, high = np.array([np.quantile(stretch[:, 1], (0.1, 0.9)) for stretch in stretches]).T
        axis.fill_between(middle, low, high, color=TRAINING, alpha=0.2, lw=0)
        axis.plot(middle, [stretch[:, 1].mean() for stretch in stretches], color=TRAINING, label="training, and its middle 80 %")
        axis.plot(
            [line["step"] for line in evaluations],
            [line[f"held_out_{name}"] for line in evaluations],
            "o-",
            color=HELD_OUT,
            ms=4,
            label="held out",
        )
        drops = [after["step"] for before, after in itertools.pairwise(steps) if after["lr"] < before["lr"]]
        for i, step in enumerate(drops):
            axis.axvline(step, color="gray", lw=1, ls=":", label="learning rate falls" if i == 0 else None)
        axis.set(xlabel="step", ylabel=name)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    if evaluations:
        figure.suptitle(f"held-out accuracy after {evaluations[-1]['step']:,} steps: {evaluations[-1]['held_out_accuracy']:.2%}")
    return figure


def confusion(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """The matrix (classes,classes): how many images of each class (row) were predicted as each class (column)."""
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
    right = counts.trace() / counts.sum().clip(1)
    size = min(4 + 0.45 * len(classes), 14)
    figure = _figure(size + 0.5, size)
    axis = figure.subplots()
    # The square root, because mistakes would otherwise be too pale to see.
    axis.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1, interpolation="none")
    if len(classes) <= ANNOTATED:
        for i, j in np.argwhere(counts):
            colour = "white" if shares[i, j] > 0.5 else "black"
            axis.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=8, color=colour)
        labels = [_label(name) for name in classes]
        axis.set_xticks(range(len(classes)), labels, rotation=45, ha="right")
        axis.set_yticks(range(len(classes)), labels)
    axis.set(
        xlabel="taken for",
        ylabel="is",
        title=f"{right:.2%} of {counts.sum():,} held-out images right",
    )
    return figure


def command(side: str, stages: Stages) -> None:
    """Draw the pictures of the run on the command line."""
    parser = CommandLine(f"python -m {side}.pictures", "Draw a run's pictures.")
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--image", help="the image whose activations are drawn; default: the run's example.png")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write the pictures; default: pictures/ in the run's folder"
    )
    arguments = parser.parse_args()
    with failing_plainly():
        out = arguments.out or arguments.run / "pictures"  # the pictures that the run drew stay as they are
        written, problems = draw(arguments.run, stages, arguments.image, out)
        for path in written:
            print(f"wrote {shown(path)}")
        if problems:
            raise ValueError("\n".join(problems))


def _figure(width: float, height: float) -> Figure:
    return optional("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")  # type: ignore[no-any-return]


def _lay_out(figure: Figure) -> None:
    """Solve for the positions of the axes once and round them: the solver's last digit may vary, and with it names in the SVG."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axis in figure.axes:
        axis.set_position(np.round(axis.get_position(original=True).bounds, 4))


def _label(name: str) -> str:
    """A class's name, cut to the room in a picture."""
    text = shown(name)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _shape(out: np.ndarray) -> str:
    return "×".join(map(str, out.shape))
