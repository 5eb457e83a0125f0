"""scratch's operations by torch: the same file names, the same signatures, gradients by autograd, on CPU or GPU."""

from torch_impl import relu

__all__ = ["relu"]
