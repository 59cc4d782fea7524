# Every chore of the project. `make demo` and `make test` work from a fresh clone: each makes .venv, installs, and runs.

VENV   := .venv
BIN    := $(VENV)/bin
# Further options for pip, e.g. PIP_ARGS="--extra-index-url ..." where another index has torch without CUDA.
PIP_ARGS ?=
# Tests run on that many processes.
JOBS   ?= auto

# The first interpreter that is new enough and can make a virtual environment.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3.10 python3; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 && { echo "$$p"; break; }; done)

.DEFAULT_GOAL := help
.NOTPARALLEL: # lint, then tests: the summary of pytest stands last
.PHONY: help demo test lint format check conformance fuzz gpu-fuzz structures gpu-check bench examples docs dist-check clean

help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# One stamp for each set of extras: installing again happens only when the dependencies changed.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "stein needs Python 3.10 or newer (with venv); set PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-%: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[$*]'
	@touch $@

.typing/stein:
	@mkdir -p .typing && ln -s .. $@

demo: $(VENV)/.installed-demo ## compile and run a picture filter; shows what the compiler did; writes out/
	$(BIN)/python -m stein demo

test: lint check ## everything that must pass before a commit: lint, types, tests

check: $(VENV)/.installed-test ## the tests alone
	$(BIN)/python -m pytest -q -n $(JOBS) --maxprocesses 8

lint: $(VENV)/.installed-test .typing/stein ## ruff (rules and format) and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet . || { echo 'formatting differs: run "make format"' >&2; exit 1; }
	$(BIN)/mypy --strict

format: $(VENV)/.installed-test ## let ruff fix and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

conformance: $(VENV)/.installed-test ## the einsum tests of NumPy and opt_einsum, run against stein
	$(BIN)/python tests/conformance/run.py

fuzz: $(VENV)/.installed-test ## random calls against NumPy and the interpreter (CALLS=10000)
	$(BIN)/python tests/fuzz/run.py --calls $(or $(CALLS),10000)

gpu-fuzz: $(VENV)/.installed-test ## random calls and structured programs on the GPU backend, in Triton's interpreter (CASES=4000)
	$(BIN)/python -m stein.tests.gpu.fuzzed --cases $(or $(CASES),4000)
	$(BIN)/python -m stein.tests.gpu.fused_random --cases $(or $(CASES),4000)

structures: $(VENV)/.installed-test ## long random tests of the structure recogniser (NETWORKS=20000 VARIANTS=10000)
	$(BIN)/python tests/structures/run.py --networks $(or $(NETWORKS),20000) --variants $(or $(VARIANTS),10000)

gpu-check: $(VENV)/.installed-test ## assemble every fused kernel for GPUs that are not here
	$(BIN)/python tests/gpu_check.py

bench: $(VENV)/.installed-bench ## side by side with NumPy, opt_einsum, torch, JAX and TenSEAL
	$(BIN)/python benchmarks/structures.py
	$(BIN)/python benchmarks/cpu.py
	$(BIN)/python benchmarks/ckks.py

examples: $(VENV)/.installed-test ## run every example; prints the table of structures (NAMES="monarch blast" runs some)
	$(BIN)/python examples/run.py $(NAMES)

docs: $(VENV)/.installed-docs ## write the pages and the API reference to site/
	$(BIN)/python docs/build.py site

dist-check: $(VENV)/.installed-test ## build the source and binary distributions and look inside
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python tests/dist_check.py dist

clean: ## remove what was built (not .venv)
	rm -rf build dist out site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
