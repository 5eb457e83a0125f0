"""What twins showed, as tables and pictures: the blocks ``twin-NAME`` of documents, from ``committed/NAME.json``."""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from benchmarks.reports.tables import NOTHING, Table
from parity_tests.twins.results import KINDS, RESULTS, Apart, Twins, load

PREFIX = "twin-"
SHOWN = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)  # steps in the table, in addition to the last
FACTORS = (10, 1000)


def layers(twins: Twins) -> Table:
    """Each layer's distances: how much is rounding, and where it starts to grow."""
    first, last = twins.steps[0], twins.steps[-1]
    columns = [twins.rounding(which) for which in ("twins", "scratch", "torch")]
    grown = [twins.grown(factor) for factor in FACTORS]
    rows = [
        [
            layer,
            *(_small(column[i]) for column in columns),
            _small(first["gradients"]["twins"][i]),
            *(str(steps[layer] or "never") for steps in grown),
            _small(last["weights"]["twins"][i]),
        ]
        for i, layer in enumerate(twins.layers)
    ]
    return Table(
        f"{_title(twins.options)}, {last['step']} steps",
        ["layer", "rounding", "scratch's", "torch's", "step 1", *(f"{factor}× at step" for factor in FACTORS), "weights"],
        rows,
        f"A distance is ‖a − b‖ / ‖b‖ over a layer's weight and bias. **rounding**: the distance between scratch's and torch's "
        f"gradients for one image, the smallest of {len(twins.images)}. **scratch's**, **torch's**: each one's distance from "
        f"float64. **step 1**: the distance between the gradients of the first batch. **{FACTORS[0]}×**, **{FACTORS[1]}×**: the "
        f"first step at which this distance is so many times that of rounding alone. **weights**: the distance between the "
        f"weights at the end.\n\n{_verdict(twins)}",
    )


def steps(twins: Twins) -> Table:
    """Some of the steps."""
    rows = []
    for step in twins.steps:
        if step["step"] not in SHOWN and step is not twins.steps[-1]:
            continue
        loss = step["loss"]
        worst = [f"{_small(max(step[kind]['twins']))} ({_worst(twins, step, kind)})" for kind in KINDS]
        rows.append(
            [
                str(step["step"]),
                f"{loss['scratch']:.7f}",
                f"{loss['torch']:.7f}",
                _small(abs(loss["scratch"] - loss["torch"])),
                *worst,
                _small(max(step["weights"]["torch"])),
            ]
        )
    return Table(
        "",
        ["step", "loss, scratch", "loss, torch", "apart", "gradients apart", "weights apart", "torch's weights off"],
        rows,
        "Each row shows the layer whose gradients are furthest apart, and the layer whose weights are. **torch's weights off**: "
        f"the distance of torch in float32 from torch in float64, in its worst layer.\n\n{_costs(twins)}",
    )  # fmt: skip


def spread(apart: Apart) -> Table:
    """Runs from different seeds, side by side."""
    rows = [
        [run["side"], str(run["seed"]), f"{run['accuracy']:.2%}", f"{run['wall']:.0f} s", f"{run['cpu']:.0f} s"]
        for run in sorted(apart.runs, key=lambda run: (run["side"], run["seed"]))
    ]
    for side in ("scratch", "torch"):
        accuracies = apart.of(side, "accuracy")
        mean = f"**{accuracies.mean():.2%}** ± {accuracies.std(ddof=1):.2%}"
        rows.append([f"**{side}**", "mean", mean, *(f"{apart.of(side, what).mean():.0f} s" for what in ("wall", "cpu"))])
    difference, low, high = apart.difference()
    verdict = f"**{apart.failures()[0]}**." if apart.failures() else "The interval contains 0: the two agree within their spread."
    return Table(
        f"{_title(apart.options)}, {apart.options['epochs']} epochs, {len(apart.runs)} seeds, {apart.tested:,} held-out images",
        ["side", "seed", "held-out accuracy", "wall time", "processor time"],
        rows,
        f"scratch's mean minus torch's is {100 * difference:+.2f} percentage points. The 95 % interval goes from "
        f"{100 * low:+.2f} to {100 * high:+.2f} (Welch's t). {verdict} {_machine(apart)}",
    )


def growth(twins: Twins) -> Figure:
    """How far twins are apart at each step: loss, gradients and weights of every layer."""
    figure = Figure(figsize=(9, 7.5), layout="constrained")
    number = np.array([step["step"] for step in twins.steps])
    upper, *others = figure.subplot_mosaic([["loss", "loss"], list(KINDS)]).values()
    losses = {name: np.array([step["loss"][name] for step in twins.steps]) for name in ("scratch", "torch", "float64")}
    for a, b, colour in (("scratch", "torch", "#111827"), ("scratch", "float64", "#c2410c"), ("torch", "float64", "#1d4ed8")):
        distance = np.abs(losses[a] - losses[b])
        apart = distance > 0  # equal losses cannot be shown on a logarithmic axis
        upper.plot(number[apart], distance[apart], ".-", ms=3, lw=0.8, color=colour, label=f"{a} from {b}")
    upper.set(title="loss", ylabel="|a − b|")
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(twins.layers)))
    for axis, kind in zip(others, KINDS, strict=True):
        series = {which: np.array([step[kind][which] for step in twins.steps]) for which in ("twins", "torch")}
        for i, layer in enumerate(twins.layers):
            axis.plot(number, series["twins"][:, i], lw=1, color=colours[i], label=layer)
        axis.plot(number, series["torch"].max(axis=1), "k--", lw=1, label="torch from float64,\nthe worst layer")
        axis.set(title=f"{kind}, scratch from torch", ylabel="‖a − b‖ / ‖b‖")
    for axis in (upper, *others):
        axis.set(xscale="log", yscale="log", xlabel="step")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    return figure


def block(name: str, here: Path, pictures: Path) -> str:
    """The block that shows ``parity_tests/twins/committed/NAME.json`` in documents, in Markdown."""
    path = RESULTS / f"{name.removeprefix(PREFIX)}.json"
    if not path.exists():
        return NOTHING
    result = load(path)
    if isinstance(result, Apart):
        return spread(result).markdown()
    link = Path(os.path.relpath(pictures / f"{name}.svg", here)).as_posix()
    return "\n\n".join([layers(result).markdown(), f"![{growth.__doc__}]({link})", steps(result).markdown()])


def draw(folder: Path) -> list[Path]:
    """The pictures of all committed twins."""
    written = []
    with matplotlib.rc_context({"svg.hashsalt": "twin", "svg.fonttype": "none"}):
        for path in sorted(RESULTS.glob("*.json")):
            if isinstance(result := load(path), Twins):
                written.append(folder / f"{PREFIX}{path.stem}.svg")
                growth(result).savefig(written[-1], metadata={"Date": None})
    return written


def _verdict(twins: Twins) -> str:
    if twins.failures():
        return "**More than rounding**: " + "; ".join(twins.failures()) + "."
    ratio = (twins.rounding("scratch") / twins.rounding("torch")).max()
    return (
        f"scratch is at most {ratio:.2f} times as far off as torch, in every layer. Rounding sent a gradient another way through "
        f"ReLU or pooling in {_how_many(twins.decided_otherwise())}."
    )


def _how_many(images: int) -> str:
    return "no image" if images == 0 else "one image" if images == 1 else f"{images} images"


def _costs(twins: Twins) -> str:
    costs = [f"{name} {twins.wall[name]:.0f} s ({twins.cpu[name]:.0f} s)" for name in twins.wall]
    accuracies = [f"{name} {accuracy:.2%}" for name, accuracy in twins.accuracy.items()]
    return (
        f"The steps took this wall time, and in brackets the time of all processors together: {', '.join(costs)}. The accuracy "
        f"afterwards, on the {twins.tested:,} test images: {', '.join(accuracies)}. {_machine(twins)}"
    )


def _machine(result: Twins | Apart) -> str:
    return (
        f"Made on {result.date}: {result.machine['cpu']}, {result.options['threads']} threads, commit "
        f"{result.machine['commit']}. Others used the machine too; the benchmarks have times that can be compared."
    )


def _title(options: dict[str, object]) -> str:
    return f"{options['variant']} on {options['data']}, batch {options['batch']}, learning rate {options['lr']}"


def _worst(twins: Twins, step: dict[str, dict[str, list[float]]], kind: str) -> str:
    return twins.layers[int(np.argmax(step[kind]["twins"]))]


def _small(value: float) -> str:
    return f"{value:.1e}"
