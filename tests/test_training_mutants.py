"""A test of the training tests: their checks find every planted mistake."""

from __future__ import annotations

import pytest

from tests.mutants_training import MUTANTS


@pytest.mark.planted
@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_check_finds_the_mistake(mutant, tmp_path):
    assert mutant.found(tmp_path), f"{mutant} lives"
