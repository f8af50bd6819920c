# Everything runs in a virtual environment, .venv, which is created on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-fast fuzz quality style bench

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

# The stamp is written last, so that an interrupted installation is repeated.
$(VENV)/.installed: requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.version_info < (3, 11) and sys.exit("Python 3.11 or later is needed: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	$(BIN)/python -m utils.core.kept_help  # (so that --help is there at once)
	touch $@

quickstart: $(VENV)/.installed  ## Adjust a small encoder on the embedded sentences and show the gain (6 minutes on 2 cores)
	$(BIN)/python quickstart.py

test: $(VENV)/.installed  ## Run all tests
	$(BIN)/python -m pytest -n 2 --dist loadgroup

test-fast: $(VENV)/.installed  ## Run the quick tests only
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow"

fuzz: $(VENV)/.installed  ## Search long for inputs that end in a traceback (half an hour; failures are kept in .hypothesis)
	nice -n 19 $(BIN)/python -m pytest -n 2 tests/fuzz --hypothesis-profile fuzz

bench: $(VENV)/.installed  ## Time adjustment, continual learning and retrieval against the encoder's bare passes
	@mkdir -p runs/bench
	$(BIN)/python benchmarks/bench_align.py --json runs/bench/align.json
	$(BIN)/python benchmarks/bench_continual.py --json runs/bench/continual.json
	$(BIN)/python benchmarks/bench_retrieval.py --json runs/bench/retrieval.json

quality: $(VENV)/.installed  ## Check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

style: $(VENV)/.installed  ## Fix format and imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
