"""scratch's operations by torch: the same file names, the same signatures, gradients by autograd, on CPU or GPU."""

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
