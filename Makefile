# Everything happens in a virtual environment in this folder; a second `make` does not install again.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
STAMPS := .make
# Tests train small models in one thread each, and wait for children: three workers keep two cores busy.
WORKERS ?= 3
export TOKENIZERS_PARALLELISM = false
# Thousands of processes start in the tests: without bytecode each of them would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE

HAS_GPU := $(shell nvidia-smi -L 2>/dev/null | grep -c '^GPU')
EXTRA   := $(if $(filter-out 0,$(HAS_GPU)),[gpu],)

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo test test-fast test-gpu lint types contracts check docs snapshots bench bench-data bench-report bench-runs bench-start torture wheel clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name it: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

# Without an NVIDIA card the CPU build of torch is installed first, wherever pip can find one: it is a tenth of the
# size. Where none is found, or with a card, the next rule takes torch from the package index.
$(STAMPS)/torch: $(STAMPS)/venv constraints.txt
ifeq ($(EXTRA),)
	@echo "No NVIDIA GPU here: looking for the CPU build of torch"
	@$(PIP) install -q -c constraints.txt 'torch==2.13.0+cpu' 2>/dev/null \
	  || $(PIP) install -q --retries 1 -c constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu \
	       'torch==2.13.0+cpu' 2>/dev/null \
	  || echo "None was found; the next step takes the package index's build"
endif
	@touch $@

$(STAMPS)/installed: $(STAMPS)/torch pyproject.toml constraints.txt
	@echo "Installing Tunewright$(EXTRA) and what it needs; this takes a minute or two"
	@$(PIP) install -q -c constraints.txt -e '.$(EXTRA)'
	@touch $@

$(STAMPS)/installed-dev: $(STAMPS)/installed
	@$(PIP) install -q -c constraints.txt -e '.$(if $(EXTRA),[gpu$(comma)dev],[dev])'
	@touch $@
comma := ,

install: $(STAMPS)/installed  ## set up the virtual environment

install-dev: $(STAMPS)/installed-dev

demo: $(STAMPS)/installed  ## set up, then tune the built-in model on this machine
	@$(BIN)/tunewright demo

test: $(STAMPS)/installed-dev  ## run the whole test suite (no GPU needed)
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not gpu and not hub"

test-fast: $(STAMPS)/installed-dev  ## run the tests that train nothing
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not gpu and not hub and not slow"

test-gpu: $(STAMPS)/installed-dev  ## run the tests that need an NVIDIA GPU
	$(BIN)/python -m pytest -q -m gpu

lint: $(STAMPS)/installed-dev  ## check style (ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMPS)/installed-dev  ## check types (pyright, strict)
	$(BIN)/pyright --pythonpath $(BIN)/python

contracts: $(STAMPS)/installed-dev  ## check who may import whom (import-linter)
	$(BIN)/lint-imports

check: lint types contracts test  ## everything that CI runs

docs: $(STAMPS)/installed-dev  ## regenerate the parts of the docs that come from the code
	$(BIN)/python docs/generate.py

snapshots: $(STAMPS)/installed-dev  ## accept the screens as they are now
	$(BIN)/python -m pytest -q tests/tui --snapshot-update

bench: $(STAMPS)/installed-dev  ## print the figures of the README
	$(BIN)/python benchmarks/figures.py

bench-report: $(STAMPS)/installed-dev  ## print how far the formulas are from what was measured on GPUs
	$(BIN)/python benchmarks/report.py

bench-data: $(STAMPS)/installed-dev  ## audit a million rows, and 268 files with known failures or none (7 minutes)
	$(BIN)/python benchmarks/data_corpus.py
	$(BIN)/python benchmarks/data_audit.py --json | tee benchmarks/data_audit.json

bench-runs: $(STAMPS)/installed-dev  ## open and follow a run of a million steps (10 minutes)
	$(BIN)/python benchmarks/long_runs.py --out benchmarks/long_runs.json

bench-start: $(STAMPS)/installed-dev  ## how soon the interface is there, beside a bare Textual app (5 minutes)
	$(BIN)/python benchmarks/first_screen.py --out benchmarks/first_screen.json

torture: $(STAMPS)/installed-dev  ## kill runs, fill disks and drop terminals, and compare what comes out (two hours on 2 cores)
	$(BIN)/python benchmarks/torture.py --out benchmarks/torture.json
	$(BIN)/python benchmarks/registry_kills.py --out benchmarks/registry_kills.json
	$(BIN)/python benchmarks/full_disk.py --out benchmarks/full_disk.json
	$(BIN)/python benchmarks/dropped.py --out benchmarks/dropped.json

wheel: $(STAMPS)/installed-dev  ## build the wheel
	$(PIP) wheel -q --no-deps -w dist .

clean:  ## remove the virtual environment and everything built
	rm -rf $(VENV) $(STAMPS) build dist *.egg-info
