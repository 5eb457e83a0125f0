"""scratch's operations in torch: the same file names, the same signatures, gradients by autograd, on CPU or GPU."""

import sys

if sys.argv[:1] == ["-m"]:  # "python -m" looks for one of these modules to run
    from alexnet_from_scratch.runs.interrupts import end_plainly

    end_plainly()

from alexnet_from_scratch import __version__
from torch_impl import (
    adaptive_avg_pool2d,
    conv2d,
    cross_entropy,
    dropout,
    linear,
    local_response_norm,
    log_softmax,
    max_pool2d,
    relu,
    sgd,
    softmax,
)

__all__ = [
    "__version__",
    "adaptive_avg_pool2d",
    "conv2d",
    "cross_entropy",
    "dropout",
    "linear",
    "local_response_norm",
    "log_softmax",
    "max_pool2d",
    "relu",
    "sgd",
    "softmax",
]
