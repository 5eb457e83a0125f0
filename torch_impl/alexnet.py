"""AlexNet in four variants by torch.nn; mirrors ``scratch/alexnet.py``, which names the sources."""

from __future__ import annotations

import reprlib
from collections import OrderedDict

import torch
from torch import nn

from alexnet_from_scratch.variants import VARIANTS
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

__all__ = ["AlexNet"]


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
        if not isinstance(variant, str) or variant not in VARIANTS:
            raise ValueError(f"AlexNet: variant must be one of {', '.join(VARIANTS)}, got {reprlib.repr(variant)}")
        if not isinstance(init, str) or init not in ("torch", "paper"):
            raise ValueError(f"AlexNet: init must be 'torch' or 'paper', got {reprlib.repr(init)}")
        table = VARIANTS[variant]
        # Values are drawn on the CPU, so they are the same on every device. On "meta" none are drawn.
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
        if init == "paper":
            biases = iter([*(row.bias for row in table.convs), 1, 1, 0])
            for name, parameter in self.named_parameters():
                if name.endswith("weight"):
                    nn.init.normal_(parameter, std=0.01)
                else:
                    nn.init.constant_(parameter, next(biases))
        self.to(device=device, dtype=dtype)
