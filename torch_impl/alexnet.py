"""AlexNet in four variants by torch.nn; mirrors ``scratch/alexnet.py``, where variants and sources are described."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import nn

from torch_impl.modules import (
    AdaptiveAvgPool2d,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
)


class Conv(NamedTuple):
    """A row: convolution and ReLU, then optionally response normalization and overlapping max-pooling (3, stride 2)."""

    channels: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    bias: int = 0  # its starting value in the paper
    norm: bool = False
    pool: bool = False


class Variant(NamedTuple):
    """The rows of a network and the sizes around them."""

    convs: tuple[Conv, ...]
    in_channels: int = 3
    pooled: int = 6  # height and width of the fully connected layers' input
    hidden: int = 4096
    dropout_first: bool = False  # before each hidden fully connected layer (torchvision) or after it (the paper)


VARIANTS = {
    "one_tower": Variant(
        convs=(
            Conv(96, kernel=11, stride=4, padding=2, norm=True, pool=True),
            Conv(256, kernel=5, padding=2, bias=1, norm=True, pool=True),
            Conv(384, kernel=3, padding=1),
            Conv(384, kernel=3, padding=1, bias=1),
            Conv(256, kernel=3, padding=1, bias=1, pool=True),
        ),
    ),
    "paper": Variant(
        convs=(
            Conv(96, kernel=11, stride=4, padding=2, norm=True, pool=True),
            Conv(256, kernel=5, padding=2, groups=2, bias=1, norm=True, pool=True),
            Conv(384, kernel=3, padding=1),
            Conv(384, kernel=3, padding=1, groups=2, bias=1),
            Conv(256, kernel=3, padding=1, groups=2, bias=1, pool=True),
        ),
    ),
    "torchvision": Variant(
        convs=(
            Conv(64, kernel=11, stride=4, padding=2, pool=True),
            Conv(192, kernel=5, padding=2, bias=1, pool=True),
            Conv(384, kernel=3, padding=1),
            Conv(256, kernel=3, padding=1, bias=1),
            Conv(256, kernel=3, padding=1, bias=1, pool=True),
        ),
        dropout_first=True,
    ),
    "mini": Variant(
        convs=(
            Conv(32, kernel=5, padding=2, norm=True, pool=True),  # 28 → 13
            Conv(64, kernel=5, padding=2, bias=1, norm=True, pool=True),  # 13 → 6
            Conv(128, kernel=3, padding=1),
            Conv(128, kernel=3, padding=1, bias=1),
            Conv(96, kernel=3, padding=1, bias=1, pool=True),  # 6 → 2
        ),
        in_channels=1,
        pooled=2,
        hidden=256,
    ),
}


class AlexNet(Sequential):
    """``features``, ``avgpool``, ``flatten`` and ``classifier``, one after the other; images (N,C,H,W) to logits (N,classes).

    The arguments are those of scratch's, with ``device`` in place of ``rng``: starting values and dropout are drawn from torch's
    own generator, after ``torch.manual_seed``.
    """

    def __init__(
        self,
        variant: str = "one_tower",
        num_classes: int = 1000,
        *,
        dropout: float = 0.5,
        init: str = "torch",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if variant not in list(VARIANTS):
            raise ValueError(f"AlexNet: variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
        if init not in ("torch", "paper"):
            raise ValueError(f"AlexNet: init must be 'torch' or 'paper', got {init!r}")
        table = VARIANTS[variant]
        # Values are drawn on the CPU, so they are the same on every device; none are drawn where only shapes are needed.
        drawn_on = "meta" if torch.device(device).type == "meta" else "cpu"

        features: list[Module] = []
        channels = table.in_channels
        for row in table.convs:
            conv = Conv2d(channels, row.channels, row.kernel, row.stride, row.padding, groups=row.groups, device=drawn_on)
            features += [conv, ReLU(inplace=True)]
            if row.norm:
                features.append(LocalResponseNorm(size=5, alpha=1e-4, beta=0.75, k=2.0))
            if row.pool:
                features.append(MaxPool2d(kernel_size=3, stride=2))
            channels = row.channels

        classifier: list[Module] = []
        inputs = channels * table.pooled**2
        for _ in range(2):
            hidden = [Linear(inputs, table.hidden, device=drawn_on), ReLU(inplace=True)]
            dropped = Dropout(dropout)
            classifier += [dropped, *hidden] if table.dropout_first else [*hidden, dropped]
            inputs = table.hidden
        classifier.append(Linear(inputs, num_classes, device=drawn_on))

        super().__init__(
            OrderedDict(
                features=Sequential(*features),
                avgpool=AdaptiveAvgPool2d((table.pooled, table.pooled)),
                flatten=Flatten(),
                classifier=Sequential(*classifier),
            )
        )
        self.to(device=device, dtype=dtype)
        if init == "paper":
            biases = iter([*(row.bias for row in table.convs), 1, 1, 0])
            for name, parameter in self.named_parameters():
                if name.endswith("weight"):
                    nn.init.normal_(parameter, std=0.01)
                else:
                    nn.init.constant_(parameter, next(biases))
