PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# One process per core, each with one thread for BLAS and torch; kernels keep two threads, or no work would be split.
WORKERS ?= 2
PROFILE ?= default
RESOLUTION ?= lowest-direct
PYTEST := OMP_NUM_THREADS=1 SCRATCH_NUM_THREADS=2 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.PHONY: help venv check test fresh parity coverage versions dist bench bench-machine bench-report docs exercise clean
.DEFAULT_GOAL := help

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

venv: $(VENV)/.ready  ## Make the environment, with the versions in constraints.txt

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

check: venv  ## Lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	@$(BIN)/python -m parity_tests.sources

test: venv  ## Run the parity suite, PROFILE=quick, default or deep
	$(PYTEST) --profile=$(PROFILE)

fresh: venv  ## Run the generic test on new cases, whatever CI says; the last lines say how to repeat them
	$(PYTEST) --profile=quick --draws=fresh parity_tests/test_operations.py

parity: venv  ## Write docs/parity.*: the worst error of every rung, and how every planted mistake was found
	$(PYTEST) --profile=$(PROFILE) --hypothesis-seed=0 --override-ini=faulthandler_timeout=0 --report docs \
		parity_tests/test_operations.py parity_tests/test_long_sums.py parity_tests/test_mutants.py tests/test_training_mutants.py

coverage: venv  ## Measure which lines and branches of scratch the tests reach, with the kernels in plain Python
	NUMBA_DISABLE_JIT=1 $(PYTEST) --profile=quick --cov --cov-report= parity_tests tests
	NUMBA_CACHE_DIR=$$(mktemp -d) $(PYTEST) --cov --cov-append --cov-fail-under=98 \
		parity_tests/test_networks.py tests/test_training.py tests/test_weights.py \
		-k "not gradients and not ten_steps and not small_mistakes"

# Only wheels: a version that is older than this Python would have to be compiled.
versions:  ## Run the quick profile with the lowest or highest versions that pyproject.toml allows, RESOLUTION=lowest-direct or highest
	$(PYTHON) -m venv --clear build/$(RESOLUTION)
	build/$(RESOLUTION)/bin/pip install --quiet uv
	build/$(RESOLUTION)/bin/uv pip install --quiet --python build/$(RESOLUTION) --resolution $(RESOLUTION) \
		--only-binary :all: --no-binary alexnet-from-scratch --editable '.[dev]'
	build/$(RESOLUTION)/bin/python -m scratch.about
	OMP_NUM_THREADS=1 SCRATCH_NUM_THREADS=2 build/$(RESOLUTION)/bin/python -m pytest -n $(WORKERS) --profile=quick

dist: venv  ## Build sdist and wheel, and check them, also in an empty environment
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[release]'
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl
	bash .ci/wheel dist/*.whl

bench: venv  ## Verify, then time scratch against torch
	$(BIN)/python -m benchmarks

bench-machine: venv  ## The same at batch 32, kept in benchmarks/results: half an hour with nothing else running
	$(BIN)/python -m benchmarks --batch 32 --compile --keep

bench-report: venv  ## Write the committed results into the documents
	$(BIN)/python -m benchmarks report README.md docs/benchmarks.md docs/benchmark-traps.md docs/twin.md \
		alexnet_from_scratch/networks/mini-fashion-mnist/README.md

docs: venv  ## Build the book and the X-ray
	$(BIN)/python -m sphinx -E -q -W --keep-going -b html docs build/docs
	$(BIN)/python -m alexnet_from_scratch.xray all --out build/docs/xray --book ..
	@echo "The book: $(CURDIR)/build/docs/index.html"

exercise: venv  ## Write a backward pass yourself, OP=max_pool2d: the first call writes the file, later calls check it
	@$(BIN)/python -m alexnet_from_scratch.exercises $(OP) || [ $$? -eq 1 ]

clean:  ## Remove the environment and all caches
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
