"""AlexNet's operations, forward and backward, by hand in NumPy and Numba.

Every operation is a file: ``out, cache = scratch.relu.forward(x)``, then ``(grad_x,) = scratch.relu.backward(grad_out, cache)``.
"""

from scratch import relu
from scratch.core.jit import get_num_threads, set_num_threads
from scratch.core.ladder import use_rung

__all__ = ["get_num_threads", "relu", "set_num_threads", "use_rung"]
