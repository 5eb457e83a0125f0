"""AlexNet's variants as tables, which scratch, torch_impl, flags and files of weights share.

- one_tower, 62,378,344 parameters: the paper's layer sizes on one device. Every output channel reads every input channel.
- paper, 60,965,224: the paper's two halves. conv2, conv4 and conv5 read only one half each (``groups=2``).
- torchvision, 61,100,840: "One weird trick". It is narrower, has no response normalization, and loads torchvision's weights.
- mini, 551,146: the same eight layers for grey images of 28×28 (2.2 MB).

The numbers of parameters are for 1000 classes, for mini 10.

The constants of LRN, where there is one, and the dropout probability are the same in all variants. ``alexnet.py`` of either side
makes the network.

Paper: Krizhevsky, Sutskever, Hinton 2012, sections 3.5 and 5; Krizhevsky 2014, arXiv 1404.5997, for torchvision's.
"""

from __future__ import annotations

from typing import NamedTuple


class Conv(NamedTuple):
    """A row: convolution and ReLU, then response normalization if ``norm``, then max-pooling (3×3, stride 2) if ``pool``."""

    channels: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    bias: int = 0  # its initial value in the paper
    norm: bool = False
    pool: bool = False


class Variant(NamedTuple):
    """The rows of a network and the sizes around them."""

    convs: tuple[Conv, ...]
    in_channels: int = 3
    pooled: int = 6  # height and width that reach the fully connected layers
    hidden: int = 4096
    dropout_first: bool = False  # whether dropout is before each hidden fully connected layer (torchvision), or after it (paper)
    size: int = 224  # height and width of an image
    canvas: int = 256  # height and width of the mean image (``Preprocessing.mean``)

    @property
    def filters(self) -> tuple[int, int, int, int]:
        """OC, C, KH and KW of the first layer."""
        first = self.convs[0]
        return first.channels, self.in_channels, first.kernel, first.kernel


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
        size=28,
        canvas=28,
    ),
}
