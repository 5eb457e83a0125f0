"""The optimizer as an object: parameters in any layout and several at once, state dicts that go both ways, errors.

The generic test shows that every rung takes the right steps, in torch's form and in the paper's (``optimizer.py``).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

import scratch
import scratch.sgd
import torch_impl.sgd
from alexnet_from_scratch.proof import optimizer
from alexnet_from_scratch.proof.bounds import Rounding
from alexnet_from_scratch.proof.draws import FLOATS, LAYOUTS, Case, values
from alexnet_from_scratch.proof.parity import in_bounds
from parity_tests.verdicts import ODD_VALUES, assert_same_verdict, odd_array

FLOAT32, FLOAT64 = FLOATS
SGD: Any = scratch.sgd.SGD  # Any: what the types forbid must also raise
WRITABLE = sorted(LAYOUTS.keys() - {"read-only"})


def parameter(data: Any, grad: Any = None) -> SimpleNamespace:
    return SimpleNamespace(data=data, grad=grad)


# --- steps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rung", scratch.sgd.RUNGS)
@given(data=st.data())
def test_parameters_in_any_layout_are_updated_where_they_are(rung, data):
    """Up to three parameters with the same start, each in its own layout and each without a gradient at some steps."""
    case = data.draw(optimizer.cases(data.draw(st.sampled_from(FLOATS))))
    start, *gradients = case.arrays
    steps = len(gradients)
    layouts = data.draw(st.lists(st.sampled_from(WRITABLE), min_size=1, max_size=3))
    present = [data.draw(st.lists(st.booleans(), min_size=steps, max_size=steps)) for _ in layouts]
    arrays = [LAYOUTS[layout](start) for layout in layouts]
    parameters = [parameter(array) for array in arrays]
    options = {name: value for name, value in case.params.items() if name != "lr"}
    sgd = SGD(parameters, lr=0, **options)
    with scratch.use_rung(rung):
        for step, (lr, gradient) in enumerate(zip(case.params["lr"], gradients, strict=True)):
            sgd.lr = lr
            for each, has_one in zip(parameters, present, strict=True):
                each.grad = LAYOUTS[data.draw(st.sampled_from(list(LAYOUTS)))](gradient) if has_one[step] else None
            sgd.step()
    for each, array, has_one in zip(parameters, arrays, present, strict=True):
        assert each.data is array
        seen = [(lr, g) for lr, g, has in zip(case.params["lr"], gradients, has_one, strict=True) if has]
        with np.errstate(all="ignore"):
            (expected,), _ = optimizer.reference(
                Rounding(case.dtype), start, *(g for _, g in seen), lr=tuple(lr for lr, _ in seen), **options
            )
        assert in_bounds(array, expected).max(initial=0) <= 1
        around = array if array.base is None else array.base
        array[...] = 0
        assert not around.any()  # nothing was written between the elements of a slice


def test_zero_grad_forgets_and_a_step_without_gradients_does_nothing():
    only = parameter(np.ones(3), np.ones(3))
    sgd = SGD([only], lr=1, momentum=0.5)
    sgd.zero_grad()
    assert only.grad is None
    sgd.step()
    assert (only.data == 1).all()
    assert sgd.state_dict()["state"] == {}


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad_may_fill_with_zeros_as_in_torch(set_to_none):
    ours, theirs = [parameter(np.ones(3), np.ones(3)), parameter(np.ones(3))], [torch.ones(3), torch.ones(3)]
    theirs[0].grad = torch.ones(3)
    gradient, torch_gradient = ours[0].grad, theirs[0].grad
    SGD(ours, lr=1).zero_grad(set_to_none=set_to_none)
    torch_impl.sgd.SGD(theirs, lr=1).zero_grad(set_to_none=set_to_none)
    assert [each.grad is None for each in ours] == [each.grad is None for each in theirs] == [set_to_none, True]
    assert gradient.any() == torch_gradient.any().item() == set_to_none


# --- state dicts ------------------------------------------------------------------------------------------------------


def by_torch(sgd: torch.optim.SGD, tensor: torch.Tensor, gradients: list[np.ndarray]) -> None:
    for gradient in gradients:
        tensor.grad = torch.from_numpy(gradient)
        sgd.step()


def by_scratch(sgd: Any, own: SimpleNamespace, gradients: list[np.ndarray]) -> None:
    for gradient in gradients:
        own.grad = gradient
        sgd.step()


@given(data=st.data())
def test_training_goes_on_from_the_others_state_dict(data):
    """With small integers and powers of two nothing rounds, so both must arrive at exactly the numbers of an unbroken run."""
    start, *gradients = (data.draw(values(FLOAT64, (3, 2), "integers")) for _ in range(5))
    dampening = data.draw(st.sampled_from([0.0, 0.25]))
    update = data.draw(st.sampled_from(["torch", "paper"] if dampening == 0 else ["torch"]))
    options = {
        "lr": data.draw(st.sampled_from([0.5, 0.25])),
        "momentum": data.draw(st.sampled_from([0.5, 0.0])),
        "weight_decay": data.draw(st.sampled_from([0.0, 0.5])),
        "maximize": data.draw(st.booleans()),
        "dampening": dampening,
        "update": update,
    }
    options["nesterov"] = options["momentum"] != 0 and dampening == 0 and update == "torch" and data.draw(st.booleans())
    stop = data.draw(st.integers(0, 4))

    unbroken = torch.from_numpy(start.copy())
    by_torch(torch_impl.sgd.SGD([unbroken], **options), unbroken, gradients)

    ours, theirs = parameter(start.copy()), torch.from_numpy(start.copy())
    sgd, torch_sgd = SGD([ours], **options), torch_impl.sgd.SGD([theirs], **options)
    by_scratch(sgd, ours, gradients[:stop])
    by_torch(torch_sgd, theirs, gradients[:stop])

    # Everything except the state dict is new and set to something else.
    from_torch, from_scratch = SGD([ours], lr=9), torch_impl.sgd.SGD([theirs], lr=9)
    state, torch_state = sgd.state_dict(), torch_sgd.state_dict()
    from_torch.load_state_dict(converted(torch_state, lambda value: value.numpy()))
    from_scratch.load_state_dict(converted(state, torch.from_numpy))
    by_scratch(from_torch, ours, gradients[stop:])
    by_torch(from_scratch, theirs, gradients[stop:])
    np.testing.assert_array_equal(ours.data, unbroken.numpy())
    np.testing.assert_array_equal(theirs.numpy(), unbroken.numpy())


def converted(state_dict: dict[str, Any], convert: Any) -> dict[str, Any]:
    """The same state dict with every velocity converted."""
    velocities = {i: entry.get("momentum_buffer") for i, entry in state_dict["state"].items()}
    state = {i: {"momentum_buffer": None if v is None else convert(v)} for i, v in velocities.items()}
    return {**state_dict, "state": state}


def test_a_state_dict_is_a_copy():
    only = parameter(np.ones(3), np.ones(3))
    sgd = SGD([only], lr=1, momentum=0.5)
    sgd.step()
    state = sgd.state_dict()
    velocity = state["state"][0]["momentum_buffer"]
    sgd.step()
    assert (velocity == 1).all()
    sgd.load_state_dict(state)
    sgd.step()
    assert (velocity == 1).all()


BUFFER = {"momentum_buffer": np.ones(3)}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"param_groups": None}, TypeError, "sgd: param_groups must be a sequence, got NoneType"),
        ({"param_groups": [None]}, TypeError, "sgd: a group must be a mapping, got NoneType"),
        ({"param_groups": [{"params": 0}]}, TypeError, "sgd: params must be a sequence, got int"),
        ({"param_groups": []}, ValueError, r"one group of 1 parameters, got groups of \[\]"),
        ({"param_groups": [{"params": [0, 1]}]}, ValueError, r"one group of 1 parameters, got groups of \[2\]"),
        ({"param_groups": [{"params": [0]}]}, ValueError, r"sgd: a group must have 'lr', got \['update', 'params'\]"),
        ({"param_groups": [{}]}, ValueError, r"sgd: a group must have 'params', got \[\]"),
        ({"state": []}, TypeError, "sgd: state must be a mapping, got list"),
        ({"state": {0: [1.0]}}, TypeError, "sgd: state of parameter 0 must be a mapping, got list"),
        ({"state": {1: BUFFER}}, ValueError, "states of parameters 0 to 0, got 1"),
        ({"state": {-1: BUFFER}}, ValueError, "states of parameters 0 to 0, got -1"),
        ({"state": {0: {"momentum_buffer": np.ones(4)}}}, ValueError, r"momentum_buffer .* its shape \(3,\), got \(4,\)"),
        ({"state": {0: {"momentum_buffer": np.ones(3, np.float32)}}}, TypeError, "momentum_buffer .* float64 .* float32"),
        ({"state": {0: {"momentum_buffer": [1.0] * 3}}}, TypeError, "momentum_buffer .* must be a NumPy array, got list"),
    ],
)
def test_a_bad_state_dict_changes_nothing(change, error, message):
    only = parameter(np.ones(3), np.ones(3))
    sgd = SGD([only], lr=1, momentum=0.5)
    sgd.step()
    before = sgd.state_dict()
    with pytest.raises(error, match=message):
        sgd.load_state_dict({**before, **change})
    assert repr(sgd.state_dict()) == repr(before)


def test_no_state_dict_at_all():
    with pytest.raises(TypeError, match="sgd: state_dict must be a mapping, got NoneType"):
        SGD([parameter(np.ones(3))], lr=1).load_state_dict(None)


@pytest.mark.parametrize("missing", ["param_groups", "state"])
def test_a_state_dict_without_a_part(missing):
    sgd = SGD([parameter(np.ones(3))], lr=1)
    state = {name: part for name, part in sgd.state_dict().items() if name != missing}
    with pytest.raises(ValueError, match=f"sgd: state_dict must have '{missing}', got "):
        sgd.load_state_dict(state)


@pytest.mark.parametrize("value", [None, 1, np.ones(3)], ids=type)
def test_zero_grad_takes_a_bool(value):
    with pytest.raises(TypeError, match="sgd: set_to_none must be True or False, got "):
        SGD([parameter(np.ones(3))], lr=1).zero_grad(value)


# --- errors -----------------------------------------------------------------------------------------------------------


@st.composite
def odd_steps(draw: DrawFn) -> Case:
    """A valid case with one or two of its options, rates or arrays replaced."""
    case = draw(optimizer.cases(FLOAT32))
    params, arrays = dict(case.params), list(case.arrays)
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(["arrays", *params]))
        if name == "arrays":
            i = draw(st.integers(0, len(arrays) - 1))
            arrays[i] = draw(odd_array(arrays[i]))
        elif name == "lr":
            i = draw(st.integers(0, len(params["lr"]) - 1))
            params["lr"] = (*params["lr"][:i], draw(ODD_VALUES), *params["lr"][i + 1 :])
        else:
            params[name] = draw(ODD_VALUES)
    return Case(tuple(arrays), params, case.palette)


@given(case=odd_steps())
def test_scratch_raises_if_and_only_if_torch_raises(case):
    assert_same_verdict("sgd", case)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ([], ValueError, "sgd: parameters must hold at least one parameter, got none"),
        (parameter(np.ones(1)), TypeError, "sgd: parameters must be iterable, got "),
        (np.array(1.5), TypeError, r"sgd: parameters must be iterable, got array\(1.5\)"),
        ([1.0], TypeError, r"sgd: parameters\[0\] must have data and grad, got float"),
        ([("weight", parameter(np.ones(1)))], TypeError, r"sgd: parameters\[0\] must have data and grad, got tuple"),
        ([parameter([1.0])], TypeError, r"sgd: parameters\[0\].data must be a NumPy array, got list"),
        ([parameter(np.ones(2, np.int64))], TypeError, r"must be float32 or float64, got int64 with shape \(2,\)"),
        ([parameter(np.broadcast_to(1.0, 3))], ValueError, r"parameters\[0\].data must be writable, got .* shape \(3,\)"),
        ([parameter(np.ones(1))] * 2, ValueError, "sgd: parameters must hold each parameter once, got one twice"),
    ],
)
def test_bad_parameters(parameters, error, message):
    with pytest.raises(error, match=message):
        SGD(parameters, lr=0.1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lr": -1}, ValueError, "sgd: lr must be at least 0, got -1"),
        ({"lr": "fast"}, TypeError, "sgd: lr must be a number, got 'fast'"),
        ({"momentum": -0.1}, ValueError, "sgd: momentum must be at least 0, got -0.1"),
        ({"weight_decay": float("nan")}, ValueError, "sgd: weight_decay must be at least 0, got nan"),
        ({"maximize": 1}, TypeError, "sgd: maximize must be True or False, got 1"),
        ({"nesterov": True}, ValueError, "sgd: nesterov must come with momentum and without dampening, got momentum 0.0"),
        ({"update": "adam"}, ValueError, "sgd: update must be one of .*, got 'adam'"),
        ({"update": "paper", "dampening": 0.5}, ValueError, "sgd: update 'paper' must come without dampening and nesterov"),
    ],
)
def test_bad_options_are_found_at_the_start_and_at_every_step(options, error, message):
    only = parameter(np.ones(2), np.ones(2))
    with pytest.raises(error, match=message):
        SGD([only], **{"lr": 0.1, **options})
    sgd = SGD([only], lr=0.1)
    vars(sgd).update(options)
    with pytest.raises(error, match=message):
        sgd.step()
    assert (only.data == 1).all()


def test_a_bad_gradient_changes_no_parameter():
    good, bad = parameter(np.ones(2), np.ones(2)), parameter(np.ones(2), np.ones(3))
    sgd = SGD([good, bad], lr=0.1)
    with pytest.raises(ValueError, match=r"sgd: grad of parameters\[1\] must have its shape \(2,\), got \(3,\)"):
        sgd.step()
    assert (good.data == 1).all()


def test_a_velocity_must_still_fit():
    only = parameter(np.ones(2), np.ones(2))
    sgd = SGD([only], lr=0.1, momentum=0.9)
    sgd.step()
    only.data, only.grad = np.ones(3), np.ones(3)
    with pytest.raises(ValueError, match=r"sgd: momentum_buffer of parameters\[0\] must have its shape \(3,\), got \(2,\)"):
        sgd.step()


# --- the paper's rule -------------------------------------------------------------------------------------------------


def test_the_papers_rate_acts_on_new_gradients_only():
    """Section 5's two lines, worked by hand: v = 0.5 v - 0.25 · lr · w - lr · g; w = w + v, with lr first 0.5, then 0.25."""
    only = parameter(np.array([8.0]), np.array([4.0]))
    sgd = SGD([only], lr=0.5, momentum=0.5, weight_decay=0.25, update="paper")
    sgd.step()  # v = 0 - 0.25 · 0.5 · 8 - 0.5 · 4 = -3
    assert only.data == [5.0]
    sgd.lr = 0.25
    sgd.step()  # v = 0.5 · -3 - 0.25 · 0.25 · 5 - 0.25 · 4 = -2.8125
    assert only.data == [2.1875]


@pytest.mark.parametrize("update", scratch.sgd.UPDATES)
def test_torchs_side_takes_a_closure_and_returns_its_loss(update):
    w = torch.tensor([4.0, -2.0], requires_grad=True)
    sgd = torch_impl.sgd.SGD([w], lr=0.25, update=update)

    def closure() -> Any:
        loss = (w * w).sum()
        loss.backward()
        return loss.detach()

    with torch.no_grad():  # the closure's gradients are recorded all the same
        assert sgd.step(closure) == 20
    np.testing.assert_array_equal(w.detach(), [2, -1])


@given(data=st.data())
def test_at_one_rate_both_rules_take_the_same_steps(data):
    start, *gradients = (data.draw(values(FLOAT64, (4,), "integers")) for _ in range(4))
    options = {"lr": 0.5, "momentum": 0.5, "weight_decay": 0.25}
    torchs, papers = (parameter(start.copy()) for _ in range(2))
    by_scratch(SGD([torchs], **options), torchs, gradients)
    by_scratch(SGD([papers], **options, update="paper"), papers, gradients)
    np.testing.assert_array_equal(torchs.data, papers.data)
