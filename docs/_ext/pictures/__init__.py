"""The book's pictures, by subject. Every number in them comes from the kernels that they explain; a docstring describes the
picture.
"""

from __future__ import annotations

from collections.abc import Callable

from docs._ext.pictures import convolution, layers, learning, network
from docs._ext.svg import Drawing

PICTURES: dict[str, Callable[[], Drawing]] = {
    function.__name__: function
    for function in (
        convolution.window, convolution.im2col, convolution.col2im, convolution.implicit_gemm, convolution.phases,
        convolution.winograd,
        layers.relu, layers.max_pool, layers.lrn_windows, layers.average_windows, layers.linear, layers.dropout,
        learning.softmax, learning.log_softmax, learning.cross_entropy, learning.sgd,
        network.costs, network.image_sizes, network.rounding,
    )
}  # fmt: skip
