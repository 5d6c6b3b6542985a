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
BENCH_VENV  := .venv-bench
BENCH_STAMP := $(BENCH_VENV)/.installed
# What the compiled part is made of: an edit there is compiled by the next target.
NATIVE := pipeline/native
CRATE  := $(NATIVE)/Cargo.toml $(NATIVE)/Cargo.lock $(NATIVE)/build.py $(shell find $(NATIVE)/src -name '*.rs')
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

# pip keeps to itself what the build says.
$(STAMP): pyproject.toml $(CRATE) | $(BIN)/python
	@echo "installing callfold and its tools into $(VENV), once"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@ls $(NATIVE)/*.so >/dev/null 2>&1 || \
	  echo "without a Rust compiler (https://rustup.rs) callfold works at about a third of the speed" >&2
	@touch $@

demo: $(STAMP)
	@$(BIN)/callfold demo $(ARGS)

# In processes, file by file: half of a test's time is waiting for the brokers and programs that it starts. In the
# order of the files, so that those that wait and those that compute are mixed.
test: $(STAMP)
	@$(BIN)/python -m pytest --numprocesses=$(JOBS) --dist=loadfile --no-loadscope-reorder $(ARGS)

# The peers have an environment of their own; one that cannot be installed is left out.
$(BENCH_STAMP): benchmarks/requirements.txt | $(STAMP)
	@echo "installing the benchmark's peers into $(BENCH_VENV), once"
	@$(BIN)/python -m venv $(BENCH_VENV)
	@pip="$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check"; \
	$$pip -r benchmarks/requirements.txt || \
	sed '/^#/d' benchmarks/requirements.txt | while read -r package; do \
	  $$pip "$$package" || echo "$$package cannot be installed: what needs it is left out" >&2; \
	done
	@touch $@

# With ARGS the main job only, such as `make bench ARGS=--quick`.
bench: $(STAMP) $(BENCH_STAMP)
	@$(BIN)/python benchmarks/run.py $(ARGS)
	@[ -n "$(ARGS)" ] || $(BIN)/python benchmarks/freshness.py
	@[ -n "$(ARGS)" ] || $(BIN)/python benchmarks/scaling.py
	@[ -n "$(ARGS)" ] || $(BIN)/python benchmarks/collector.py --rounds 3 --memory-requests 0
	@[ -n "$(ARGS)" ] || $(BIN)/python benchmarks/recovery.py --rounds 1
	@[ -n "$(ARGS)" ] || $(BIN)/python benchmarks/queries.py

chaos: $(STAMP)
	@$(BIN)/python tests/chaos/run.py $(ARGS)

lint: $(STAMP)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@! cargo fmt --version >/dev/null 2>&1 || (cd $(NATIVE) && cargo fmt --check)
	@! cargo clippy --version >/dev/null 2>&1 || (cd $(NATIVE) && cargo clippy --release --quiet --locked -- -D warnings)

format: $(STAMP)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@! cargo fmt --version >/dev/null 2>&1 || (cd $(NATIVE) && cargo fmt)

clean:
	rm -rf $(VENV) .venv-bench build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis $(NATIVE)/target $(NATIVE)/*.so
