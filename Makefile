# make run · make lab · make check · make test · make lint · make editions · make site      make run BUDGET=smoke|quick|full sets how much work it does
# Makes the environment .venv, then calls tasks.py, which does the same where there is no make.
PYTHON ?= python3
BIN := .venv/bin
ifdef BUDGET
export JEPA_BUDGET := $(BUDGET)
endif

run lab editions: .venv/installed-notebooks
check test lint site: .venv/installed-dev
run lab editions check test lint site:
	$(BIN)/python tasks.py $@

# The marks are made last and taken away first: after an install that was interrupted there is none, and make installs again.
.venv/installed-notebooks: pyproject.toml
	$(PYTHON) -m venv .venv
	rm -f .venv/installed-*
	$(BIN)/pip install --quiet --editable '.[notebooks]'
	touch $@

.venv/installed-dev: pyproject.toml
	$(PYTHON) -m venv .venv
	rm -f .venv/installed-*
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch .venv/installed-notebooks $@

.NOTPARALLEL:
.PHONY: run lab editions check test lint site
