# make demo   sets everything up and runs the main job on a clip that it makes
# make test   sets everything up and passes the checks and tests
# make docs   builds the documentation's site; a broken link fails
# make test-gpu   on a machine with an NVIDIA GPU: the tests that want one, and its benchmarks
#
# TORCH_INDEX names a package index for torch alone, such as PyTorch's own CPU index
# https://download.pytorch.org/whl/cpu, which saves gigabytes of CUDA libraries.

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
BIN := $(VENV)/bin
EXTRAS := train,openvino,tensorrt-rtx,kernels,dev,docs
# Two versions of one package, beside the environment: the plugins' tests import each alone.
BINDINGS := 10:10.16.1.11 11:11.4.0.106

# What a GPU's tests want beside it. pycuda compiles: nvcc must be in the PATH.
GPU_EXTRAS := $(EXTRAS),tensorrt,cuda
GPU_OUT ?= gpu-out

.PHONY: demo test docs test-gpu lint setup clean bench

demo: $(VENV)/.ready
	$(BIN)/python examples/main_job.py demo-out

# Signals to itself are sent in a process of their own: after other tests one ended the worker.
test: lint
	$(BIN)/python -m pytest --numprocesses=auto --dist=loadfile --ignore=tests/test_interruption.py
	$(BIN)/python -m pytest tests/test_interruption.py

docs: $(VENV)/.ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# Each part runs, whatever becomes of the others; figures and reports go to GPU_OUT.
test-gpu: $(VENV)/.ready-gpu
	mkdir -p $(GPU_OUT)
	status=0; \
	$(BIN)/python -m pytest -m gpu tests/gpu --junit-xml=$(GPU_OUT)/tests.xml || status=1; \
	$(BIN)/python -m srdeploy.bench.gpu_plugins --json $(GPU_OUT)/gpu_plugins.json || status=1; \
	$(BIN)/python -m srdeploy.bench.gpu_engines --target tensorrt --target tensorrt-rtx \
		--json $(GPU_OUT)/gpu_engines.json || status=1; \
	exit $$status

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.ready
	$(BIN)/python -m srdeploy.bench.video

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: srdeploy needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(BIN)/pip install --quiet --constraint constraints.txt --index-url $(TORCH_INDEX) torch)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	for each in $(BINDINGS); do $(BIN)/pip install --quiet --upgrade --no-deps \
		--target $(VENV)/tensorrt-$${each%%:*} tensorrt-cu13-bindings==$${each#*:} || exit; done
	touch $@

$(VENV)/.ready-gpu: $(VENV)/.ready
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[$(GPU_EXTRAS)]'
	touch $@

clean:
	rm -rf $(VENV) demo-out gpu-out build dist site
