"""Every function and class takes what torch's takes, under the same names and with the same defaults."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

import scratch.modules
import torch_impl.modules
import torch_impl.sgd
from parity_tests.verdicts import SPEC
from scratch.sgd import SGD

# What only torch takes: gradients by autograd, memory to write to, deprecated words, parameters without data; and where ours
# has another name. The rest of each signature must be the same.
OF_TORCH_ALONE = {
    "device",
    "dtype",
    "size_average",
    "reduce",
    "_stacklevel",
    "foreach",
    "differentiable",
    "fused",
    "padding_mode",
}
OF_OURS_ALONE = {"rng", "mask", "update", "dtype"}  # torch's dtype is None, for its own default
INPUTS = {"x": "input", "logits": "input", "parameters": "params"}
# torch warns when a softmax does not name its axis, and then takes this one for a matrix.
DEFAULTS = {("softmax", "dim"): 1, ("log_softmax", "dim"): 1}
OPERATIONS = [name for name in SPEC if name != "sgd"]
CLASSES = [name for name in torch_impl.modules.__all__ if name not in ("Module", "Parameter", "Sequential", "Flatten")]


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """Names and defaults in order; torch's functions in C++ have them in the first line of their documentation only."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:
        line = (function.__doc__ or "").strip().splitlines()[0].split(" -> ")[0]
        (node,) = ast.parse(f"def {line}: pass").body
        assert isinstance(node, ast.FunctionDef)
        names = [argument.arg for argument in node.args.args]
        values = [inspect.Parameter.empty] * (len(names) - len(node.args.defaults))
        return dict(zip(names, [*values, *map(ast.literal_eval, node.args.defaults)], strict=True))
    return {parameter.name: parameter.default for parameter in parameters}


def assert_same(operation: str, ours: dict[str, Any], torchs: dict[str, Any]) -> None:
    ours = {INPUTS.get(name, name): default for name, default in ours.items() if name not in OF_OURS_ALONE}
    torchs = {name: default for name, default in torchs.items() if name in ours or name not in OF_TORCH_ALONE}
    assert set(ours) == set(torchs)
    for name, default in torchs.items():
        expected = DEFAULTS.get((operation, name), default)
        assert ours[name] == expected, f"{operation}: {name}: {ours[name]!r}, torch's is {expected!r}"
        assert type(ours[name]) is type(expected) or {type(ours[name]), type(expected)} == {int, float}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_forward_takes_the_same_on_both_sides(operation):
    ours, theirs = (inspect.signature(getattr(SPEC[operation], side).forward).parameters for side in ("scratch", "torch"))
    assert list(ours) == list(theirs)
    for name, parameter in ours.items():
        assert (parameter.kind, parameter.default) == (theirs[name].kind, theirs[name].default), name


@pytest.mark.parametrize("operation", OPERATIONS)
def test_forward_takes_what_torchs_function_takes(operation):
    function = getattr(torch.nn.functional, operation)
    torchs = defaults(torch.nn.functional.max_pool2d_with_indices if operation == "max_pool2d" else function)
    if operation == "dropout":
        torchs.pop("inplace")  # ours would have no use for it: the mask and the output are both kept
    assert_same(operation, defaults(SPEC[operation].scratch.forward), torchs)


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_takes_what_torchs_takes(name):
    theirs = defaults(getattr(torch.nn, name))
    assert_same(name, defaults(getattr(scratch.modules, name)), theirs)
    assert defaults(getattr(torch_impl.modules, name)) == theirs


def test_the_optimizers_take_what_torchs_takes():
    assert_same("sgd", defaults(SGD), defaults(torch.optim.SGD))
    ours, theirs = (inspect.signature(kind).parameters for kind in (SGD, torch_impl.sgd.SGD))
    assert [(p.name, p.kind, p.default) for p in ours.values()] == [(p.name, p.kind, p.default) for p in theirs.values()]
