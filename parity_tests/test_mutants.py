"""A test of the tests: the generic test kills every planted mistake, and needs each of its assertions to do so."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import strategies as st

from alexnet_from_scratch.proof.parity import ASSERTIONS
from alexnet_from_scratch.proof.search import search
from parity_tests import (
    apart,
    mutants_backward,
    mutants_compiled,
    mutants_convolution,
    mutants_declining,
    mutants_loss,
    mutants_pooling,
    mutants_simple,
)
from parity_tests.mutants import hunt

MUTANTS = tuple(
    mutant
    for module in (
        mutants_backward,
        mutants_convolution,
        mutants_pooling,
        mutants_loss,
        mutants_simple,
        mutants_compiled,
        mutants_declining,
    )
    for mutant in module.MUTANTS
)


@pytest.mark.planted
@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_the_generic_test_kills_the_mutant(mutant, report, request):
    kill = hunt(mutant, ASSERTIONS, shrink=request.config.getoption("--report") is not None)
    report.add_kill(mutant, kill)
    assert kill, f"{mutant} lives"
    assert kill.by == (mutant.only or kill.by)


@pytest.mark.planted
@pytest.mark.parametrize("mutant", apart.MUTANTS, ids=str)
def test_the_generic_test_kills_the_mutant_that_leaves_its_arrays(mutant, report):
    kill = apart.hunt_apart(mutant)
    report.add_kill(mutant, kill)
    assert kill, f"{mutant} lives"


@pytest.mark.parametrize("assertion", ASSERTIONS, ids=lambda assertion: assertion.__name__)
def test_without_the_assertion_a_mutant_lives(assertion):
    others = tuple(other for other in ASSERTIONS if other is not assertion)
    its_own = [mutant for mutant in mutants_loss.NEEDED if mutant.only == assertion.__name__]
    assert its_own
    for mutant in its_own:
        assert hunt(mutant, others, shrink=False) is None, str(mutant)


@pytest.mark.parametrize("mutant", {mutant.operation: mutant for mutant in MUTANTS}.values(), ids=lambda mutant: mutant.operation)
def test_the_unchanged_source_lives(mutant):
    """Planting nothing changes nothing, so a mutant that dies was killed by its mistake."""
    assert hunt(replace(mutant, new=mutant.old, also=()), ASSERTIONS, shrink=False) is None


@pytest.mark.parametrize("shrink", [False, True])
def test_a_race_that_fails_once_is_found(shrink):
    """Two threads that write to one place give a wrong result at some calls only."""
    drawn = []

    def fails_at_its_third_call(draw):
        drawn.append(draw(st.integers()))
        assert len(drawn) != 3

    search(fails_at_its_third_call, 10, shrink=shrink)
    assert 3 < len(drawn) < 10
