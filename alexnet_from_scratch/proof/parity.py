"""The heart of the suite: run one case in scratch, in torch and in the reference, then assert what must hold.

:data:`ASSERTIONS` lists everything that the generic test asserts, one function each. ``test_mutants.py`` shows that every one is
needed: without it some planted mistake would pass.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

import scratch
from alexnet_from_scratch.proof.bounds import Bounded, Rounding
from alexnet_from_scratch.proof.draws import LAYOUTS, Case, layouts, memories, values
from alexnet_from_scratch.proof.guards import watched
from alexnet_from_scratch.proof.specs import Draw, Spec

Arrays = tuple[Any, ...]


@dataclass(frozen=True)
class Evidence:
    """Everything that running one case has shown. Results are the outputs, then the gradients."""

    case: Case
    layout: str
    memory: str  # how results and workspaces were allocated
    exact: bool  # whether the spec calls the operation exact
    wavers: bool  # whether torch's own code paths differ on NaN
    hands_back: bool  # whether the spec says that the input itself comes out
    asked: str  # the rung that was to run
    ran: str  # the rung that did run
    declined: bool  # whether the spec says that the rung leaves this case to another
    given: Arrays  # the arrays that scratch got, including grad_out, after it ran
    originals: Arrays  # the same numbers, never shown to scratch
    results: Arrays  # scratch's, copied immediately
    kept: Arrays  # the results themselves, not copies, after backward ran a second time
    again: Arrays  # the outputs, and the second backward's gradients
    oracle: Arrays
    reference: Arrays
    outputs: int

    def name(self, i: int) -> str:
        return f"output {i}" if i < self.outputs else f"gradient {i - self.outputs}"

    def __str__(self) -> str:
        return f"{self.case}, laid out {self.layout}, memory {self.memory}"


def examine(
    spec: Spec,
    case: Case,
    draw: Draw,
    *,
    rung: str,
    device: str = "cpu",
    scratch_module: Any = None,
    torch_module: Any = None,
    reference: Any = None,
) -> Evidence:
    """Run ``case`` forward and backward with a drawn cotangent, in a drawn layout.

    The last three arguments replace the spec's own, to plant mistakes.
    """
    scratch_module, torch_module = scratch_module or spec.scratch, torch_module or spec.torch
    with np.errstate(all="ignore"):
        expected, pull_back = (reference or spec.reference_of(rung))(Rounding(case.dtype), *case.arrays, **case.params)
        grad_out = draw(values(case.dtype, expected[0].value.shape, case.palette))
        expected += pull_back(grad_out)
    originals = (*case.arrays, grad_out)
    layout = draw(layouts)

    given = [lay_out(array, layout) for array in originals]
    said = _said(spec, case) if draw(st.booleans()) else case.params
    params = {name: lay_out(value, layout) for name, value in said.items()}
    memory = draw(memories)
    with scratch.use_rung(rung), watched(memory):
        out, cache = scratch_module.forward(*given[:-1], **params)
        outs = out if isinstance(out, tuple) else (out,)
        results: list[Any] = [np.copy(array) for array in outs]
        gradients = scratch_module.backward(given[-1], cache)
        results += [None if array is None else np.copy(array) for array in gradients]
        again = scratch_module.backward(given[-1], cache)

    out, torch_cache = torch_module.forward(
        *(to_torch(array, device) for array in case.arrays),
        **{name: to_torch(value, device) for name, value in said.items()},
    )
    torch_outs = out if isinstance(out, tuple) else (out,)
    torch_gradients = torch_module.backward(to_torch(grad_out, device), torch_cache)
    return Evidence(
        case=case,
        layout=layout,
        memory=memory,
        exact=spec.exact,
        wavers=spec.wavers(case),
        hands_back=spec.hands_back(case),
        asked=rung,
        ran=cache.rung.name,
        declined=spec.declines(rung, case),
        given=(*given, *params.values()),
        originals=(*originals, *said.values()),
        results=tuple(results),
        kept=(*outs, *gradients),
        again=(*outs, *again),
        oracle=tuple(to_numpy(value) for value in (*torch_outs, *torch_gradients)),
        reference=expected,
        outputs=len(outs),
    )


def _said(spec: Spec, case: Case) -> dict[str, Any]:
    """The case's parameters without those that equal torch_impl's defaults. Scratch must then have the same defaults."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(spec.torch.forward).parameters.items()}
    plain = (type(None), bool, int, float, str)
    return {
        name: value
        for name, value in case.params.items()
        if not isinstance(value, plain) or value != defaults.get(name, inspect.Parameter.empty)
    }


def lay_out(value: Any, layout: str) -> Any:
    return LAYOUTS[layout](value) if isinstance(value, np.ndarray) else value


def to_torch(value: Any, device: str) -> Any:
    """An array copied to a tensor, in C order and native byte order; anything else as it is."""
    if not isinstance(value, np.ndarray):
        return value
    return torch.from_numpy(np.array(value, value.dtype.newbyteorder("="), order="C")).to(device)


def to_numpy(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value


# --- what must hold ---------------------------------------------------------------------------------------------------


def assert_rung_ran(e: Evidence) -> None:
    """The rung ran if and only if it takes the case. Otherwise a rung that leaves every case to another would go untested."""
    assert (e.ran == e.asked) != e.declined, f"{e.asked} was asked, {'not ' * e.declined}to run, and {e.ran} ran: {e}"


def assert_same_parts(e: Evidence) -> None:
    """As many results as torch has, None where torch has None."""
    ours, theirs = ([type(part) for part in parts] for parts in (e.results, e.oracle))
    assert ours == theirs, f"results {ours}, torch's {theirs}: {e}"


def assert_same_shapes(e: Evidence) -> None:
    for i, ours, theirs in _pairs(e.results, e.oracle):
        assert ours.shape == theirs.shape, f"{e.name(i)}: shape {ours.shape}, torch's {theirs.shape}: {e}"


def assert_same_dtypes(e: Evidence) -> None:
    for i, ours, theirs in _pairs(e.results, e.oracle):
        assert ours.dtype == theirs.dtype, f"{e.name(i)}: dtype {ours.dtype}, torch's {theirs.dtype}: {e}"


def assert_near_reference(e: Evidence) -> None:
    for i, ours, reference in _pairs(e.results, e.reference):
        if isinstance(reference, Bounded) and ours.shape == reference.value.shape:
            _assert_at_most_1(in_bounds(ours, reference), ours, reference.value, f"{e.name(i)} against the reference", e)


def assert_torch_near_reference(e: Evidence) -> None:
    """The bound holds for torch too, so the two sides differ by at most two bounds."""
    for i, theirs, reference in _pairs(e.oracle, e.reference):
        if isinstance(reference, Bounded):
            ratio = in_bounds(theirs, reference)
            if e.wavers:
                ratio = np.where(np.isnan(reference.value) | np.isnan(theirs), 0, ratio)
            _assert_at_most_1(ratio, theirs, reference.value, f"torch's {e.name(i)} against the reference", e)


def assert_same_zeros(e: Evidence) -> None:
    """Where outputs are selected, not computed, zeros have torch's sign too."""
    for i, ours, theirs in _pairs(e.results, e.oracle):
        if not e.exact or i >= e.outputs:
            continue
        flipped = (ours == 0) & (theirs == 0) & (np.signbit(ours) != np.signbit(theirs))
        assert not flipped.any(), f"{e.name(i)}: zeros of the other sign than torch's at {np.argwhere(flipped)[0]}: {e}"


def assert_same_integers(e: Evidence) -> None:
    for i, ours, theirs in _pairs(e.results, e.oracle):
        if not isinstance(e.reference[i], Bounded):
            assert np.array_equal(ours, theirs), f"{e.name(i)}: {ours.tolist()}, torch's {theirs.tolist()}: {e}"


def assert_inputs_unchanged(e: Evidence) -> None:
    for i, (after, before) in enumerate(zip(e.given, e.originals, strict=True)):
        assert same_bits(after, before), f"array {i} was changed: {e}"


def assert_backward_repeats(e: Evidence) -> None:
    """A second backward on the same cache gives the same bits, and does not change the first one's results."""
    for i, (first, kept, again) in enumerate(zip(e.results, e.kept, e.again, strict=True)):
        assert same_bits(first, kept), f"{e.name(i)} was changed by a later backward: {e}"
        assert same_bits(first, again), f"{e.name(i)} is another the second time: {e}"


def assert_own_memory(e: Evidence) -> None:
    """Results share no memory with the caller's arrays: writing to one must not change the other."""
    for i, ours in enumerate(e.kept):
        for given in e.given:
            if isinstance(ours, np.ndarray) and isinstance(given, np.ndarray):
                assert e.hands_back or not np.shares_memory(ours, given), f"{e.name(i)} shares memory with an argument: {e}"


ASSERTIONS: tuple[Callable[[Evidence], None], ...] = (
    assert_rung_ran,
    assert_same_parts,
    assert_same_shapes,
    assert_same_dtypes,
    assert_near_reference,
    assert_torch_near_reference,
    assert_same_zeros,
    assert_same_integers,
    assert_inputs_unchanged,
    assert_backward_repeats,
    assert_own_memory,
)


def in_bounds(actual: np.ndarray, reference: Bounded) -> np.ndarray:
    """The error of each element in units of its bound; 0 where nothing is promised, inf for a wrong NaN or inf."""
    expected, bound = reference.value, reference.error
    with np.errstate(all="ignore"):
        same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
        ratio = abs(actual.astype(expected.dtype) - expected) / bound
    ratio = np.where(np.isnan(ratio), np.inf, ratio)
    return np.where(same | np.isposinf(bound), 0, ratio)


def same_bits(a: Any, b: Any) -> bool:
    """Whether two arrays are equal in every bit, whatever their byte order and memory layout. Other values are not compared."""
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        return a is b or not isinstance(b, np.ndarray)
    native = b.dtype.newbyteorder("=")
    return a.shape == b.shape and a.astype(native).tobytes() == b.astype(native).tobytes()


def _pairs(ours: Arrays, theirs: Arrays) -> Iterator[tuple[int, np.ndarray, Any]]:
    return ((i, a, b) for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a is not None and b is not None)


def _assert_at_most_1(ratio: np.ndarray, actual: np.ndarray, expected: np.ndarray, what: str, e: Evidence) -> None:
    if ratio.size and not ratio.max() <= 1:
        where = np.unravel_index(np.argmax(ratio), ratio.shape)
        raise AssertionError(
            f"{what}, at {[int(i) for i in where]}: {actual[where]} for {expected[where]}, {ratio[where]:.3g} bounds off: {e}"
        )
