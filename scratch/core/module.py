"""What all modules share: parameters, gradients, train and eval, state dicts."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from scratch.compiled import memory
from scratch.core import checks

Out = TypeVar("Out")


class Parameter:
    """A learned array, ``data``, and the gradient of the loss with respect to it, ``grad`` (None: not known)."""

    __slots__ = ("data", "grad")

    def __init__(self, data: np.ndarray) -> None:
        self.data = checks.array("Parameter", "data", data)
        self.grad: np.ndarray | None = None

    def accumulate(self, gradient: np.ndarray) -> None:
        """Add to the gradient: as in torch, gradients add up until ``zero_grad`` clears them.

        Raises:
            TypeError: ``gradient``, or ``grad`` if it was set to something else, is not an array of data's dtype.
            ValueError: it has another shape than data, or ``grad`` is read-only.
        """
        gradient = self._like_data("gradient", gradient)
        if self.grad is None:
            self.grad = gradient
            return
        self._like_data("grad", self.grad)
        if not self.grad.flags.writeable:
            raise ValueError(f"Parameter: grad must be writable, got a read-only array of shape {self.grad.shape}")
        self.grad += gradient

    def _like_data(self, name: str, value: np.ndarray) -> np.ndarray:
        checked = checks.array("Parameter", name, value, dtype=np.dtype(self.data.dtype.type))
        if checked.shape != self.data.shape:
            raise ValueError(f"Parameter: {name} must have data's shape {self.data.shape}, got {checked.shape}")
        return checked

    def __repr__(self) -> str:
        return f"Parameter(shape={self.data.shape}, dtype={self.data.dtype})"


class IncompatibleKeys(NamedTuple):
    """The keys that ``load_state_dict(strict=False)`` skipped."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """What all modules share. Parameters and sub-modules are plain attributes, in the order in which they were set.

    A subclass defines ``forward(*inputs) -> out`` and ``backward(grad_out, *, need_input_grad=True) -> grad_input``. With
    ``need_input_grad=False``, which is for the first module of a network, ``backward`` may return None.

    ``buffer_names`` lists attributes that are not learned but belong in a state dict, too. Each is an array, or None.
    """

    training = True
    buffer_names: tuple[str, ...] = ()
    forward: Callable[..., Any]
    backward: Callable[..., Any]

    def __call__(self, *inputs: Any) -> Any:
        return self.forward(*inputs)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        return ((name, value) for name, value in vars(self).items() if isinstance(value, Module))

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """The module itself, named ``prefix``, then the modules inside it by dotted names, outer before inner."""
        if not isinstance(prefix, str):
            raise TypeError(f"{type(self).__name__}.named_modules: prefix must be a str, got {checks.shown(prefix)}")
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def _named_state(self) -> Iterator[tuple[str, Parameter | np.ndarray]]:
        """Parameters, under each of their names, and buffers."""
        for prefix, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter) or (name in module.buffer_names and value is not None):
                    yield (f"{prefix}.{name}" if prefix else name), value

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Each parameter once: if several modules share it, by the first of its names, as in torch."""
        seen = set()
        for name, value in self._named_state():
            if isinstance(value, Parameter) and value not in seen:
                seen.add(value)
                yield name, value

    def parameters(self) -> Iterator[Parameter]:
        return (parameter for _, parameter in self.named_parameters())

    def train(self, mode: bool = True) -> Self:
        """Set training mode, or with False eval mode, for this module and all modules inside."""
        mode = checks.flag(type(self).__name__ + ".train", "mode", mode)
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        return self.train(False)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients: forget them, or with ``set_to_none=False`` fill them with zeros in place."""
        set_to_none = checks.flag(type(self).__name__ + ".zero_grad", "set_to_none", set_to_none)
        for parameter in self.parameters():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.fill(0)

    def state_dict(self) -> dict[str, np.ndarray]:
        """The arrays of parameters and buffers by dotted names: the arrays themselves, not copies, as in torch.

        A parameter that several modules share appears under each of its names.
        """
        return {name: value.data if isinstance(value, Parameter) else value for name, value in self._named_state()}

    def load_state_dict(self, state_dict: Mapping[str, np.ndarray], strict: bool = True) -> IncompatibleKeys:
        """Copy arrays into the arrays of :meth:`state_dict`; floats of another precision are converted, as in torch.

        Returns:
            The missing keys and the unexpected keys; both are empty if ``strict``.

        Raises:
            TypeError: ``state_dict`` is not a mapping, or ``strict`` not a bool.
            ValueError: one message lists everything that is wrong: missing or unexpected keys (if ``strict``), values that are
                not plain arrays of floats, shapes that differ. Then nothing has changed.
        """
        here = type(self).__name__ + ".load_state_dict"
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"{here}: state_dict must be a mapping of names to arrays, got {type(state_dict).__name__}")
        strict = checks.flag(here, "strict", strict)
        own = self.state_dict()
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        problems = []
        if strict and missing:
            problems.append(f"missing keys: {', '.join(missing)}")
        if strict and unexpected:
            problems.append(f"unexpected keys: {', '.join(map(str, unexpected))}")
        given = {name: state_dict[name] for name in own if name in state_dict}
        for name, value in given.items():
            if type(value) not in checks.PLAIN:
                problems.append(f"{name} {checks.not_plain(value)}")
            elif not np.issubdtype(value.dtype, np.floating):
                problems.append(f"{name} must be an array of floats, got {value.dtype}")
            elif value.shape != own[name].shape:
                problems.append(f"{name} must have shape {own[name].shape}, got {value.shape}")
        if problems:
            raise ValueError(f"{here}: state_dict must fit the module, got\n" + textwrap.indent("\n".join(problems), "  "))
        with np.errstate(all="ignore"):  # what is too large becomes inf, as in torch, and no error ends this in the middle
            for name, value in given.items():
                own[name][...] = value
        return IncompatibleKeys(missing, unexpected)

    def extra_repr(self) -> str:
        """The text inside the brackets of ``repr``."""
        return ""

    def __repr__(self) -> str:
        children = [f"({name}): {child!r}" for name, child in self.named_children()]
        inside = textwrap.indent("\n".join(children), "  ")
        return f"{type(self).__name__}(\n{inside}\n)" if children else f"{type(self).__name__}({self.extra_repr()})"


class Layer(Module):
    """A module for one operation; a subclass names it and calls it in its ``forward``."""

    operation: ModuleType
    _cache: Any = None

    def backward(self, grad_out: np.ndarray, *, need_input_grad: bool = True) -> np.ndarray | None:
        """Add to the parameters' gradients, and return the input's gradient.

        Raises:
            RuntimeError: there was no forward pass in training mode since the last ``backward``.
            TypeError, ValueError: ``grad_out`` does not fit the output.
        """
        grad_x = self._backward(grad_out, self._remembered(), need_input_grad)
        self._cache = None
        return grad_x

    def _backward(self, grad_out: np.ndarray, cache: Any, need_input_grad: bool) -> np.ndarray | None:
        grad_x: np.ndarray = self.operation.backward(grad_out, cache)[0]
        return grad_x

    def _remember(self, out: Out, cache: Any) -> Out:
        self._cache = cache if self.training else None
        return out

    def _remembered(self) -> Any:
        if self._cache is None:
            raise RuntimeError(
                f"{type(self).__name__}.backward: must follow a forward pass in training mode, one backward for each, "
                f"got none since the last backward (training is {self.training})"
            )
        return self._cache


class WeightedLayer(Layer):
    """A layer with a weight and perhaps a bias."""

    weight: Parameter
    bias: Parameter | None

    def _start(
        self, outputs: str, weight_shape: tuple[int, ...], bias: bool, dtype: DTypeLike, rng: np.random.Generator | None
    ) -> None:
        """Draw weight and bias from U(-1/√n, 1/√n), where an output has n inputs: torch's ``kaiming_uniform_(a=√5)``.

        Without inputs the bias is 0, as torch's is.
        ``outputs`` is the constructor's name for the number of outputs.
        """
        name = type(self).__name__
        dtype = checks.floating(name, "dtype", dtype)
        checks.room(name, outputs, weight_shape[0], "a weight", weight_shape, dtype)
        scalar: Any = dtype.type
        rng = random_generator(name, rng)
        inputs = math.prod(weight_shape[1:])
        bound = 1 / math.sqrt(inputs) if inputs else 0.0

        def uniform(shape: tuple[int, ...]) -> Parameter:
            values = rng.random(dtype=scalar, out=memory.empty(shape, dtype))
            values *= 2 * bound
            values -= bound
            return Parameter(values)

        self.weight = uniform(weight_shape)
        self.bias = uniform(weight_shape[:1]) if checks.flag(name, "bias", bias) else None

    def _arrays(self) -> tuple[np.ndarray, np.ndarray | None]:
        for name, value in (("weight", self.weight), ("bias", self.bias)):
            if not isinstance(value, Parameter) and (value is not None or name == "weight"):
                raise TypeError(f"{type(self).__name__}: {name} must be a Parameter, got {checks.shown(value)}")
        return self.weight.data, None if self.bias is None else self.bias.data

    def _backward(self, grad_out: np.ndarray, cache: Any, need_input_grad: bool) -> np.ndarray | None:
        grad_x: np.ndarray | None
        grad_x, grad_weight, grad_bias = self.operation.backward(grad_out, cache, need_grad_x=need_input_grad)
        self.weight.accumulate(grad_weight)
        if self.bias is not None:
            self.bias.accumulate(grad_bias)
        return grad_x


def random_generator(name: str, rng: np.random.Generator | None) -> np.random.Generator:
    """``rng``, or if it is None a new generator, which no seed can repeat."""
    if rng is None:
        return np.random.default_rng()
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"{name}: rng must be a numpy.random.Generator or None, got {checks.shown(rng)}")
    return rng
