"""What is measured: AlexNet's layers at their own sizes, each rung on a small size for the naive loops, and the whole networks.

The layers form a chain: the input of each is the output of the layer that ``source`` names, back to the photographs. The paper's
grouped convolutions and the small rows of the ladder cut their source's output down to their own shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FLOAT = 4  # bytes


@dataclass(frozen=True)
class Layer:
    """One operation at one size, forward and backward. Shapes are those of one image; ``weight`` is None if there is none."""

    name: str
    operation: str
    shape: tuple[int, ...]
    out: tuple[int, ...]
    weight: tuple[int, ...] | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""  # "" is the photographs
    group: str = "layer"
    batch: int | None = None  # None: the run's batch
    compiled: bool = False  # whether torch.compile can gain anything, see COMPILED
    needs_grad_x: bool = True  # photographs are not trained: conv1 computes no gradient of them, in either library

    phases = ("forward", "backward")

    def flops(self, phase: str, batch: int) -> float:
        """Multiplications and additions by the operation's definition; 0 if memory is what limits it."""
        if self.weight is None:
            return 0.0
        # weight has one filter for every output channel, so the channels of out are counted already.
        product = 2.0 * batch * math.prod(self.out[1:]) * math.prod(self.weight)
        if phase == "forward":
            return product
        return product * (2 if self.needs_grad_x else 1)  # the gradients of weight and x are one product of that size each

    def traffic(self, phase: str, batch: int) -> float:
        """The fewest bytes to move: every input is read once, every output is written once."""
        x, out = batch * math.prod(self.shape), batch * math.prod(self.out)
        weight = 0 if self.weight is None else math.prod(self.weight) + self.weight[0]
        if phase == "forward":
            return float(FLOAT * (x + weight + out))
        # What forward keeps for backward does not count in forward's traffic, but it counts in backward's.
        # Inputs: grad_out, the weight, and what forward left. That is x, but relu needs only out, max pooling a two-byte index
        # for each output, and average pooling nothing.
        left = {"relu": out, "max_pool2d": out / 2, "adaptive_avg_pool2d": 0}.get(self.operation, x)
        return float(FLOAT * (out + left + 2 * weight + (x if self.needs_grad_x else 0)))


@dataclass(frozen=True)
class Network:
    """A whole network: one training step (gradients to zero, forward, loss, backward, SGD), or inference."""

    name: str
    variant: str
    phase: str  # "step" or "inference"
    macs: float  # multiply-adds of its convolutions and linears per image: 28×28 for mini, else 224×224
    first: float  # those of conv1, whose input needs no gradient
    size: int = 224
    batch: int | None = None
    compiled: bool = False
    group: str = "network"

    @property
    def phases(self) -> tuple[str, ...]:
        """The only phase that is timed."""
        return (self.phase,)

    def flops(self, phase: str, batch: int) -> float:
        """Those of the convolutions and linears. Backward makes twice as many as forward, minus those of conv1's grad_x."""
        return 2.0 * batch * (3 * self.macs - self.first if phase == "step" else self.macs)

    def traffic(self, phase: str, batch: int) -> float:
        """Not counted: what a whole network must move depends on what stays in the cache between its layers."""
        return 0.0


@dataclass(frozen=True)
class Update:
    """The optimizer's step over all parameters of a network, with momentum and weight decay."""

    name: str
    variant: str
    parameters: int
    batch: int | None = None
    compiled: bool = True
    group: str = "layer"

    phases = ("update",)

    def flops(self, phase: str, batch: int) -> float:
        """Not counted: a handful for each parameter, and memory is what limits it."""
        return 0.0

    def traffic(self, phase: str, batch: int) -> float:
        """Parameter, gradient and momentum are read, parameter and momentum written."""
        return 5.0 * FLOAT * self.parameters


Case = Layer | Network | Update

# torch.compile takes up to half a minute per case, so a default run uses it where it gains most. It passes convolutions and
# linears to the same calls as eager, and makes ReLU, pools and the loss slower. --compile compiles everything.
COMPILED = {"norm1"}


def _layer(name: str, operation: str, shape: tuple[int, ...], out: tuple[int, ...], *, source: str, **rest: Any) -> Layer:
    return Layer(name, operation, shape, out, source=source, compiled=name in COMPILED, **rest)


def _conv(
    name: str, shape: tuple[int, int, int], channels: int, kernel: int, *, source: str, group: str = "layer",
    batch: int | None = None, stride: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1, needs_grad_x: bool = True,
) -> Layer:  # fmt: skip
    C, *sides = shape
    window = dilation * (kernel - 1) + 1
    out = (channels, *((side + 2 * padding - window) // stride + 1 for side in sides))
    params = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    rest = {"weight": (channels, C // groups, kernel, kernel), "params": params, "group": group, "batch": batch}
    return _layer(name, "conv2d", shape, out, source=source, needs_grad_x=needs_grad_x, **rest)


def _pool(name: str, shape: tuple[int, int, int], *, source: str, **rest: Any) -> Layer:
    C, H, W = shape
    out = (C, (H - 3) // 2 + 1, (W - 3) // 2 + 1)
    return _layer(name, "max_pool2d", shape, out, source=source, params={"kernel_size": 3, "stride": 2}, **rest)


def _linear(name: str, inputs: int, outputs: int, *, source: str, **rest: Any) -> Layer:
    return _layer(name, "linear", (inputs,), (outputs,), source=source, weight=(outputs, inputs), **rest)


def _relu(name: str, shape: tuple[int, ...], *, source: str, **rest: Any) -> Layer:
    return _layer(name, "relu", shape, shape, source=source, **rest)


def _norm(name: str, shape: tuple[int, int, int], *, source: str, **rest: Any) -> Layer:
    params = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 2.0}
    return _layer(name, "local_response_norm", shape, shape, source=source, params=params, **rest)


def _average(name: str, shape: tuple[int, int, int], *, source: str, **rest: Any) -> Layer:
    out = (shape[0], 6, 6)
    return _layer(name, "adaptive_avg_pool2d", shape, out, source=source, params={"output_size": (6, 6)}, **rest)


# The one-tower network in order, the paper's grouped convolutions next to the ungrouped ones, and torchvision's average pool. The
# later relus cost little and show nothing that relu1 does not: only a --full run times them.
LAYERS: tuple[Layer, ...] = (
    _conv("conv1", (3, 224, 224), 96, 11, source="", stride=4, padding=2, needs_grad_x=False),
    _relu("relu1", (96, 55, 55), source="conv1"),
    _norm("norm1", (96, 55, 55), source="relu1"),
    _pool("pool1", (96, 55, 55), source="norm1"),
    _conv("conv2", (96, 27, 27), 256, 5, source="pool1", padding=2),
    _conv("conv2/2", (96, 27, 27), 256, 5, source="pool1", padding=2, groups=2),
    _relu("relu2", (256, 27, 27), source="conv2", group="full"),
    _norm("norm2", (256, 27, 27), source="relu2"),
    _pool("pool2", (256, 27, 27), source="norm2"),
    _conv("conv3", (256, 13, 13), 384, 3, source="pool2", padding=1),
    _relu("relu3", (384, 13, 13), source="conv3", group="full"),
    _conv("conv4", (384, 13, 13), 384, 3, source="relu3", padding=1),
    _conv("conv4/2", (384, 13, 13), 384, 3, source="relu3", padding=1, groups=2),
    _relu("relu4", (384, 13, 13), source="conv4", group="full"),
    _conv("conv5", (384, 13, 13), 256, 3, source="relu4", padding=1),
    _conv("conv5/2", (384, 13, 13), 256, 3, source="relu4", padding=1, groups=2),
    _relu("relu5", (256, 13, 13), source="conv5", group="full"),
    _pool("pool5", (256, 13, 13), source="relu5"),
    _average("avgpool", (256, 6, 6), source="pool5", group="full"),
    _linear("fc6", 256 * 6 * 6, 4096, source="pool5"),
    _relu("relu6", (4096,), source="fc6", group="full"),
    _linear("fc7", 4096, 4096, source="relu6"),
    _relu("relu7", (4096,), source="fc7", group="full"),
    _linear("fc8", 4096, 1000, source="relu7"),
    _layer("loss", "cross_entropy", (1000,), (), source="fc8"),
)

# The network itself: at 224×224 its average pool changes nothing.
ONE_TOWER = tuple(layer for layer in LAYERS if "/2" not in layer.name and layer.name not in ("avgpool", "loss"))

# Every rung of every operation, on one image and few channels: the naive loops take at most about a second.
LADDER: tuple[Layer, ...] = (
    _conv("small conv", (4, 13, 13), 8, 3, source="pool2", group="ladder", batch=1, padding=1),
    _relu("small relu", (32, 27, 27), source="conv2", group="ladder", batch=1),
    _norm("small norm", (32, 13, 13), source="pool2", group="ladder", batch=1),
    _pool("small pool", (32, 27, 27), source="norm2", group="ladder", batch=1),
    _average("small avgpool", (32, 13, 13), source="relu5", group="ladder", batch=1),
    _linear("small linear", 512, 64, source="relu6", group="ladder", batch=1),
    _layer("small loss", "cross_entropy", (1000,), (), source="fc8", group="ladder", batch=1),
)

# Every rung except the naive one, at the sizes that the last rungs are made for. A default run leaves these out; --ops "conv3
# rungs" times one. The book's boxes show them, from rungs.json.
AT_SIZE: tuple[Layer, ...] = (
    _conv("conv3 rungs", (256, 13, 13), 384, 3, source="pool2", group="rungs", padding=1),
    _linear("fc6 rungs", 256 * 6 * 6, 4096, source="pool5", group="rungs"),
    _norm("norm1 rungs", (96, 55, 55), source="relu1", group="rungs"),
    _pool("pool1 rungs", (96, 55, 55), source="norm1", group="rungs"),
)

# Shapes that users run and AlexNet does not have. They get a separate table: scratch may be slower there.
SHAPES: tuple[Layer, ...] = (
    _conv("conv1 with the images' gradient", (3, 224, 224), 96, 11, source="", group="shapes", stride=4, padding=2),
    _conv("7×7, stride 2", (3, 224, 224), 64, 7, source="", group="shapes", stride=2, padding=3),
    _conv("7×7", (96, 27, 27), 96, 7, source="pool1", group="shapes", padding=3),
    _conv("3×3 on large maps", (64, 55, 55), 64, 3, source="relu1", group="shapes", padding=1),
    _conv("3×3, stride 2", (256, 27, 27), 256, 3, source="relu2", group="shapes", stride=2, padding=1),
    _conv("3×3, dilation 2", (256, 27, 27), 256, 3, source="relu2", group="shapes", padding=2, dilation=2),
    _conv("3×3, a filter for each channel", (256, 27, 27), 256, 3, source="relu2", group="shapes", padding=1, groups=256),
    _conv("1×1", (256, 27, 27), 256, 1, source="relu2", group="shapes"),
    _conv("1×1, stride 2", (256, 27, 27), 256, 1, source="relu2", group="shapes", stride=2),
)

# Convolutions of growing size, to see where each rung begins to pay off: channels in and out, height and width.
CROSSING: tuple[Layer, ...] = tuple(
    _conv(
        f"{channels}×{side}×{side}, {batch}", (channels, side, side), channels, 3, source="pool1", group="crossing", batch=batch,
        padding=1,
    )
    for batch in (1, 8)
    for channels, side in ((4, 6), (4, 13), (8, 13), (16, 13), (16, 27), (32, 27), (64, 27), (96, 27))
)  # fmt: skip

MILLION = 10**6
NETWORKS: tuple[Network | Update, ...] = (
    Update("sgd", "one_tower", 62_378_344),
    Network("one_tower inference", "one_tower", "inference", 1135 * MILLION, 105 * MILLION),
    Network("one_tower step", "one_tower", "step", 1135 * MILLION, 105 * MILLION),
    Network("paper inference", "paper", "inference", 724 * MILLION, 105 * MILLION, group="full"),
    Network("paper step", "paper", "step", 724 * MILLION, 105 * MILLION, group="full"),
    Network("torchvision inference", "torchvision", "inference", 714 * MILLION, 70 * MILLION, group="full"),
    Network("torchvision step", "torchvision", "step", 714 * MILLION, 70 * MILLION, group="full"),
)

# To measure how a library starts: every operation, and hardly any work.
MINI = Network("mini step", "mini", "step", 21_390_336, 627_200, size=28, batch=8, group="start")

CASES: tuple[Case, ...] = (*LAYERS, *NETWORKS, *LADDER, *AT_SIZE, *SHAPES)


def operation(case: Case) -> str:
    """The name of the file in scratch/ that a case measures; ``--ops`` and ``--slow`` use it."""
    if isinstance(case, Layer):
        return case.operation
    return "sgd" if isinstance(case, Update) else "alexnet"


def choose(ops: str | None, groups: set[str]) -> list[Case]:
    """The cases of ``groups`` whose name, or whose operation's name, is in the comma-separated ``ops``; None means all.

    Raises:
        ValueError: no case has one of the names.
    """
    if ops is None:
        return [case for case in CASES if case.group in groups]
    wanted = [word.strip() for word in ops.split(",")]
    known = {case.name for case in CASES} | {operation(case) for case in CASES}
    for word in wanted:
        if word not in known:
            raise ValueError(f"--ops must be among {sorted(known)}, got {word!r}")
    return [c for c in CASES if c.name in wanted or (operation(c) in wanted and c.group in groups)]
