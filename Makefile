PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help venv check test bench bench-report docs clean
.DEFAULT_GOAL := help

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

venv: $(VENV)/.ready  ## Make the environment, with what constraints.txt pins

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

check: venv  ## Lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: venv  ## Run the parity suite
	$(BIN)/python -m pytest

bench: venv  ## Verify, then time scratch beside torch
	$(BIN)/python -m benchmarks

bench-report: venv  ## Write the committed results into the documents
	$(BIN)/python -m benchmarks report README.md docs/benchmarks.md docs/benchmark-traps.md

docs: venv  ## Build the book
	$(BIN)/python -m sphinx -E -q -W --keep-going -b html docs build/docs
	@echo "The book: $(CURDIR)/build/docs/index.html"

clean:  ## Remove the environment and all caches
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
