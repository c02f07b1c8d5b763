# Two commands do all the set-up on a machine that has only Python 3.11, git and make:
#   make repro   runs the whole workflow on the embedded real data
#   make test    runs the tests
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DO_NOT_TRACK := true
export MLFLOW_DISABLE_TELEMETRY := true
export ITERATIVE_DO_NOT_TRACK := 1

.DEFAULT_GOAL := help
.PHONY: help setup params check format test acceptance bench repro ui clean

help: ## show the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): requirements.lock requirements-dev.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Quanto needs $(PYTHON) (set PYTHON=... to name another 3.11 interpreter)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check --quiet --progress-bar off -r requirements.lock -r requirements-dev.lock
	$(BIN)/pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -m quanto.runtime.checkout
	@touch $(READY)

setup: $(READY) ## create .venv with the pinned packages and point DVC's cache at the data root

params: $(READY) ## compose params.yaml from conf/ and check every section
	quanto params

check: $(READY) ## format, lint, types, import contracts
	ruff format --check src tests benchmarks
	ruff check src tests benchmarks
	mypy src/quanto
	lint-imports

format: $(READY) ## format the code
	ruff format src tests benchmarks
	ruff check --fix src tests benchmarks

test: $(READY) ## run the tests (at most 10 minutes)
	pytest -q -n 2 --dist loadfile

acceptance: $(READY) ## run the long evidence (kills, tamper matrix, mutation scores, calibration, queued sweeps)
	QUANTO_EVIDENCE=docs/evidence pytest -q -m acceptance

bench: $(READY) ## run the benchmarks and compare with the committed ratios
	python benchmarks/compare.py

repro: $(READY) ## run the whole default pipeline, fill MLflow, write the report
	quanto repro

ui: $(READY) ## open MLflow on localhost
	quanto ui

clean: ## remove what can be rebuilt (not the data root)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
