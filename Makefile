# Two commands: `make demo` and `make test`. Both set up .venv by themselves, from wheels only.
# An extra package index (for instance one with CPU-only torch) is honoured through pip's own environment variables,
# such as PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint bench docs install clean

demo: $(VENV)/.demo
	$(BIN)/tutelage demo

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not real and not slow and not gpu and not paid"
	$(BIN)/python -m pytest -m real

lint: $(VENV)/.dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyrefly check

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/demo.py

docs: $(VENV)/.dev
	$(BIN)/python -m tutelage.cli.reference > docs/cli.md

install: $(VENV)/.demo

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; say which with: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: -e ".[demo]"
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --group dev
	touch $@

clean:
	rm -rf $(VENV) runs
