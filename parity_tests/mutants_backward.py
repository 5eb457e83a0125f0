"""Mistakes in the naive rungs' backward passes and in SGD's update: those that the exercises know by name."""

from __future__ import annotations

from alexnet_from_scratch.exercises.mistakes import MISTAKES
from alexnet_from_scratch.exercises.stub import solution
from parity_tests.mutants import Mutant

MUTANTS = tuple(
    Mutant(operation, "naive", mistake.title, mistake.old, mistake.new, after=f"def {solution(operation).__name__}(")
    for operation, mistakes in MISTAKES.items()
    for mistake in mistakes
)
