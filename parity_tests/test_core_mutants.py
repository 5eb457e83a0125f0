"""What operations share, by checks, and a test of these checks: they find every planted mistake."""

from __future__ import annotations

import pytest

from parity_tests import checks_core, checks_words
from parity_tests.mutants_core import MUTANTS
from scratch.compiled.emission import word
from scratch.compiled.jit import JIT_OFF


@pytest.mark.parametrize("check", checks_core.CHECKS, ids=lambda check: check.__name__)
def test_what_operations_share(check):
    check()


@pytest.mark.skipif(JIT_OFF, reason="nothing is emitted")
def test_every_word_means_what_it_emits():
    """Whether a word is in the table is found by its meaning."""
    modules = {module for module, _ in checks_words.TABLE.values()}
    own = {
        name
        for module in modules
        for name, value in vars(module).items()
        if hasattr(value, "meaning") and not isinstance(value, word) and value.meaning.__module__ == module.__name__
    }
    assert own == {*checks_words.TABLE, *checks_words.WITHOUT_RESULT}
    checks_words.check_words()


@pytest.mark.skipif(JIT_OFF, reason="minutes in plain Python")
@pytest.mark.planted
@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_check_finds_the_mistake(mutant, tmp_path):
    assert mutant.found(tmp_path), f"{mutant} lives"
