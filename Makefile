# make demo    a rendered catalogue, every verb run on it, and a score
# make test    the tests this machine can run
# make lint | types | bench | docs
#
# Everything is installed into .venv, once, with the exact pins of constraints.txt.
# PYTHON=/path/to/python3 chooses the interpreter, WORKERS=n the number of test processes.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?=
WORKERS ?= 2
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input -c constraints.txt

.DELETE_ON_ERROR:
.PHONY: help demo test lint types bench docs clean

help:
	@sed -n '1,/^$$/s/^# *//p' Makefile

demo: $(VENV)/.core
	@rm -rf demo
	$(BIN)/shelfwise demo demo

test: $(VENV)/.dev
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not gpu and not network"

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.dev
	$(BIN)/mypy

bench: $(VENV)/.dev
	@$(BIN)/python benchmarks/run.py

docs: $(VENV)/.dev
	$(BIN)/zensical build --clean --strict
	$(BIN)/python -m pytest -q tests/test_docs.py tests/test_docs_reference.py

clean:
	rm -rf $(VENV) demo build dist

# The interpreter: the first that is 3.11 or newer and can make a virtual environment.
$(VENV)/.made:
	@for python in $(PYTHON) python3.11 python3.12 python3.13 python3 python; do \
		if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "making $(VENV) with $$($$python --version)"; \
			"$$python" -m venv --clear $(VENV) && touch $@; exit $$?; \
		fi; \
	done; \
	echo "Shelfwise needs Python 3.11 or newer with its venv module; none was found." >&2; \
	echo "Install one (on Debian: python3.11 and python3.11-venv), or name it: make PYTHON=/path/to/python3" >&2; \
	exit 1

# What `make demo` needs.
$(VENV)/.core: $(VENV)/.made pyproject.toml constraints.txt
	@echo "installing shelfwise and what it needs into $(VENV) (about two minutes, once)"
	$(INSTALL) -e '.[train]'
	@touch $@

# All of it; holds the core too.
$(VENV)/.dev: $(VENV)/.made pyproject.toml constraints.txt
	@echo "installing shelfwise and its development tools into $(VENV) (about two minutes, once)"
	$(INSTALL) -e '.[dev]'
	@touch $(VENV)/.core $@
