"""Stochastic gradient descent with momentum and weight decay, in torch's form and in the paper's.

Both are special cases of one rule, for a parameter w with gradient g (-g to maximize) and velocity v:

    d = g + weight_decay · w
    v = keep · v + gain · d
    w = w + rate · v                          (nesterov: rate · (d + momentum · v); without momentum: v = d)

    keep = momentum, but 0 at the first step: momentum · 0 would be NaN where momentum is infinite
    torch:  gain = 1 - dampening, rate = -lr; the first v is d itself, not dampened
    paper:  gain = -lr,           rate = 1:       v = momentum · v - weight_decay · lr · w - lr · g;    w = w + v

In the paper's form the learning rate is part of the velocity: a new lr affects only new gradients. In torch's form a new lr
rescales everything the velocity has gathered. So the two take the same steps while lr stays the same (the paper's v is then
torch's times -lr). Without momentum, they take the same steps at any lr.

Paper: Krizhevsky, Sutskever, Hinton 2012, section 5. Same as ``torch.optim.SGD``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from alexnet_from_scratch.arguments import iterator
from scratch.compiled import memory
from scratch.compiled.jit import kernel
from scratch.compiled.threads import for_each
from scratch.core import checks
from scratch.core.ladder import Ladder, NotTakenError, Rung

__all__ = ["RUNGS", "SGD"]

UPDATES = ("torch", "paper")
OPTIONS = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize", "update")


class Parameter(Protocol):
    """What the optimizer needs from a parameter; ``scratch.modules.Parameter`` is one."""

    data: np.ndarray
    grad: np.ndarray | None


class Rule(NamedTuple):
    """The numbers of one step, named as in the formulas above."""

    keep: float
    momentum: float
    gain: float
    rate: float
    weight_decay: float
    nesterov: bool


class SGD:
    """Moves parameters against their gradients, one :meth:`step` at a time.

    Every option is an attribute of the same name; ``lr`` may be changed between steps.

    Args:
        parameters: objects with ``data``, a float32 or float64 array that is updated in place, and ``grad``, an array of the
            same shape and dtype or None.
        lr: learning rate, at least 0.
        momentum: how much of the velocity a step keeps, at least 0.
        dampening: how much of the gradient is kept out of the velocity.
        weight_decay: how much of the parameter is added to its gradient, at least 0.
        nesterov: step by the gradient and the next velocity; needs momentum and no dampening.
        maximize: move along the gradients.
        update: 'torch', or 'paper', where the learning rate is part of the velocity. The paper's rule has neither dampening
            nor nesterov and refuses them.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an option is out of its range or does not fit another, a parameter is given twice or is read-only, or
            there are no parameters.
    """

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        maximize: bool = False,
        *,
        update: str = "torch",
    ) -> None:
        self.parameters = list(iterator("sgd", "parameters", parameters))
        self.lr = lr
        self.momentum = momentum
        self.dampening = dampening
        self.weight_decay = weight_decay
        self.nesterov = nesterov
        self.maximize = maximize
        self.update = update
        self._velocities: list[np.ndarray | None] = [None] * len(self.parameters)
        self._checked_numbers()
        if not self.parameters:
            raise ValueError("sgd: parameters must hold at least one parameter, got none")
        if len({id(parameter) for parameter in self.parameters}) < len(self.parameters):
            raise ValueError("sgd: parameters must hold each parameter once, got one twice")
        for i, parameter in enumerate(self.parameters):
            if not (hasattr(parameter, "data") and hasattr(parameter, "grad")):
                raise TypeError(f"sgd: parameters[{i}] must have data and grad, got {type(parameter).__name__}")
            self._checked_data(i)

    def step(self) -> None:
        """Update, in place, every parameter that has a gradient.

        Raises:
            TypeError: a gradient has another dtype than its parameter, or an option was set to a wrong type.
            ValueError: a gradient has another shape than its parameter, or an option was set out of its range. No parameter
                has then changed.
        """
        lr, momentum, dampening, weight_decay = self._checked_numbers()
        gradients = [self._checked_gradient(i) for i in range(len(self.parameters))]
        for i, grad in enumerate(gradients):
            if grad is None:
                continue
            velocity, gain, rate = self._velocities[i], 1 - dampening, -lr
            keep = momentum
            if momentum == 0:
                velocity = None
            elif velocity is None:
                velocity = self._velocities[i] = memory.empty_like(grad)
                velocity.fill(0)
                keep, gain = 0.0, 1.0
            if velocity is not None and self.update == "paper":
                gain, rate = -lr, 1.0
            rule = Rule(keep, momentum, gain, rate, weight_decay, self.nesterov)
            RUNGS.run(self._checked_data(i), grad, velocity, rule, self.maximize)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients: forget them, or with ``set_to_none=False`` fill them with zeros in place."""
        set_to_none = checks.flag("sgd", "set_to_none", set_to_none)
        for parameter in self.parameters:
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.fill(0)

    def state_dict(self) -> dict[str, Any]:
        """The options and copies of the velocities, in the format of ``torch.optim.SGD.state_dict``."""
        state = {i: {"momentum_buffer": v.copy()} for i, v in enumerate(self._velocities) if v is not None}
        options = {name: getattr(self, name) for name in OPTIONS}
        return {"state": state, "param_groups": [{**options, "params": list(range(len(self.parameters)))}]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the options and the velocities from :meth:`state_dict`.

        The state of a ``torch.optim.SGD`` works, too, with its tensors as arrays. It has no ``update``, so 'torch' is used.

        Raises:
            TypeError: ``state_dict``, a part of it, an option or a velocity has the wrong type.
            ValueError: an entry is missing, the number of parameters differs, a velocity has another shape than its parameter,
                or an option is out of its range. After any of these errors, nothing has changed.
        """
        groups = _of_kind(Sequence, "param_groups", _entry("state_dict", state_dict, "param_groups"))
        sizes = [len(_of_kind(Sequence, "params", _entry("a group", group, "params"))) for group in groups]
        if sizes != [len(self.parameters)]:
            raise ValueError(f"sgd: state_dict must have one group of {len(self.parameters)} parameters, got groups of {sizes}")
        group = {"update": "torch", **groups[0]}
        loaded = SGD(self.parameters, **{name: _entry("a group", group, name) for name in OPTIONS})
        for i, entry in _of_kind(Mapping, "state", _entry("state_dict", state_dict, "state")).items():
            if i not in range(len(self.parameters)):
                raise ValueError(
                    f"sgd: state_dict must hold states of parameters 0 to {len(self.parameters) - 1}, got {checks.shown(i)}"
                )
            velocity = _of_kind(Mapping, f"state of parameter {i}", entry).get("momentum_buffer")
            if velocity is not None:
                loaded._velocities[i] = memory.copy(loaded._checked_like(i, "momentum_buffer", velocity))
        vars(self).update(vars(loaded))

    def _checked_numbers(self) -> tuple[float, float, float, float]:
        """Check all options; return lr, momentum, dampening and weight_decay as floats."""
        lr, momentum, dampening, weight_decay = (checks.real("sgd", name, getattr(self, name)) for name in OPTIONS[:4])
        for name, number in (("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay)):
            if not number >= 0:
                raise ValueError(f"sgd: {name} must be at least 0, got {number}")
        for name in ("maximize", "nesterov"):
            checks.flag("sgd", name, getattr(self, name))
        got = f"got momentum {momentum}, dampening {dampening} and nesterov {self.nesterov}"
        if self.nesterov and (momentum == 0 or dampening != 0):
            raise ValueError(f"sgd: nesterov must come with momentum and without dampening, {got}")
        checks.word("sgd", "update", self.update, UPDATES)
        if self.update == "paper" and (self.nesterov or dampening != 0):
            raise ValueError(f"sgd: update 'paper' must come without dampening and nesterov, {got}")
        return lr, momentum, dampening, weight_decay

    def _checked_data(self, i: int) -> np.ndarray:
        data: np.ndarray = np.asarray(checks.plain("sgd", f"parameters[{i}].data", self.parameters[i].data))
        if np.dtype(data.dtype.type) not in checks.FLOATS:
            raise TypeError(f"sgd: parameters[{i}].data must be float32 or float64, got {data.dtype} with shape {data.shape}")
        if not data.flags.writeable:
            raise ValueError(f"sgd: parameters[{i}].data must be writable, got a read-only array of shape {data.shape}")
        return data

    def _checked_like(self, i: int, name: str, value: Any) -> np.ndarray:
        """``value``, C-contiguous and in native byte order, of the shape and dtype of parameter i."""
        data = self._checked_data(i)
        checked = checks.array("sgd", f"{name} of parameters[{i}]", value, dtype=np.dtype(data.dtype.type))
        if checked.shape != data.shape:
            raise ValueError(f"sgd: {name} of parameters[{i}] must have its shape {data.shape}, got {checked.shape}")
        return checked

    def _checked_gradient(self, i: int) -> np.ndarray | None:
        """Parameter i's gradient, checked. The velocity is checked too: the parameter's array may have been replaced."""
        if self._velocities[i] is not None:
            self._checked_like(i, "momentum_buffer", self._velocities[i])
        grad = self.parameters[i].grad
        return None if grad is None else self._checked_like(i, "grad", grad)


def _entry(what: str, mapping: Any, name: str) -> Any:
    """``mapping[name]``, where the mapping is a state dict or a part of it."""
    if name not in _of_kind(Mapping, what, mapping):
        raise ValueError(f"sgd: {what} must have {name!r}, got {checks.shown(list(mapping))}")
    return mapping[name]


def _of_kind(kind: type, name: str, value: Any) -> Any:
    """``value``, a part of a state dict, which must be a mapping or a sequence."""
    if not isinstance(value, kind):
        raise TypeError(f"sgd: {name} must be a {kind.__name__.lower()}, got {type(value).__name__}")
    return value


# --- naive ------------------------------------------------------------------------------------------------------------


def naive_update(data: np.ndarray, grad: np.ndarray, velocity: np.ndarray | None, rule: Rule, maximize: bool) -> None:
    """One element after the other: the specification."""
    keep, momentum, gain, rate, weight_decay, nesterov = rule
    for i in np.ndindex(data.shape):
        d = -grad[i] if maximize else grad[i]
        if weight_decay != 0:
            d += weight_decay * data[i]
        if velocity is not None:
            velocity[i] = keep * velocity[i] + gain * d
            d = d + momentum * velocity[i] if nesterov else velocity[i]
        data[i] += rate * d


# --- numpy ------------------------------------------------------------------------------------------------------------


def numpy_update(data: np.ndarray, grad: np.ndarray, velocity: np.ndarray | None, rule: Rule, maximize: bool) -> None:
    """Process whole arrays at a time: the loops run in C, but every product and every sum is a pass over memory."""
    keep, momentum, gain, rate, weight_decay, nesterov = rule
    d = -grad if maximize else grad
    if weight_decay != 0:
        d = d + weight_decay * data
    if velocity is not None:
        velocity *= keep
        velocity += gain * d
        d = d + momentum * velocity if nesterov else velocity
    data += rate * d


# --- numba ------------------------------------------------------------------------------------------------------------


def numba_update(data: np.ndarray, grad: np.ndarray, velocity: np.ndarray | None, rule: Rule, maximize: bool) -> None:
    """Do everything in one pass over memory, compiled and on all cores: only the three arrays are read or written."""
    if not (data.flags.c_contiguous and data.flags.aligned and data.dtype.isnative):
        raise NotTakenError("sgd: the numba rung writes to C-contiguous arrays in native byte order only")
    rule = Rule._make([*map(data.dtype.type, rule[:-1]), rule.nesterov])
    sign = data.dtype.type(-1 if maximize else 1)
    velocity = None if velocity is None else velocity.ravel()
    for_each(_kernel, data.size, data.reshape(data.size), grad.ravel(), velocity, rule, sign, values=1)


@kernel
def _kernel(first: int, last: int, data: np.ndarray, grad: np.ndarray, velocity: Any, rule: Rule, sign: Any) -> None:
    keep, momentum, gain, rate, weight_decay, nesterov = rule
    # Slices, indexed from 0: an index that might be negative, and so count from the end, keeps LLVM from vectorizing.
    w, g = data[first:last], grad[first:last]
    v = w if velocity is None else velocity[first:last]  # without a velocity, v is not used
    for i in range(w.size):
        d = sign * g[i]
        if weight_decay != 0:
            d += weight_decay * w[i]
        if velocity is None:  # compiled separately: Numba drops the branch that is not taken
            w[i] += rate * d
        else:
            v[i] = keep * v[i] + gain * d
            w[i] += rate * (d + momentum * v[i] if nesterov else v[i])


RUNGS = Ladder("sgd", Rung("naive", naive_update), Rung("numpy", numpy_update), Rung("numba", numba_update))
