# make run · make test · make lab · make lint      BUDGET=smoke|quick|full sets how much work `run` does
PYTHON ?= python3
BUDGET ?= quick
BIN := .venv/bin

run: .venv
	JEPA_BUDGET=$(BUDGET) $(BIN)/python scripts/run_series.py build
	JEPA_BUDGET=$(BUDGET) $(BIN)/python -m jepa_utils.scoreboard build

test: lint
	$(BIN)/pytest
	JEPA_BUDGET=smoke JEPA_OFFLINE=1 $(BIN)/pytest --nbmake --nbmake-timeout=300 notebooks

lab: .venv
	$(BIN)/jupyter lab notebooks

lint: .venv
	$(BIN)/ruff check .

.venv: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch .venv

.PHONY: run test lab lint
