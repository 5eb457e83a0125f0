"""AlexNet's operations, forward and backward, by hand in NumPy and Numba.

Every operation is a file with two functions::

    out, cache = scratch.relu.forward(x)
    (grad_x,) = scratch.relu.backward(grad_out, cache)
"""

import sys

if sys.argv[:1] == ["-m"]:  # "python -m" is looking for one of these modules
    from alexnet_from_scratch.runs.interrupts import end_plainly

    end_plainly()

from alexnet_from_scratch import __version__
from scratch import (
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
from scratch.compiled.threads import get_num_threads, set_num_threads
from scratch.core.ladder import set_rung, use_rung

__all__ = [
    "__version__",
    "adaptive_avg_pool2d",
    "conv2d",
    "cross_entropy",
    "dropout",
    "get_num_threads",
    "linear",
    "local_response_norm",
    "log_softmax",
    "max_pool2d",
    "relu",
    "set_num_threads",
    "set_rung",
    "sgd",
    "softmax",
    "use_rung",
]
