"""Verify, then time: what a side computes is compared with the parity suite's reference, element by element.

The reference works in float64 and carries an a-priori bound on the rounding error of every element
(``alexnet_from_scratch/proof/bounds.py``), so "equal" is not a matter of taste. The check uses the same data as the timing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from alexnet_from_scratch.proof.bounds import FACTOR, Bounded, Rounding
from alexnet_from_scratch.proof.specs import SPECS, Spec
from benchmarks.subjects.cases import Case, Layer, Network, Update
from benchmarks.subjects.inputs import Inputs
from benchmarks.subjects.sides import SGD, Arrays
from torch_impl.alexnet import AlexNet

FLOAT32 = Rounding(np.dtype(np.float32))
Check = Callable[[np.ndarray], float]  # a result's largest error as a share of what rounding allows: above 1 it is wrong
TURNED = 0.01  # of a gradient's length, see _network; the largest seen is 0.0023
CHUNK = 1 << 17  # how many of an optimizer's parameters are checked at once, to bound memory


class Judged(NamedTuple):
    """A result compared with the right one: :data:`Check`'s share, and for a layer's result :meth:`Within.errors`."""

    share: float
    errors: tuple[float, float] | None = None


@dataclass(frozen=True)
class Within:
    """The check of a layer's result: its right value, with a bound for every element."""

    bounded: Bounded

    def __call__(self, result: np.ndarray) -> float:
        return share(self.bounded, result)

    def errors(self, result: np.ndarray) -> tuple[float, float]:
        """The root mean square error and the largest one, relative to the values' root mean square."""
        size = float(np.sqrt(np.mean(np.square(self.bounded.value)))) or 1.0
        error = np.abs(result - self.bounded.value)
        return float(np.sqrt(np.mean(np.square(error)))) / size, float(np.max(error)) / size


class Judge:
    """Knows the inputs and the right results of every case. It runs in its own process, which is idle while others are timed."""

    def __init__(self, batch: int, seed: int) -> None:
        self.inputs = Inputs(batch, seed)
        self.checks: Callable[[str], dict[str, Check]]

    def arrays(self, case: Case) -> Arrays:
        """The case's inputs; until the next call, results are checked against this case."""
        arrays = self.inputs.arrays(case)
        self.checks = cache(partial(checks, case, arrays))
        self.checks("")  # now, not between the sides' measurements
        return arrays

    def judge(self, results: Arrays, rung: str) -> dict[str, Judged]:
        """Every result that the case must have; the share is inf if it is missing or not a number.

        ``rung`` is the rung of scratch that computed them, if it has its own bound, else "".
        """
        return {name: judged(check, results.get(name)) for name, check in self.checks(rung).items()}


def judged(check: Check, result: np.ndarray | None) -> Judged:
    """What ``check`` says of a result, or of a missing one."""
    found = math.inf if result is None else check(result)
    if result is None or not found < math.inf:  # not a number counts as infinite
        return Judged(math.inf)
    return Judged(found, check.errors(result)) if isinstance(check, Within) else Judged(found)


def own_bound(case: Case, rung: str) -> str:
    """``rung`` if it rounds numbers that the operation's definition does not have; otherwise ""."""
    return rung if isinstance(case, Layer) and rung in _spec(case).own_bounds else ""


def _spec(case: Layer) -> Spec:
    return next(spec for spec in SPECS if spec.name == case.operation)


def checks(case: Case, arrays: Arrays, rung: str) -> dict[str, Check]:
    """The check for every result of ``case``; ``rung`` as in :meth:`Judge.judge`."""
    if isinstance(case, Layer):
        return _layer(case, arrays, rung)
    if isinstance(case, Update):
        names = [name for name in arrays if not name.startswith("grad_")]
        return {name: partial(_updated, arrays[name], arrays[f"grad_{name}"]) for name in names}
    return _network(case, arrays)


def share(bounded: Bounded, result: np.ndarray) -> float:
    """The largest error of ``result`` as a share of ``bounded``'s; inf if its shape is wrong."""
    if result.shape != bounded.value.shape:
        return math.inf
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.abs(result - bounded.value)
        shares = np.where(error == 0, 0, error / bounded.error)
    return float(np.max(np.where(np.isnan(shares), np.inf, shares), initial=0))


def _layer(case: Layer, arrays: Arrays, rung: str) -> dict[str, Check]:
    reference = _spec(case).reference_of(rung)
    names = [name for name in ("x", "weight", "bias", "target") if name in arrays]
    (out,), pullback = reference(FLOAT32, *[arrays[name] for name in names], **case.params)
    bounded = {"out": out}
    for name, gradient in zip(names, pullback(arrays["grad_out"]), strict=False):  # an integer target has no gradient
        if name != "x" or case.needs_grad_x:
            bounded[f"grad_{name}"] = gradient
    return {name: Within(value) for name, value in bounded.items()}


def _updated(parameter: np.ndarray, gradient: np.ndarray, result: np.ndarray) -> float:
    """Checks two steps of SGD as torch documents it, with momentum and weight decay.

    The result is linear in parameter and gradient, so its bound is that of a sum of products: gamma_n times the same
    formula with all signs plus, where n is the number of roundings on the longest path, from the parameter through both steps.
    """
    if result.shape != parameter.shape:
        return math.inf
    flat = [array.reshape(-1) for array in (parameter, gradient, result)]
    shares = []
    for start in range(0, parameter.size, CHUNK):
        p, g, got = (array[start : start + CHUNK].astype(np.float64) for array in flat)
        error = FLOAT32.gamma(13) * _two_steps(np.abs(p), np.abs(g), sign=1)
        shares.append(np.max(np.abs(got - _two_steps(p, g, sign=-1)) / error))
    return float(np.max(shares))


def _two_steps(p: np.ndarray, g: np.ndarray, *, sign: int) -> np.ndarray:
    lr, momentum, decay = SGD["lr"], SGD["momentum"], SGD["weight_decay"]
    velocity = g + decay * p
    p = p + sign * lr * velocity
    return p + sign * lr * (momentum * velocity + g + decay * p)


def _network(case: Network, arrays: Arrays) -> dict[str, Check]:
    """Checks against the same network in torch; dropout is off, because its masks differ between libraries.

    Forward is continuous: logits and loss may err :data:`FACTOR` times as much as torch's own float32 does. Backward is not:
    rounding flips decisions, such as which of two values is larger, or whether one is above zero. In a batch, some of the
    millions of decisions flip in one library and not in the other, and each flip moves a gradient by some thousandths of its
    length. The parity suite tells flips from mistakes by medians over small batches. Here every layer has been checked by itself,
    and only a wrong connection is left to find.
    """
    x, target = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["target"])
    exact, theirs = (_model(case.variant, arrays, dtype) for dtype in (torch.float64, torch.float32))
    with torch.inference_mode():
        expected = exact(x.double())
    logits = theirs(x)
    if case.phase == "inference":
        return {"logits": partial(_near, expected.numpy(), logits.detach().numpy())}
    loss = F.cross_entropy(logits, target)
    loss.backward()
    gradients = {f"grad_{name}": parameter.grad for name, parameter in theirs.named_parameters()}
    named = {name: partial(_alike, gradient.numpy()) for name, gradient in gradients.items() if gradient is not None}
    return {"loss": partial(_near, F.cross_entropy(expected, target).numpy(), loss.detach().numpy()), **named}


def _model(variant: str, arrays: Arrays, dtype: torch.dtype) -> AlexNet:
    model = AlexNet(variant, dropout=0.0, dtype=dtype)
    model.load_state_dict({name: torch.from_numpy(arrays[name]) for name in model.state_dict()})
    return model


def _near(expected: np.ndarray, theirs: np.ndarray, result: np.ndarray) -> float:
    if np.shape(result) != expected.shape:
        return math.inf
    length, error = np.linalg.norm(expected), np.linalg.norm(theirs - expected)
    return float(np.linalg.norm(result - expected) / (FACTOR * max(error, FLOAT32.u * length)))


def _alike(theirs: np.ndarray, result: np.ndarray) -> float:
    if result.shape != theirs.shape:
        return math.inf
    return float(np.linalg.norm(result - theirs) / (TURNED * np.linalg.norm(theirs)))
