"""AlexNet in four variants: five convolutional layers, then three fully connected ones.

``alexnet_from_scratch/variants.py`` has the variants, layer by layer.

The paper says that conv1 makes 55×55 from 224×224, but an 11×11 window at stride 4 does not give that. Here conv1 pads by 2, as
torchvision does (227×227 without padding is the same arithmetic). Other image sizes work too: ``avgpool`` brings all of them to
the size that the first fully connected layer needs; at 224×224 it changes nothing.

LRN's constants are the paper's, which were chosen for pixels from 0 to 255 minus the mean (see ``data.py``).

Paper: Krizhevsky, Sutskever, Hinton 2012, sections 3.5 and 5.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from alexnet_from_scratch.variants import VARIANTS
from scratch.core import checks
from scratch.core.module import Module, random_generator
from scratch.modules import AdaptiveAvgPool2d, Conv2d, Dropout, Flatten, Linear, LocalResponseNorm, MaxPool2d, ReLU, Sequential

__all__ = ["AlexNet"]


class AlexNet(Sequential):
    """``features``, ``avgpool``, ``flatten`` and ``classifier``, one after the other; images (N,C,H,W) to logits (N,classes).

    Args:
        variant: "one_tower", "paper", "torchvision" or "mini".
        num_classes: columns of the output.
        dropout: probability that a hidden value of the fully connected layers is dropped in training.
        init: "torch": torch's default, U(-1/√n, 1/√n) for n inputs; "paper": N(0, 0.01), biases 1 in conv2, conv4, conv5 and
            the hidden fully connected layers, 0 elsewhere.
        dtype: float32 or float64, of the parameters and therefore of the images.
        rng: draws the initial values, and later dropout's masks.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: there is no such variant or init, or a number is out of its range.
    """

    def __init__(
        self,
        variant: str = "one_tower",
        num_classes: int = 1000,
        *,
        dropout: float = 0.5,
        init: str = "torch",
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | None = None,
    ) -> None:
        table = VARIANTS[checks.word("AlexNet", "variant", variant, list(VARIANTS))]
        checks.word("AlexNet", "init", init, ("torch", "paper"))
        num_classes = checks.integer("AlexNet", "num_classes", num_classes, low=1)
        rng, dtype = random_generator("AlexNet", rng), checks.floating("AlexNet", "dtype", dtype)
        checks.room("AlexNet", "num_classes", num_classes, "the last weight", (num_classes, table.hidden), dtype)

        features: list[Module] = []
        channels = table.in_channels
        for row in table.convs:
            conv = Conv2d(channels, row.channels, row.kernel, row.stride, row.padding, groups=row.groups, dtype=dtype, rng=rng)
            features += [conv, ReLU(inplace=True)]
            if row.norm:
                features.append(LocalResponseNorm(size=5, alpha=1e-4, beta=0.75, k=2.0))
            if row.pool:
                features.append(MaxPool2d(kernel_size=3, stride=2))
            channels = row.channels

        classifier: list[Module] = []
        inputs = channels * table.pooled**2
        for _ in range(2):
            hidden = [Linear(inputs, table.hidden, dtype=dtype, rng=rng), ReLU(inplace=True)]
            dropped = Dropout(dropout, rng=rng)
            classifier += [dropped, *hidden] if table.dropout_first else [*hidden, dropped]
            inputs = table.hidden
        classifier.append(Linear(inputs, num_classes, dtype=dtype, rng=rng))

        super().__init__(
            {
                "features": Sequential(*features),
                "avgpool": AdaptiveAvgPool2d((table.pooled, table.pooled)),
                "flatten": Flatten(),
                "classifier": Sequential(*classifier),
            }
        )
        if init == "paper":
            biases = iter([*(row.bias for row in table.convs), 1, 1, 0])
            for name, parameter in self.named_parameters():
                if name.endswith("weight"):
                    rng.standard_normal(dtype=parameter.data.dtype.type, out=parameter.data)
                    parameter.data *= 0.01
                else:
                    parameter.data.fill(next(biases))

    def backward(self, grad_out: np.ndarray | None, *, need_input_grad: bool = False) -> np.ndarray | None:
        """Add to the parameters' gradients. With ``need_input_grad`` also return the images' gradient, else None.

        Images are not trained, and conv1 spends more time on their gradient than on the rest of its work. So the caller must
        ask for it, as in torch by ``images.requires_grad_()``.
        """
        return super().backward(grad_out, need_input_grad=need_input_grad)
