"""The operations' X-rays, one file each."""

from collections.abc import Callable

from alexnet_from_scratch.xray.operations import (
    adaptive_avg_pool2d,
    conv2d,
    cross_entropy,
    dropout,
    linear,
    local_response_norm,
    max_pool2d,
    relu,
    sgd,
)
from alexnet_from_scratch.xray.page import Xray

OPERATIONS: dict[str, Callable[..., Xray]] = {
    "conv2d": conv2d.build,
    "relu": relu.build,
    "local_response_norm": local_response_norm.build,
    "max_pool2d": max_pool2d.build,
    "adaptive_avg_pool2d": adaptive_avg_pool2d.build,
    "linear": linear.build,
    "dropout": dropout.build,
    "cross_entropy": cross_entropy.build,
    "sgd": sgd.build,
}
