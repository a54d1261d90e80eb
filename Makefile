# make demo: the whole loop on this CPU. make test: the tests. Both make .venv when it is missing.
# make bench: speeds against peers. make soak: the long tests (hours).
# Where python3 is not 3.11, 3.12 or 3.13: make demo PYTHON=/path/to/python3.12
PYTHON ?= python3
VENV ?= .venv
STUDY ?= quickstart
OUT ?= results
RUNS ?= $(OUT)/$(STUDY)
FLOPS ?=
TOPOLOGY ?= v5e:2x2
SHELL := /bin/bash
LMSCALE := $(VENV)/bin/lmscale

.PHONY: setup demo plan sweep fit optimal plot report aot test test-long bench bench-gpu soak lint clean

setup: $(VENV)/.installed

$(VENV)/.installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else \
	  f"make: Python {v[0]}.{v[1]} cannot run the training side (TensorFlow has builds for 3.11 to 3.13); use PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	@echo "installing jax, flax, orbax, seqio (TensorFlow) and the rest into $(VENV): about 2 GB, some minutes"
	$(VENV)/bin/python -m pip install --quiet --editable '.[train,dev]'
	@touch $@

demo: setup
	$(LMSCALE) sweep $(STUDY) --out $(OUT)
	$(LMSCALE) fit $(RUNS) --json $(RUNS)/fit.json
	$(LMSCALE) backtest $(RUNS) --json $(RUNS)/backtest.json
	$(LMSCALE) plot $(RUNS)
	$(LMSCALE) optimal $(RUNS) --json $(RUNS)/optimal.json

plan: setup
	$(LMSCALE) plan $(STUDY) --out $(OUT)

sweep: setup
	$(LMSCALE) sweep $(STUDY) --out $(OUT)

fit: setup
	$(LMSCALE) fit $(RUNS)

optimal: setup
	$(LMSCALE) optimal $(RUNS) $(if $(FLOPS),--flops $(FLOPS))

plot: setup
	$(LMSCALE) plot $(RUNS)

report: setup
	$(LMSCALE) report $(RUNS)

# The study's steps compiled for TPUs that are not here: make aot STUDY=quickstart TOPOLOGY=v5e:4x4. libtpu is a download
# of some 200 MB.
aot: setup
	$(VENV)/bin/python -m pip install --quiet --editable '.[tpu]'
	$(LMSCALE) aot $(STUDY) --topology $(TOPOLOGY) --out $(OUT)

# Tests wait for processes that they start: three share two cores.
PYTEST = $(VENV)/bin/python -m pytest --numprocesses $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1) --maxprocesses 5 --dist loadfile \
	--no-loadscope-reorder

test: setup
	$(PYTEST)

# The tests that take half a minute and more each; .ci/run runs them once.
test-long: setup
	$(PYTEST) -m long

# Ratios against named peers on the same work in one run: the fit (one thread each, for these matrices are small), and
# training; then what planning 10,000 runs takes, preparing text, cleaning it and drawing batches. NANOGPT=path and
# NANODO=path are checkouts of those peers; PyTorch is installed for the occasion.
bench: setup
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(VENV)/bin/python tests/bench/fit.py
	$(VENV)/bin/python -m pip install --quiet --editable '.[train,bench]'
	$(VENV)/bin/python tests/bench/train.py $(if $(NANOGPT),--nanogpt $(NANOGPT)) $(if $(NANODO),--nanodo $(NANODO))
	$(VENV)/bin/python tests/bench/sweep.py
	$(VENV)/bin/python tests/bench/engine.py
	$(VENV)/bin/python tests/bench/replicas.py
	$(VENV)/bin/python tests/bench/families.py
	$(VENV)/bin/python tests/bench/generate.py $(if $(NANOGPT),--nanogpt $(NANOGPT))
	$(VENV)/bin/python tests/bench/plan.py
	$(VENV)/bin/python tests/bench/prepare.py
	$(VENV)/bin/python tests/bench/tokenizers.py
	$(VENV)/bin/python tests/bench/ngram.py
	$(VENV)/bin/python tests/bench/clean.py
	$(VENV)/bin/python tests/bench/loader.py
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/bench/report.py

# Share of a GPU's peak, models trained together, a profile: with whatever jax the machine has, and without TensorFlow.
bench-gpu:
	$(if $(wildcard $(VENV)/bin/python),$(VENV)/bin/python,$(PYTHON)) tests/bench/gpu.py --profile

# Coverage of intervals on simulated studies, under two hours on two cores; interrupted, it goes on where it stopped. Then
# the faults that a sweep survives, two hours and a half.
soak: setup test-long
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m analysis.coverage --file $(OUT)/coverage.csv
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/soak/sweep.py
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/soak/slices.py
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/soak/sharpness.py
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/soak/audit.py
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/soak/suggest.py
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/soak/multiplier.py
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/soak/chain.py
	$(VENV)/bin/python -m pip install --quiet --editable '.[tpu]'
	$(VENV)/bin/python tests/soak/aot.py

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

clean:
	rm -rf $(VENV) $(OUT) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
