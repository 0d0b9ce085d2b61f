# The commands of the project; continuous integration calls the same ones.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help env demo test test-long chaos lint format docs bench clean

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

env: $(READY) ## make the environment in .venv

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"fcdcc needs Python 3.11 or newer, {sys.executable} is {sys.version.split()[0]}: run make PYTHON=/path/to/newer/python")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY) ## classify real images with two of six workers stopped in the middle
	$(BIN)/fcdcc demo

test: $(READY) ## run the test suite
	$(BIN)/python -m pytest

test-long: $(READY) ## run the long tests, too
	$(BIN)/python -m pytest -m 'long or not long'

chaos: $(READY) ## 200 seeded runs with faults at random moments
	$(BIN)/python -m pytest tests/chaos/test_runs.py -m 'long or not long'

lint: $(READY) ## style, types and the rules between the layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(READY) ## rewrite the sources in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY) ## build the documentation in docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build/html

bench: $(READY) ## the benchmarks that take minutes; the others are named in docs/
	$(BIN)/python benchmarks/healthy.py
	$(BIN)/python benchmarks/planned.py
	$(BIN)/python benchmarks/conditions.py
	$(BIN)/python benchmarks/cost.py

clean: ## remove the environment and what the tools left
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist docs/_build
