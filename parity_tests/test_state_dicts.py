"""State dicts: the parameters themselves on the way out, checked copies on the way in, and nothing changed by a bad one."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch

import scratch.modules

modules: Any = scratch.modules  # Any: what the types forbid must also raise
CrossEntropyLoss, Linear, ReLU, Sequential = modules.CrossEntropyLoss, modules.Linear, modules.ReLU, modules.Sequential


def test_state_dict_is_the_parameters_themselves():
    layer = Linear(2, 3)
    layer.state_dict()["weight"].fill(7)
    assert (layer.weight.data == 7).all()


def test_loading_copies_and_converts():
    layer = Linear(2, 3)
    mine = layer.weight.data
    given = {"weight": np.full((3, 2), 0.1, ">f8", order="F"), "bias": np.arange(3, dtype=np.float16)}
    layer.load_state_dict(given)
    assert layer.weight.data is mine
    assert mine.dtype == np.float32
    assert (mine == np.float32(0.1)).all()
    given["weight"].fill(0)
    assert mine.all()


def test_loading_names_all_that_is_wrong_and_changes_nothing():
    network = Sequential(Linear(2, 3), Linear(3, 2))
    before = {name: array.copy() for name, array in network.state_dict().items()}
    state = {
        "0.weight": np.zeros((3, 2)),
        "0.bias": np.zeros((4,)),
        "1.weight": [[0.0] * 3] * 2,
        "extra": np.zeros(1),
    }
    with pytest.raises(ValueError, match=r"Sequential\.load_state_dict") as caught:
        network.load_state_dict(state)
    for part in (
        "missing keys: 1.bias",
        "unexpected keys: extra",
        "0.bias must have shape (3,), got (4,)",
        "1.weight must be a NumPy array, got list",
    ):
        assert part in str(caught.value)
    state = {**before, "0.bias": np.zeros(3, np.int64), "1.bias": np.zeros(2, np.complex64)}
    with pytest.raises(ValueError, match=r"0.bias must be an array of floats, got int64\n.*1.bias must .* got complex64"):
        network.load_state_dict(state)
    with pytest.raises(TypeError, match="state_dict must be a mapping of names to arrays, got list"):
        network.load_state_dict([])
    assert all(np.array_equal(array, before[name]) for name, array in network.state_dict().items())


def test_loading_what_fits_only():
    network = Sequential(Linear(2, 3), Linear(3, 2))
    result = network.load_state_dict({"0.bias": np.ones(3), "extra": np.zeros(1)}, strict=False)
    assert result.missing_keys == ["0.weight", "1.weight", "1.bias"]
    assert result.unexpected_keys == ["extra"]
    assert (network[0].bias.data == 1).all()
    with pytest.raises(ValueError, match=r"0.bias must have shape"):
        network.load_state_dict({"0.bias": np.ones(4)}, strict=False)


def test_a_class_weight_is_a_buffer_as_in_torch():
    """If there is one, it is in the state dict, and not a parameter; it is the array that was passed, and loading writes to
    it.
    """
    given = np.ones(3)
    ours, theirs = CrossEntropyLoss(given), torch.nn.CrossEntropyLoss(torch.ones(3))
    assert list(ours.state_dict()) == list(theirs.state_dict()) == ["weight"]
    assert list(ours.parameters()) == list(theirs.parameters()) == []
    assert ours.state_dict()["weight"] is given
    assert ours.load_state_dict({"weight": np.arange(3.0)}) == ([], [])
    assert np.array_equal(given, [0, 1, 2])
    with pytest.raises(ValueError, match="missing keys: weight"):
        ours.load_state_dict({})
    with pytest.raises(ValueError, match=r"weight must have shape \(3,\), got \(4,\)"):
        ours.load_state_dict({"weight": np.ones(4)})

    assert CrossEntropyLoss().state_dict() == torch.nn.CrossEntropyLoss().state_dict() == {}
    with pytest.raises(ValueError, match="unexpected keys: weight"):
        CrossEntropyLoss().load_state_dict({"weight": given})


def test_modules_can_be_pickled():
    network = Sequential(Linear(2, 3), Sequential(ReLU(), Linear(3, 1)))
    x = np.ones((4, 2), np.float32)
    assert np.array_equal(pickle.loads(pickle.dumps(network))(x), network(x))
