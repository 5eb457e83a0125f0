"""torch.nn's classes, by hand, on top of the operations: layers with parameters, a network of layers, the loss.

There is no autograd. A layer remembers what its forward pass saved for the backward pass, and a network runs its layers' backward
passes in reverse order::

    loss = criterion(model(images), labels)
    model.backward(criterion.backward())  # adds to the .grad of every parameter
    optimizer.step()

One forward pass in training mode allows one ``backward``, which then frees what was remembered. In eval mode nothing is
remembered, so a network holds two activations at a time instead of all of them. After a forward pass in eval mode, ``backward``
raises an error that says so.

Constructors, attributes, ``repr`` and the keys and shapes of a state dict are those of torch 2. A layer with weights takes two
more arguments than torch's: ``dtype``, and ``rng``, the NumPy generator of its initial values. To exchange weights with torch::

    torch_model.load_state_dict({name: torch.from_numpy(array) for name, array in model.state_dict().items()})
    model.load_state_dict({name: tensor.cpu().numpy() for name, tensor in torch_model.state_dict().items()})

A constructor checks what it needs; the operation checks the rest at the first call, as in torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from scratch import adaptive_avg_pool2d, conv2d, cross_entropy, dropout, linear, local_response_norm, max_pool2d, relu
from scratch.convolution.winograd_filters import forget, keep
from scratch.core import checks
from scratch.core.module import IncompatibleKeys, Layer, Module, Parameter, WeightedLayer, random_generator

__all__ = [
    "AdaptiveAvgPool2d",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "IncompatibleKeys",
    "Linear",
    "LocalResponseNorm",
    "MaxPool2d",
    "Module",
    "Parameter",
    "ReLU",
    "Sequential",
]

Size = int | tuple[int, int]
Generator = np.random.Generator


class Sequential(Module):
    """One module after the other, named "0", "1", …, or by the keys of a single mapping.

    Raises:
        TypeError: an argument is not a module.
        ValueError: a module comes twice (it could remember only one of its two forward passes), or a name is taken.
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        named: dict[str, Any] = {str(i): module for i, module in enumerate(modules)}
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            named = dict(modules[0])
        for name, module in named.items():
            if not isinstance(module, Module):
                raise TypeError(f"Sequential: module {name} must be a Module, got {checks.shown(module)}")
            if not isinstance(name, str):
                raise TypeError(f"Sequential: a name must be a str, got {checks.shown(name)}")
            if hasattr(self, name) or "." in name:
                raise ValueError(f"Sequential: a name must not be taken, and must have no dots, got {checks.shown(name)}")
            if any(module is other for other in self):
                raise ValueError(f"Sequential: module {name} must be used once, got {checks.shown(module)} a second time")
            setattr(self, name, module)

    def __iter__(self) -> Iterator[Module]:
        return (module for _, module in self.named_children())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, index: int | slice) -> Module:
        """The module at ``index``, counted from the end if negative.

        For a slice, a Sequential of the slice's modules by the same names.

        Raises:
            TypeError: ``index`` is neither an int nor a slice.
            IndexError: there is no such module.
        """
        named = list(self.named_children())
        if isinstance(index, slice):
            return Sequential(dict(named[index]))
        number = checks.integer("Sequential", "index", index)
        if not -len(named) <= number < len(named):
            raise IndexError(f"Sequential: index must fit its {len(named)} modules, got {number}")
        return named[number][1]

    def forward(self, x: np.ndarray) -> np.ndarray:
        for module in self:
            x = module(x)
        return x

    def backward(self, grad_out: np.ndarray | None, *, need_input_grad: bool = True) -> np.ndarray | None:
        need_input_grad = checks.flag(type(self).__name__ + ".backward", "need_input_grad", need_input_grad)
        for i, module in reversed(list(enumerate(self))):
            grad_out = module.backward(grad_out, need_input_grad=need_input_grad or i > 0)
        return grad_out


class Conv2d(WeightedLayer):
    """``torch.nn.Conv2d``; its only ``padding_mode`` is zeros."""

    operation = conv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        dtype: DTypeLike = np.float32,
        rng: Generator | None = None,
    ) -> None:
        self.in_channels = checks.integer("Conv2d", "in_channels", in_channels, low=0)
        self.out_channels = checks.integer("Conv2d", "out_channels", out_channels, low=1)
        self.kernel_size = checks.pair("Conv2d", "kernel_size", kernel_size, low=1)
        self.stride = checks.pair("Conv2d", "stride", stride, low=1)
        self.padding = padding if isinstance(padding, str) else checks.pair("Conv2d", "padding", padding, low=0)
        self.dilation = checks.pair("Conv2d", "dilation", dilation, low=1)
        self.groups = checks.integer("Conv2d", "groups", groups, low=1)
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"Conv2d: groups must divide in_channels={self.in_channels} and out_channels={self.out_channels}, "
                f"got {self.groups}"
            )
        if isinstance(padding, str) and padding not in ("same", "valid"):
            raise ValueError(f"Conv2d: padding must be ints, 'same' or 'valid', got {checks.shown(padding)}")
        if self.padding == "same" and self.stride != (1, 1):
            raise ValueError(f"Conv2d: stride must be 1 with padding 'same', got {self.stride}")
        if not isinstance(padding_mode, str) or padding_mode != "zeros":
            raise ValueError(
                f"Conv2d: padding_mode must be 'zeros', the only mode that conv2d has, got {checks.shown(padding_mode)}"
            )
        self._start("out_channels", (self.out_channels, self.in_channels // self.groups, *self.kernel_size), bias, dtype, rng)

    def forward(self, x: np.ndarray) -> np.ndarray:
        (forget if self.training else keep)(self.weight.data)
        return self._remember(
            *conv2d.forward(
                x, *self._arrays(), stride=self.stride, padding=self.padding, dilation=self.dilation, groups=self.groups
            )
        )

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        text += "" if self.padding == (0, 0) else f", padding={self.padding}"
        text += "" if self.dilation == (1, 1) else f", dilation={self.dilation}"
        text += "" if self.groups == 1 else f", groups={self.groups}"
        return text + ("" if self.bias is not None else ", bias=False")


class Linear(WeightedLayer):
    """``torch.nn.Linear``."""

    operation = linear

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: DTypeLike = np.float32,
        rng: Generator | None = None,
    ) -> None:
        self.in_features = checks.integer("Linear", "in_features", in_features, low=0)
        self.out_features = checks.integer("Linear", "out_features", out_features, low=0)
        self._start("out_features", (self.out_features, self.in_features), bias, dtype, rng)

    def forward(self, x: np.ndarray) -> np.ndarray:
        return self._remember(*linear.forward(x, *self._arrays()))

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class ReLU(Layer):
    """``torch.nn.ReLU``. With ``inplace`` it writes to its input (see :func:`scratch.relu.forward`); no other module does."""

    operation = relu

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = checks.flag("ReLU", "inplace", inplace)

    def forward(self, x: np.ndarray) -> np.ndarray:
        return self._remember(*relu.forward(x, inplace=self.inplace))

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class LocalResponseNorm(Layer):
    """``torch.nn.LocalResponseNorm``: alpha is divided by ``size``, as in the paper's program but not in its text."""

    operation = local_response_norm

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: np.ndarray) -> np.ndarray:
        return self._remember(*local_response_norm.forward(x, size=self.size, alpha=self.alpha, beta=self.beta, k=self.k))

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class MaxPool2d(Layer):
    """``torch.nn.MaxPool2d``. With ``return_indices`` it returns ``(values, indices)``; ``backward`` takes values' gradient."""

    operation = max_pool2d

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def forward(self, x: np.ndarray) -> np.ndarray:
        return self._remember(
            *max_pool2d.forward(
                x,
                kernel_size=self.kernel_size,
                stride=self.stride,
                padding=self.padding,
                dilation=self.dilation,
                ceil_mode=self.ceil_mode,
                return_indices=self.return_indices,
            )
        )

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"ceil_mode={self.ceil_mode}"
        )


class AdaptiveAvgPool2d(Layer):
    """``torch.nn.AdaptiveAvgPool2d``."""

    operation = adaptive_avg_pool2d

    def __init__(self, output_size: int | tuple[int | None, int | None]) -> None:
        self.output_size = output_size

    def forward(self, x: np.ndarray) -> np.ndarray:
        return self._remember(*adaptive_avg_pool2d.forward(x, output_size=self.output_size))

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class Flatten(Layer):
    """``torch.nn.Flatten``: the axes from ``start_dim`` to ``end_dim`` become one. The output shares the input's memory."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim = checks.integer("Flatten", "start_dim", start_dim)
        self.end_dim = checks.integer("Flatten", "end_dim", end_dim)

    def forward(self, x: np.ndarray) -> np.ndarray:
        x = checks.array("Flatten", "x", x)
        first = checks.axis("Flatten", "start_dim", self.start_dim, x.shape)
        last = checks.axis("Flatten", "end_dim", self.end_dim, x.shape)
        if first > last:
            raise ValueError(f"Flatten: start_dim must not come after end_dim, got {first} and {last} for shape {x.shape}")
        out = x.reshape(*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :])
        return self._remember(out, (x.shape, out.shape, out.dtype))

    def _backward(self, grad_out: np.ndarray, cache: Any, need_input_grad: bool) -> np.ndarray:
        x_shape, out_shape, dtype = cache
        grad_out = checks.array("Flatten.backward", "grad_out", grad_out, dtype=dtype)
        if grad_out.shape != out_shape:
            raise ValueError(f"Flatten.backward: grad_out must have the output's shape {out_shape}, got {grad_out.shape}")
        return grad_out.reshape(x_shape)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Dropout(Layer):
    """``torch.nn.Dropout``. ``inplace`` is accepted, as in torch, but changes nothing.

    At every call ``rng`` draws which values are kept. To choose them yourself, set ``module.mask`` to a bool array of the
    input's shape, True where a value is kept. That mask is used until it is set to None again.
    """

    operation = dropout

    def __init__(self, p: float = 0.5, inplace: bool = False, *, rng: Generator | None = None) -> None:
        self.p = checks.probability("Dropout", "p", p)
        self.inplace = checks.flag("Dropout", "inplace", inplace)
        self.rng = random_generator("Dropout", rng)
        self.mask: np.ndarray | None = None

    def forward(self, x: np.ndarray) -> np.ndarray:
        # The cache is remembered in eval mode, too, where it costs nothing: if only dropout is in eval mode, inside a network
        # that trains, dropout must pass the gradient on.
        out, self._cache = dropout.forward(x, p=self.p, training=self.training, mask=self.mask, rng=self.rng)
        return out

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class CrossEntropyLoss(Layer):
    """``torch.nn.CrossEntropyLoss``: call it with logits and target; ``backward()`` gives the gradient of the logits."""

    operation = cross_entropy
    buffer_names = ("weight",)

    def __init__(
        self,
        weight: np.ndarray | None = None,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        self.weight = None if weight is None else checks.array("CrossEntropyLoss", "weight", weight)
        self.ignore_index = ignore_index
        self.reduction, self.label_smoothing = reduction, label_smoothing

    def forward(self, logits: np.ndarray, target: np.ndarray) -> np.ndarray:
        return self._remember(
            *cross_entropy.forward(
                logits,
                target,
                weight=self.weight,
                ignore_index=self.ignore_index,
                reduction=self.reduction,
                label_smoothing=self.label_smoothing,
            )
        )

    def backward(self, grad_out: np.ndarray | None = None, *, need_input_grad: bool = True) -> np.ndarray | None:
        """As for every layer; if the loss is a single number, ``grad_out`` may be left out and is then 1."""
        if grad_out is None:
            grad_out = np.ones((), self._remembered().dtype)
        return super().backward(grad_out, need_input_grad=need_input_grad)
