# make demo   sets everything up and runs the main job on a clip that it makes
# make test   sets everything up and passes the checks and tests
#
# TORCH_INDEX names a package index for torch alone, such as PyTorch's own CPU index
# https://download.pytorch.org/whl/cpu, which saves gigabytes of CUDA libraries.

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
BIN := $(VENV)/bin
EXTRAS := torch,openvino,tensorrt-rtx,kernels,dev
# Two versions of one package, beside the environment: the plugins' tests import each alone.
BINDINGS := 10:10.16.1.11 11:11.4.0.106

.PHONY: demo test lint setup clean bench

demo: $(VENV)/.ready
	$(BIN)/python examples/main_job.py demo-out

test: lint
	$(BIN)/python -m pytest --numprocesses=auto --dist=loadfile

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

clean:
	rm -rf $(VENV) demo-out build dist
