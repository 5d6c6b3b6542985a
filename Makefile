# Each target does its own set-up: Python 3.11 or newer with venv is all that a machine needs.
#   make demo    the whole pipeline on one machine, checked against the truth
#   make test    the test suite; `make test ARGS="-k fold -x"` hands arguments to pytest
#   make bench   the benchmarks
#   make chaos   rounds of faults on a real Kafka; `make chaos ARGS="--rounds 20 --seed 1"` (needs Java and Maven)
#   make lint    formatter, linter, type checker

SHELL := /bin/sh
VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.callfold-installed
ARGS  ?=
JOBS  ?= 2

.DEFAULT_GOAL := help
.PHONY: help install demo test bench chaos lint format clean

help:
	@sed -n 's/^#   //p' Makefile

install: $(STAMP)

# The first Python on the PATH that is new enough and runs: a name alone is no proof, as version managers leave shims.
$(BIN)/python:
	@for candidate in "$${PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do \
	  [ -n "$$candidate" ] || continue; \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    echo "$$candidate: making $(VENV)"; exec "$$candidate" -m venv $(VENV); \
	  fi; \
	done; \
	echo "Callfold needs Python 3.11 or newer with the venv module (on Debian: apt-get install python3-venv)." >&2; exit 1

$(STAMP): pyproject.toml | $(BIN)/python
	@echo "installing callfold and its tools into $(VENV), once"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/callfold demo $(ARGS)

# In two processes, file by file: most of a test's time is waiting for the brokers and programs that it starts.
test: $(STAMP)
	@$(BIN)/python -m pytest --numprocesses=$(JOBS) --dist=loadfile $(ARGS)

bench: $(STAMP)
	@$(BIN)/python benchmarks/run.py $(ARGS)
	@$(BIN)/python benchmarks/collector.py
	@$(BIN)/python benchmarks/recovery.py

chaos: $(STAMP)
	@$(BIN)/python tests/chaos/run.py $(ARGS)

lint: $(STAMP)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: $(STAMP)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
