"""What operations share, checked by functions that :mod:`parity_tests.mutants_core` also runs on planted mistakes."""

from __future__ import annotations

import contextvars
import copy
import itertools
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import llvmlite
import llvmlite.binding as llvm
import numba
import numpy as np
import pytest
import torch
from numba.core.registry import cpu_target

import scratch
import scratch.data
import torch_impl.data
import torch_impl.modules
import torch_impl.sgd
from alexnet_from_scratch.data.choices import Choices
from scratch.compiled import kernel_cache, memory, threads
from scratch.convolution import winograd_filters
from scratch.core import checks, ladder
from scratch.modules import Conv2d, Linear, Parameter, Sequential
from scratch.sgd import SGD

FLOAT32 = np.dtype(np.float32)
SIZE = memory.SMALL  # elements of a block on the shelf


def _place(size: int) -> int:
    """Where an array of that size comes to lie; it is freed at once."""
    return memory.empty((size,), FLOAT32).ctypes.data


def check_shelf() -> None:
    """A block is used again and again, however much passed over the shelf before; the bytes are those that lie there."""
    shelf = memory._Shelf()
    shelf.limit = 64 * SIZE
    with patch.object(memory, "_shelf", shelf):

        def free() -> int:
            return sum(size * len(blocks) for size, blocks in shelf.blocks.items())

        places = {_place(SIZE) for _ in range(100)}  # in all more than the limit
        assert len(places) == 1
        for more in range(100):  # these lie there, up to the limit
            _place(SIZE + more)
            _place(SIZE)
            assert shelf.bytes == free()
        _place(SIZE)
        assert shelf.limit // 2 < free() <= shelf.limit + 4 * (SIZE + 100)
        assert {_place(SIZE) for _ in range(10)} == places  # the one used last is not the one that goes
        _place(SIZE + 99)
        assert shelf.blocks[4 * (SIZE + 99)] or shelf.freed  # nor the one before
        shelf.bytes = 100 * shelf.limit  # an interrupt may leave too many
        _place(SIZE)
        _place(SIZE + 1)
        assert shelf.bytes == free() > shelf.limit // 2
        assert _place(SIZE) in places


def check_shelf_of_one_size() -> None:
    """Of one size, the block that was used last is used next, and the others go first."""
    shelf = memory._Shelf()
    shelf.limit = 43 * SIZE  # bytes: nine blocks and one twice as large are too many
    with patch.object(memory, "_shelf", shelf):
        arrays = [memory.empty((SIZE,), FLOAT32) for _ in range(9)]
        last = arrays[-1].ctypes.data
        while arrays:
            del arrays[0]
            _place(2 * SIZE)  # puts the one that was freed on the shelf
        assert _place(SIZE) == last


def check_shelf_of_two_sizes() -> None:
    """All blocks of the size used longest ago go before one of a later size does."""
    shelf = memory._Shelf()
    older, later = 64, 128
    for size in (older, later):
        shelf.freed |= dict.fromkeys([shelf.take(size) for _ in range(8)])
    shelf.take(1)  # now they lie there
    shelf.limit = 8 * (older + later) - 1
    shelf.take(1)
    assert [len(shelf.blocks[size]) for size in (older, later)] == [4, 8]  # an eighth or more goes


def check_workspaces() -> None:
    """No two workspaces in use share memory; one that is no longer used is used again."""
    with patch.object(memory, "_spares", memory._Spares()):
        for size in (1, 1000, memory.LARGE):
            held = [memory.workspace(size, FLOAT32) for _ in range(3)]
            assert len({array.ctypes.data for array in held}) == 3
            assert all(array.ctypes.data % memory.ALIGNMENT == 0 for array in held)
            gone = held.pop().ctypes.data
            assert gone in {memory.workspace(size, FLOAT32).ctypes.data for _ in range(3)}


def check_cleared_workspaces() -> None:
    """Workspaces that are not used any more go back to the system when memory is cleared."""
    unused = weakref.ref(memory.workspace(1000, FLOAT32).base)
    assert unused() is not None
    memory.clear()
    assert unused() is None, "clear() keeps workspaces"


def check_context_of_workers() -> None:
    """Threads see the caller's rung and np.errstate."""
    seen: dict[int, tuple[Any, ...]] = {}

    def run(first: int, last: int) -> None:
        rung = scratch.relu.RUNGS.chosen()
        seen[threading.get_ident()] = (rung and rung.name, np.geterr()["over"])
        time.sleep(0.01)  # so that the other threads get some

    before = scratch.get_num_threads()
    scratch.set_num_threads(3)
    try:
        with scratch.use_rung("naive"), np.errstate(over="raise"):
            for _ in range(100):
                threads.for_each(run, 12, ranges_per_thread=4)
                if len(seen) == 3:
                    break
    finally:
        scratch.set_num_threads(before)
    assert len(seen) == 3
    assert set(seen.values()) == {("naive", "raise")}


def check_threads_of_a_child() -> None:
    """A forked child splits kernels over as many threads as its parent, not over as many as a new process."""
    if not hasattr(os, "fork"):
        pytest.skip("needs forks, as POSIX has them")
    before, number = scratch.get_num_threads(), threads._threads_at_the_start() + 1
    scratch.set_num_threads(number)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer Pythons warn of forks beside threads
            child = os.fork()
        if child == 0:
            os._exit(scratch.get_num_threads() != number)
        assert os.waitpid(child, 0) == (child, 0)
    finally:
        scratch.set_num_threads(before)


def check_errors_of_workers() -> None:
    """An error in any thread reaches the caller."""
    caller = threading.get_ident()
    barrier = threading.Barrier(2, timeout=300)

    def run(first: int, last: int) -> None:
        barrier.wait()
        if threading.get_ident() != caller:
            raise ZeroDivisionError("in a thread")

    before = scratch.get_num_threads()
    scratch.set_num_threads(2)
    try:
        with pytest.raises(ZeroDivisionError, match="in a thread"):
            threads.for_each(run, 2, ranges_per_thread=1)
    finally:
        scratch.set_num_threads(before)


def check_an_error_ends_the_call() -> None:
    """After an error in another thread the caller ends the range that it has begun, and soon begins no other."""
    caller, both = threading.get_ident(), threading.Barrier(2, timeout=300)
    done: list[int] = []

    def run(first: int, last: int) -> None:
        if not done:
            both.wait()
        if threading.get_ident() != caller:
            raise ZeroDivisionError("in a thread")
        time.sleep(0.02)
        done.append(first)

    before = scratch.get_num_threads()
    scratch.set_num_threads(2)
    try:
        with pytest.raises(ZeroDivisionError, match="in a thread"):
            threads.for_each(run, 100, ranges_per_thread=50)
    finally:
        scratch.set_num_threads(before)
    assert len(done) < 99


def check_ranges() -> None:
    """Each work item once, in every way to split them; a few ranges are equal, and as many for each thread."""
    for n in (1, 2, 3, 7, 100, 1000):
        for count in (1, 2, 3):
            for each, most in itertools.product((None, 1, 2), {n, min(n, max(count, n // 3))}):
                bounds = threads._bounds(n, count, most, each)
                assert bounds[0] == 0
                assert bounds[-1] == n
                assert all(first < last for first, last in itertools.pairwise(bounds))
    for count, most in ((2, 5), (3, 10), (4, 31)):
        lengths = np.diff(threads._bounds(512, count, most, None))
        assert len(lengths) == most // count * count
        assert np.ptp(lengths) <= 1


def _chosen() -> tuple[str, str]:
    """Relu's rung here and in another thread; "" for the default."""

    def name() -> str:
        rung = scratch.relu.RUNGS.chosen()
        return rung.name if rung else ""

    with ThreadPoolExecutor(1) as pool:
        return name(), pool.submit(name).result()


def check_nested_choices() -> None:
    """The innermost block counts, for the process too; a thread's own choice counts before the process's."""
    with scratch.use_rung(relu="naive", process=True):
        with scratch.use_rung(relu="numpy", process=True):
            assert _chosen() == ("numpy", "numpy")
            with scratch.use_rung("numba"):
                assert _chosen() == ("numba", "numpy")
                with scratch.use_rung(relu="naive"):
                    assert _chosen() == ("naive", "numpy")
                with scratch.use_rung("naive", process=True), scratch.use_rung(conv2d="im2col", process=True):
                    assert _chosen() == ("numba", "naive")
            assert _chosen() == ("numpy", "numpy")
        assert _chosen() == ("naive", "naive")
    for process in (False, True):
        choice = scratch.use_rung("naive", process=process)
        with choice:
            assert _chosen()[0] == "naive"
        assert _chosen() == ("", "")  # though the choice is still there


def check_choices_that_replace() -> None:
    """A choice for all operations replaces those for single ones, except for those that it chooses itself."""

    def replace(process: bool) -> None:
        scratch.set_rung(relu="naive", process=process)
        scratch.set_rung("numpy", conv2d="im2col", process=process)
        assert _chosen() == ("numpy", "numpy" if process else "")
        assert scratch.conv2d.RUNGS.chosen() is scratch.conv2d.RUNGS["im2col"]
        scratch.set_rung(conv2d="naive", process=process)
        assert _chosen()[0] == "numpy"
        assert scratch.conv2d.RUNGS.chosen() is scratch.conv2d.RUNGS["naive"]

    for process in (False, True):
        with patch.object(ladder, "_process_choice", {}):
            contextvars.Context().run(replace, process)


def check_rungs_below() -> None:
    """If the chosen rung does not take the arguments, the one below it runs, not one above it."""
    x, weight = np.ones((1, 2, 5, 5), np.float32), np.ones((2, 2, 4, 4), np.float32)
    with scratch.use_rung("winograd"):
        for value in (1, np.finfo(np.float32).max):  # whose sum overflows
            weight[...] = value
            assert scratch.conv2d.forward(x, weight)[1].rung.name == "implicit_gemm"
        weight[0, 0, 0, 0] = np.inf
        assert scratch.conv2d.forward(x, weight)[1].rung.name == "numba"
    with scratch.use_rung("im2col"):
        out, cache = scratch.conv2d.forward(x, weight)
    assert cache.rung.name == "im2col"
    for wrong in (out[0], out[..., :1], np.float64(1) * np.zeros_like(out, np.float64)):
        with pytest.raises((TypeError, ValueError), match=r"conv2d.backward: grad_out must "):
            scratch.conv2d.backward(wrong, cache)
    with pytest.raises(TypeError, match=r"linear.backward: cache must come from linear.forward, got conv2d.forward's"):
        scratch.linear.backward(out, cache)


def _refused(check: Callable[..., Any], *arguments: Any, **options: Any) -> bool:
    try:
        check("f", "n", *arguments, **options)
    except (TypeError, ValueError):
        return True
    return False


def check_bounds_of_numbers() -> None:
    """The last number that is taken, and the first that is not, at each end."""
    for low in (-1, 0, 1):
        assert checks.integer("f", "n", low, low=low) == low
        assert _refused(checks.integer, low - 1, low=low)
        assert checks.pair("f", "n", (low, low), low=low) == (low, low)
        assert _refused(checks.pair, (low - 1, low), low=low)
        assert _refused(checks.pair, (low, low - 1), low=low)
        assert _refused(checks.pair, low - 1, low=low)
    for number in (-(2**63), 2**63 - 1):
        assert checks.integer("f", "n", number) == number
    for wrong in (-(2**63) - 1, 2**63, True, np.bool_(False), 1.0, "1", None):
        assert _refused(checks.integer, wrong)
    for shape in ((), (3,), (2, 3)):
        ndim = max(1, len(shape))
        assert [checks.axis("f", "n", axis, shape) for axis in range(-ndim, ndim)] == [*range(ndim)] * 2
        assert _refused(checks.axis, ndim, shape)
        assert _refused(checks.axis, -ndim - 1, shape)
    for p in (0, 1, 0.0, 1.0, 0.5):
        assert checks.probability("f", "n", p) == p
    for p in (np.nextafter(0, -1), np.nextafter(1, 2), np.nan, True):
        assert _refused(checks.probability, p)


class _Lazy(Mapping[str, np.ndarray]):
    """Like a file whose arrays are read when they are asked for, and which can be read only once."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = arrays
        self.names = list(arrays)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays.pop(name)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def check_loading() -> None:
    """load_state_dict takes over everything, or nothing."""
    network = Sequential(Linear(2, 3), Linear(3, 2))
    before = {name: array.copy() for name, array in network.state_dict().items()}
    other = {name: np.arange(array.size, dtype=np.float64).reshape(array.shape) for name, array in before.items()}
    last = list(before)[-1]
    wrongs: tuple[Any, ...] = (np.zeros(5), np.zeros(2, np.int64), [0.0, 0.0])
    for wrong in wrongs:
        with pytest.raises(ValueError, match=rf"Sequential.load_state_dict: .*\n.*{last}"):
            network.load_state_dict({**other, last: wrong})
        assert all(np.array_equal(array, before[name]) for name, array in network.state_dict().items())
    network.load_state_dict(_Lazy(dict(other)))
    assert all(np.array_equal(array, other[name]) for name, array in network.state_dict().items())
    with np.errstate(all="raise"):
        network.load_state_dict({**before, last: np.array([1e300, 1e-300])})  # inf and 0 in float32, as in torch
    assert network.state_dict()[last].tolist() == [np.inf, 0]
    assert all(np.array_equal(array, before[name]) for name, array in network.state_dict().items() if name != last)


def check_gradients_add_up_in_place() -> None:
    """As in torch, a second gradient is added to the array of the first: who holds that array, such as an optimizer, sees it."""
    ours, theirs = Parameter(np.ones(2)), torch.ones(2, dtype=torch.float64, requires_grad=True)
    held = []
    for _ in range(2):
        ours.accumulate(np.array([1.0, -2.0]))
        (theirs * torch.tensor([1.0, -2.0], dtype=torch.float64)).sum().backward()
        held.append((ours.grad, theirs.grad))
    (first, torchs_first), (second, torchs_second) = held
    assert torchs_second is torchs_first
    assert second is first
    assert first is not None
    assert first.tolist() == [2.0, -4.0]


CHANGES = (
    {"momentum": (0.5, 0.0, 0.5)},
    {"momentum": (0.0, 0.5, 0.25)},
    {"lr": (0.5, 0.25, 1.0), "momentum": (0.5,) * 3},
    {"weight_decay": (0.0, 0.5, 0.25), "momentum": (0.5,) * 3},
    {"dampening": (0.5, 0.0, 0.25), "momentum": (0.5, 0.5, 0.5)},
    {"momentum": (0.5, 0.0, 0.25), "dampening": (0.25, 0.5, 0.0)},
    {"maximize": (True, False, True), "momentum": (0.5,) * 3},
    {"nesterov": (True, False, True), "momentum": (0.5,) * 3},
)
RULES = ("torch", "paper")


def check_changing_options() -> None:
    """Options that change between steps act as in torch. Nothing rounds, so both sides arrive at the same numbers."""
    rng = np.random.default_rng(0)
    gradients = rng.integers(-4, 5, (6, 3, 2)).astype(np.float64)
    for update in RULES:
        for changes in CHANGES:
            if update == "paper" and {"dampening", "nesterov"} & changes.keys():
                continue
            ours = SimpleNamespace(data=np.ones((3, 2)), grad=None)
            theirs = torch.ones((3, 2), dtype=torch.float64)
            momentum = changes.get("momentum", (0.0,))[0]
            first: dict[str, Any] = {"lr": 0.5, "momentum": momentum, "nesterov": "nesterov" in changes, "update": update}
            sides: tuple[Any, Any] = SGD([ours], **first), torch_impl.sgd.SGD([theirs], **first)
            for step, gradient in enumerate(gradients):
                for name, values in changes.items():
                    setattr(sides[0], name, values[step % 3])
                    sides[1].param_groups[0][name] = values[step % 3]
                ours.grad, theirs.grad = gradient, torch.from_numpy(gradient)
                for side in sides:
                    side.step()
                np.testing.assert_array_equal(ours.data, theirs.numpy(), f"{update}, {changes}, step {step}")


def check_groups_of_parameters() -> None:
    """In torch_impl each group of parameters moves by its own options, as if it had an optimizer of its own."""
    options: tuple[dict[str, Any], ...] = (
        {"lr": 0.5, "momentum": 0.5, "weight_decay": 0.25},
        {"lr": 0.25, "momentum": 0.25, "weight_decay": 0.5, "maximize": True},
    )
    for update in RULES:
        together, apart = ([torch.ones(2, dtype=torch.float64) for _ in options] for _ in range(2))
        groups: Any = [{"params": [w], **own} for w, own in zip(together, options, strict=True)]
        alone = [torch_impl.sgd.SGD([w], **own, update=update) for w, own in zip(apart, options, strict=True)]
        sgd = torch_impl.sgd.SGD(groups, update=update)
        for step in range(3):
            for w in (*together, *apart):
                w.grad = torch.tensor([step, -1.0], dtype=torch.float64)
            for each in (sgd, *alone):
                each.step()
        for w, other in zip(together, apart, strict=True):
            np.testing.assert_array_equal(w.numpy(), other.numpy(), update)


def check_share_dropped() -> None:
    """Each side drops a share p of the elements, and scales what it keeps by 1 / (1 - p)."""
    count = 40_000
    for p in (0.1, 0.25, 0.9):
        masks = (
            scratch.dropout.kept(scratch.dropout.forward(np.ones(count), p=p, rng=np.random.default_rng(0))[1]),
            torch_impl.dropout.kept(torch_impl.dropout.forward(torch.ones(count), p=p, rng=torch.Generator().manual_seed(0))[1]),
        )
        for mask in masks:
            assert mask is not None
            share = float(np.asarray(mask).mean())
            assert abs(share - (1 - p)) < 6 * np.sqrt(p * (1 - p) / count), f"{share} kept at p = {p}"
        whole = int(p * 256)  # bytes below it drop and bytes above keep; where a byte equals it, the rest of p decides
        for byte, wanted in ((whole - 1, 1), (whole, p * 256 - whole), (whole + 1, 0)):
            words = np.full(count // 8, byte * 0x0101010101010101, np.uint64)
            rng: Any = SimpleNamespace(integers=lambda *_, words=words, **__: words, random=np.random.default_rng(0).random)
            share = float(1 - scratch.dropout._draw((count,), p, rng).mean())
            assert abs(share - wanted) <= 6 * np.sqrt(wanted * (1 - wanted) / count), f"{share} dropped by {byte} at p = {p}"
        x, kept = np.arange(8.0), np.arange(8) % 3 != 0
        layer, ours = torch_impl.modules.Dropout(p), scratch.modules.Dropout(p)
        layer.mask, ours.mask = torch.from_numpy(kept), kept
        expected = np.where(kept, x / (1 - p), 0)
        np.testing.assert_allclose(layer(torch.from_numpy(x)).numpy(), expected, rtol=1e-15)
        np.testing.assert_allclose(ours(x), expected, rtol=1e-15)


def check_everything_dropped() -> None:
    """If p is 1 everything is dropped, whatever the mask keeps; NaN and inf times 0 stay NaN."""
    x, kept = np.array([1.0, -2.0, np.inf, np.nan, 3.0]), np.array([True, False, True, True, False])
    ours, theirs = scratch.modules.Dropout(1), torch_impl.modules.Dropout(1)
    ours.mask, theirs.mask = kept, torch.from_numpy(kept)
    with np.errstate(invalid="ignore"):
        expected = x * 0
    for out in (ours(x), theirs(torch.from_numpy(x)).numpy()):
        np.testing.assert_array_equal(out, expected)
        np.testing.assert_array_equal(np.signbit(out[:2]), [False, True])


def check_scale_of_what_is_kept() -> None:
    """Both sides scale by the same number, to the last bit, whatever p is: one, divided by 1 - p in the array's own dtype."""
    kept = np.array([True, False, True])
    for dtype in (np.float32, np.float64):
        x = np.array([1, -2, 0.3], dtype)
        for p in (1e-6, *np.linspace(0, 1, 41), 0.999):
            theirs, _ = torch_impl.dropout.forward(torch.from_numpy(x), p=p, mask=torch.from_numpy(kept))
            for rung in scratch.dropout.RUNGS:
                with scratch.use_rung(dropout=rung):
                    ours, _ = scratch.dropout.forward(x, p=p, mask=kept)
                np.testing.assert_array_equal(ours, theirs.numpy(), f"{rung}, p = {p}")


def check_recorded_graph() -> None:
    """torch_impl's backward twice, without grad_x, and on tensors that have a graph already."""
    x = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.full((4, 3), 2.0, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    with torch.no_grad():
        out, cache = torch_impl.linear.forward(x * 1, weight, bias)
    assert not any(tensor.requires_grad for tensor in (out, weight, bias))
    grad = torch.ones_like(out)
    for _ in range(2):
        grad_x, grad_weight, grad_bias = torch_impl.linear.backward(grad, cache)
        np.testing.assert_array_equal(grad_x, np.full((2, 3), 8.0))
        np.testing.assert_array_equal(grad_weight, np.full((4, 3), 2.0))
        np.testing.assert_array_equal(grad_bias, np.full(4, 2.0))
    without = torch_impl.linear.backward(grad, cache, need_grad_x=False)
    assert without[0] is None
    np.testing.assert_array_equal(without[1], np.full((4, 3), 2.0))
    assert torch_impl.linear.backward(grad, torch_impl.linear.forward(x, weight, None)[1])[2] is None
    assert x.grad is None


def check_generator_of_masks() -> None:
    """The generator decides what is dropped: the same again for the same seed, something else for another one."""

    def kept(module: Any, x: Any, rng: Any) -> bytes:
        return bytes(np.asarray(module.kept(module.forward(x, rng=rng)[1])))

    for module, x, generator in (
        (scratch.dropout, np.ones(64), np.random.default_rng),
        (torch_impl.dropout, torch.ones(64), lambda seed: torch.Generator().manual_seed(seed)),
    ):
        first, again, other = (kept(module, x, generator(seed)) for seed in (0, 0, 1))
        assert first == again
        assert first != other


def check_torchs_own_state() -> None:
    """torch.optim.SGD's state has no update: an optimizer of the paper's rule that loads it goes on by torch's rule."""
    gradients = np.array([[1.0, -2.0], [3.0, 4.0], [-1.0, 2.0]])
    theirs = torch.ones(2, dtype=torch.float64)
    plain = torch.optim.SGD([theirs], lr=0.5, momentum=0.5)
    theirs.grad = torch.from_numpy(gradients[0])
    plain.step()
    ours, mirrored = SimpleNamespace(data=theirs.numpy().copy(), grad=None), theirs.clone()
    sgd = SGD([ours], lr=0.5, momentum=0.5, update="paper")
    mirror = torch_impl.sgd.SGD([mirrored], lr=0.5, momentum=0.5, update="paper")
    state = copy.deepcopy(plain.state_dict())  # torch's load_state_dict keeps the tensors themselves
    mirror.load_state_dict(state)
    buffers = {i: {"momentum_buffer": entry["momentum_buffer"].numpy()} for i, entry in state["state"].items()}
    sgd.load_state_dict({**state, "state": buffers})
    for number, gradient in enumerate(gradients[1:]):
        for group in (*plain.param_groups, *mirror.param_groups):
            group["lr"] = 0.25 / 2**number  # the rules differ when the rate changes
        sgd.lr = 0.25 / 2**number
        ours.grad, theirs.grad, mirrored.grad = gradient, torch.from_numpy(gradient), torch.from_numpy(gradient)
        for optimizer in (plain, mirror, sgd):
            optimizer.step()
    np.testing.assert_array_equal(ours.data, theirs.numpy())
    np.testing.assert_array_equal(mirrored.numpy(), theirs.numpy())


def check_one_group_of_parameters() -> None:
    """A state with as many parameters, but in two groups, is refused: the second group's options would be lost."""
    pair = [SimpleNamespace(data=np.ones(2), grad=None) for _ in range(2)]
    state = SGD(pair, lr=0.5).state_dict()
    (group,) = state["param_groups"]
    groups = [{**group, "params": [0]}, {**group, "params": [1], "lr": 0.25}]
    with pytest.raises(ValueError, match=r"one group of 2 parameters, got groups of \[1, 1\]"):
        SGD(pair, lr=1.0).load_state_dict({**state, "param_groups": groups})


def check_gradients_filled_with_zeros() -> None:
    """Zeros in place of whatever was there: NaN and infinities, as a step that diverged leaves them, go too."""
    for clear in (lambda layer: layer.zero_grad(set_to_none=False), lambda layer: SGD(layer.parameters()).zero_grad(False)):
        layer = Linear(3, 1, bias=False)
        gradient = layer.weight.grad = np.array([[np.nan, np.inf, -1.0]], np.float32)
        clear(layer)
        assert layer.weight.grad is gradient
        assert gradient.tobytes() == bytes(gradient.nbytes)


def check_one_image_without_its_gradient() -> None:
    """Without the batch axis, too, the first gradient may be left out, and the others are those of a batch of one."""
    x, weight, bias = np.ones((1, 2, 4, 4)), np.ones((3, 2, 3, 3)), np.ones(3)
    for rung in scratch.conv2d.RUNGS:
        with scratch.use_rung(conv2d=rung):
            results = []
            for image in (x, x[0]):
                out, cache = scratch.conv2d.forward(image, weight, bias)
                results.append(scratch.conv2d.backward(np.ones_like(out), cache, need_grad_x=False))
        assert [gradients[0] for gradients in results] == [None, None]
        for batched, unbatched in zip(results[0][1:], results[1][1:], strict=True):
            np.testing.assert_array_equal(batched, unbatched)


def check_mean_without_weight() -> None:
    """If the targets' weights add up to 0, the mean is NaN, never inf. The generic test has no bound for a quotient by 0."""
    logits, target, weight = np.array([[1.0, 2.0, -1.0]]), np.array([0]), np.array([0.0, 1.0, 2.0])
    for smoothing in (0.0, 0.25):
        scores, classes, weights = (torch.from_numpy(array) for array in (logits, target, weight))
        assert torch.nn.functional.cross_entropy(scores, classes, weights, label_smoothing=smoothing).isnan()
        for rung in scratch.cross_entropy.RUNGS:
            with scratch.use_rung(cross_entropy=rung):
                loss, _ = scratch.cross_entropy.forward(logits, target, weight=weight, label_smoothing=smoothing)
            assert np.isnan(loss), f"{rung}: {loss}"


def check_mean_of_no_classes() -> None:
    """As in torch, probabilities of no classes have a loss of 0, but its mean is NaN."""
    empty = np.zeros((3, 0))
    for reduction in ("mean", "sum"):
        theirs = torch.nn.functional.cross_entropy(torch.from_numpy(empty), torch.from_numpy(empty), reduction=reduction)
        for rung in scratch.cross_entropy.RUNGS:
            with scratch.use_rung(cross_entropy=rung):
                loss, _ = scratch.cross_entropy.forward(empty, empty, reduction=reduction)
            np.testing.assert_array_equal(loss, theirs.numpy(), f"{rung}, {reduction}")


def check_sums_beyond_the_largest_number() -> None:
    """A mean is right although the losses, or the targets' weights, add up to more than float32 can hold."""
    large = np.float32(3e38)
    logits, level = np.array([[0, large]] * 2, np.float32), np.zeros((3, 2), np.float32)
    for rung in scratch.cross_entropy.RUNGS:
        with scratch.use_rung(cross_entropy=rung):
            mean, _ = scratch.cross_entropy.forward(logits, np.zeros(2, np.int64))
            weighted, _ = scratch.cross_entropy.forward(level, np.zeros(3, np.int64), weight=np.full(2, large))
        assert mean == large, f"{rung}: {mean}"
        np.testing.assert_allclose(weighted, np.log(2), rtol=1e-6, err_msg=rung)


def check_tiny_values_beside_large_gradients() -> None:
    """Alpha times a tiny value would be subnormal and lose digits: as in torch, alpha multiplies the sum of the pulls first."""
    x, grad_out = (np.array(values).reshape(1, 2, 1) for values in ((3e-38, 1.0), (0.0, 1e37)))
    gradients = {}
    for dtype in (np.float64, np.float32):
        for rung in scratch.local_response_norm.RUNGS:
            with scratch.use_rung(local_response_norm=rung):
                _, cache = scratch.local_response_norm.forward(x.astype(dtype), size=3)
                gradients[dtype, rung] = scratch.local_response_norm.backward(grad_out.astype(dtype), cache)[0]
    for (_, rung), grad_x in gradients.items():
        np.testing.assert_allclose(grad_x, gradients[np.float64, "naive"], rtol=1e-5, err_msg=rung)


def check_sizes_around_the_smallest_crop() -> None:
    """Below 64 pixels an image is shifted into a border of zeros and keeps its colours; from 64 on it is cropped."""
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    choices = Choices(np.zeros((1, 2)), np.array([False]), np.zeros((1, 3)))
    sides: tuple[Any, ...] = (scratch.data, torch_impl.data)
    for data in sides:
        for size, canvas, border in ((63, 63, 4), (64, 73, 0)):
            fitted = data.Preprocessing.fit([noise], size=size, channels=3, mirror=False)
            assert np.shape(fitted.mean) == (3, canvas, canvas)
            assert np.asarray(fitted.colour).any() == (border == 0)
            state = {**fitted.state_dict(), "mean": np.zeros((3, canvas, canvas))}
            plain = data.Preprocessing.from_state_dict(state).training([np.full((80, 80), 100, np.uint8)], choices)
            wanted = np.zeros((1, 3, size, size))
            wanted[:, :, border:, border:] = 100
            np.testing.assert_allclose(np.asarray(plain), wanted, rtol=1e-6)


def check_sign_of_a_mean_of_zeros() -> None:
    """The mean of negative zeros is a positive one on every rung, as in torch: sums begin at 0."""
    x = np.full((1, 1, 3, 4), -0.0)
    for size in ((1, 1), (2, 3), (3, 4), (5, 7)):
        theirs = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(x), size).numpy()
        for rung in scratch.adaptive_avg_pool2d.RUNGS:
            with scratch.use_rung(adaptive_avg_pool2d=rung):
                ours, _ = scratch.adaptive_avg_pool2d.forward(x, output_size=size)
            np.testing.assert_array_equal(np.signbit(ours), np.signbit(theirs), f"{rung}, {size}")


def check_images_without_rows() -> None:
    """As in torch, only a batch of no images may have images of no rows, where padding has room for a window."""
    weight = np.ones((3, 2, 3, 3))
    for shape in ((0, 2, 0, 4), (0, 2, 4, 0), (0, 2, 0, 0)):
        theirs = torch.nn.functional.conv2d(torch.ones(shape, dtype=torch.float64), torch.from_numpy(weight), padding=2)
        for rung in scratch.conv2d.RUNGS:
            with scratch.use_rung(conv2d=rung):
                out, cache = scratch.conv2d.forward(np.ones(shape), weight, padding=2)
                grad_x, grad_weight, _ = scratch.conv2d.backward(out, cache)
            assert grad_x is not None
            assert (out.shape, grad_x.shape) == (tuple(theirs.shape), shape)
            np.testing.assert_array_equal(grad_weight, np.zeros_like(weight))
    with pytest.raises(ValueError, match="conv2d: weight must fit into the padded image"):
        scratch.conv2d.forward(np.ones((1, 2, 0, 4)), weight, padding=2)


def check_images_without_channels() -> None:
    """A sum over no channels is the bias, on every rung, in both passes."""
    x, weight, bias = np.ones((2, 0, 5, 6)), np.ones((3, 0, 3, 3)), np.arange(3.0)
    for rung in scratch.conv2d.RUNGS:
        with scratch.use_rung(conv2d=rung):
            out, cache = scratch.conv2d.forward(x, weight, bias)
            grad_x, grad_weight, grad_bias = scratch.conv2d.backward(np.ones_like(out), cache)
        np.testing.assert_array_equal(out, np.broadcast_to(bias[:, None, None], (2, 3, 3, 4)), rung)
        assert grad_x is not None
        assert (grad_x.shape, grad_weight.shape) == (x.shape, weight.shape)
        np.testing.assert_array_equal(grad_bias, np.full(3, 24.0), rung)


def check_limits_of_winograd() -> None:
    """The last bias, tap and cell that winograd takes, and the first that it does not."""
    for dtype in (np.float32, np.float64):
        info = np.finfo(dtype)
        half, least = dtype(info.max / 2), dtype(4 * info.tiny)
        x, weight, bias = np.ones((1, 1, 5, 5), dtype), np.ones((1, 1, 3, 3), dtype), np.zeros(1, dtype)
        limit = dtype(np.sqrt(float(info.max) / 2 / 64 / 4))  # four tiles, one channel
        taken: tuple[tuple[np.ndarray, Any], ...] = (
            (bias, half), (bias, -half), (weight, least), (weight, -least), (weight, 0), (x, limit), (x, -limit), (weight, limit),
        )  # fmt: skip
        beyond: tuple[tuple[np.ndarray, Any], ...] = (
            (bias, np.nextafter(half, dtype(np.inf))), (bias, -info.max), (bias, np.inf), (bias, np.nan),
            (weight, np.nextafter(least, dtype(0))), (weight, -info.tiny), (weight, info.smallest_subnormal),
            (weight, np.nextafter(limit, dtype(np.inf))), (weight, np.nan),
            (x, np.nextafter(limit, dtype(np.inf))), (x, -np.inf), (x, np.nan),
        )  # fmt: skip
        for cases, wanted in ((taken, "winograd"), (beyond, "the rung below")):
            for array, value in cases:
                before = array.flat[0]
                array.flat[0] = value
                with scratch.use_rung("winograd"):
                    ran = scratch.conv2d.forward(x, weight, bias)[1].rung.name
                array.flat[0] = before
                assert (ran == "winograd") == (wanted == "winograd"), f"{ran} ran with {value}"
        # The longest of the three sums is over tiles, output channels, input channels, or pieces of a larger window.
        for x_shape, weight_shape, groups, terms in (
            ((4, 1, 5, 5), (1, 1, 3, 3), 1, 16),
            ((1, 2, 5, 5), (8, 2, 3, 3), 1, 8),
            ((1, 8, 5, 5), (2, 8, 3, 3), 1, 8),
            ((1, 4, 6, 6), (8, 2, 5, 5), 2, 16),
        ):
            x, weight = np.zeros(x_shape, dtype), np.zeros(weight_shape, dtype)
            limit = dtype(np.sqrt(float(info.max) / 2 / 64 / terms))
            for value, rung in ((limit, "winograd"), (np.nextafter(limit, dtype(np.inf)), "implicit_gemm")):
                x.flat[-1] = value
                with scratch.use_rung("winograd"):
                    ran = scratch.conv2d.forward(x, weight, groups=groups)[1].rung.name
                assert ran == rung, f"{ran} ran with {value} in {x_shape} and {weight_shape}"


def check_kept_filters() -> None:
    """In evaluation a layer gives the operation's bits after any change, and transforms its weight only after a change."""
    transform, transformed = winograd_filters._transform, []

    def counted(*arguments: Any) -> Any:
        transformed.append(arguments)
        return transform(*arguments)

    rng = np.random.default_rng(0)

    def evaluate(layer: Conv2d, times: int, x: np.ndarray) -> None:
        transformed.clear()
        out = layer(x)
        assert len(transformed) == times, f"transformed {len(transformed)} times instead of {times}"
        bias = None if layer.bias is None else layer.bias.data
        fresh = scratch.conv2d.forward(x, layer.weight.data.copy(), bias, groups=layer.groups)[0]
        assert out.tobytes() == fresh.tobytes(), "not the operation's bits"

    with scratch.use_rung("winograd"), patch.object(winograd_filters, "_transform", counted):
        layer = Conv2d(40, 16, 3, rng=rng).eval()
        weight, small, large = layer.weight.data, *(rng.standard_normal((N, 40, 9, 9), np.float32) for N in (1, 5))
        assert layer.bias is not None
        assert weight.size > winograd_filters.STRETCH
        evaluate(layer, 1, small)
        layer.bias.data += 1
        evaluate(layer, 0, small)
        for tap in (0, winograd_filters.STRETCH - 1, winograd_filters.STRETCH, weight.size - 1):
            for bit in (0, 31):
                weight.view(np.uint32).flat[tap] ^= np.uint32(1 << bit)
                evaluate(layer, 1, small)
                evaluate(layer, 0, small)
        weight.flat[7] = 0.0
        evaluate(layer, 1, small)
        weight.flat[7] = -0.0
        evaluate(layer, 1, small)
        # The limit is lower for more tiles. Filters within it are within a higher one.
        evaluate(layer, 1, large)
        evaluate(layer, 0, small)
        weight.flat[7] = np.sqrt(np.finfo(np.float32).max / 2 / 64 / 40)
        evaluate(layer, 1, small)
        evaluate(layer, 1, large)  # Winograd declines it
        layer.load_state_dict(Conv2d(40, 16, 3, rng=rng).state_dict())
        layer.train()
        for _ in range(2):
            evaluate(layer, 1, small)
        layer.eval()
        evaluate(layer, 1, small)
        # Weights of other shapes in the same memory.
        for shape, groups in (
            ((8, 80, 3, 3), 1),
            ((40, 16, 3, 3), 1),
            ((16, 40, 3, 3), 2),
            ((8, 48, 3, 5), 1),
            ((8, 48, 5, 3), 1),
        ):
            other = Conv2d(shape[1] * groups, shape[0], shape[2:], groups=groups, bias=False).eval()
            other.weight.data = weight.reshape(shape)
            x = rng.standard_normal((1, shape[1] * groups, 9, 9), np.float32)
            evaluate(other, 1, x)
            evaluate(other, 0, x)
        evaluate(layer, 1, small)
        del other, layer, weight
        assert not winograd_filters._kept, "kept although the weight is gone"


def check_what_kept_code_depends_on() -> None:
    """Code that was compiled by other versions, for another processor or with other vectors is another kernel's."""
    cache = kernel_cache.KernelCache(_chosen)

    def origin() -> tuple[str, bytes]:
        return cache._origin("(float32)", cpu_target.target_context.codegen())

    first = origin()
    assert origin() == first
    features = llvm.get_host_cpu_features()
    for other in (
        patch.object(numba, "__version__", "0"),
        patch.object(llvmlite, "__version__", "0"),
        patch.object(np, "__version__", "0"),
        patch.object(llvm, "get_host_cpu_features", lambda: type(features)({**features, "another": True})),
        patch.dict(os.environ, SCRATCH_VECTOR_BITS="96"),
        patch.object(numba.config, "ANOTHER", 1, create=True),
        patch.object(cache, "_words", "0"),
    ):
        with other:
            assert origin() != first
    assert origin() == first


CHECKS = tuple(value for name, value in list(globals().items()) if name.startswith("check_"))
