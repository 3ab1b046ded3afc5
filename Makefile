# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: demo test slow reliability bench coverage lint types docs check clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/segdistill demo

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 -m "not slow"

slow: $(STAMP)
	$(BIN)/python -m pytest -n 2 -m slow --timeout=3600

reliability: $(STAMP)
	$(BIN)/python -m tests.reliability

bench: $(STAMP)
	$(BIN)/python benchmarks/bench.py

coverage: $(STAMP)
	$(BIN)/python -m pytest -n 2 -m "not slow" --cov=segdistill --cov-report=term-missing:skip-covered

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

docs: $(STAMP)
	$(BIN)/sphinx-build --builder html --nitpicky --fail-on-warning --keep-going --fresh-env --quiet docs build/docs
	@echo "open build/docs/index.html"

check: lint types docs test

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build/docs
