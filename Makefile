# The commands of a fresh clone: each makes .venv first if it is not there yet.
# Plain make, so that GNU make 3.81 (macOS) and BSD make run it too.

PYTHON ?= python3
VENV ?= .venv
SECONDS ?= 60
FOR ?= 600
SEED ?=
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: help demo up test lint proof chaos bench docs clean

help:
	@echo "make demo     drop files into a small shop and watch what each one does"
	@echo "make up       leave the shop running until Ctrl-C"
	@echo "make test     the tests"
	@echo "make lint     ruff, mypy, import layers, no circle of imports, the picture of packages, how docstrings begin"
	@echo "make proof    random histories against a plain-Python oracle, for ten minutes (FOR=600)"
	@echo "make chaos    random faults against real processes and a real server, for ten minutes (FOR=600 SEED=7)"
	@echo "make bench    the benchmarks"
	@echo "make docs     the documentation, into site/"
	@echo "make clean    remove the environment and all that was made here"
	@echo
	@echo "With another Python: make demo PYTHON=python3.12"

demo: $(VENV)/.installed
	@$(BIN)/python examples/shop/demo.py

up: $(VENV)/.installed
	@test -d examples/shop/data || $(BIN)/python examples/shop/generate.py
	@$(BIN)/mlforge up --definitions examples/shop/definitions.py

test: $(VENV)/.installed
	$(BIN)/python -m checks.second_chance

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m checks.packages --check
	$(BIN)/python -m checks.circles
	$(BIN)/python -m checks.sentences

proof: $(VENV)/.installed
	$(BIN)/python -m tests.property.proof --seconds $(FOR)

chaos: $(VENV)/.installed
	$(BIN)/python -m tests.faults.chaos --seconds $(FOR) $(SEED:%=--seed %)

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "site/index.html"

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	rm -rf examples/*/data examples/*/feature_store examples/*/.mlforge
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Of the 16,000 modules few are ever imported: they are compiled when they are, those that each process needs at once.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "mlforge needs Python 3.11 or newer, and $(PYTHON) is not one."; \
	  echo "Name one that is: make PYTHON=python3.12 demo"; exit 1; }
	@echo "Making $(VENV) and installing into it: once, about a minute."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --no-compile --editable '.[dev]'
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -c 'import pytest, worker.service.process'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	@$(PIP) --no-compile --editable '.[docs]'
	@touch $@
