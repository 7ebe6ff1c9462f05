"""Engines on a GPU against golden tensors and PyTorch, within the limits that hold on CPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from gpu_cases import SMALLEST, TINY, cases, engine_of, pairs, subject
from srdeploy.bench.built import Backend
from srdeploy.bench.parity import GOLDEN_TOLERANCE, errors
from srdeploy.bench.subject import golden_files, read_golden
from srdeploy.runtime import gpu_facts
from srdeploy.runtime.session import Frames
from srdeploy.runtime.targets.onnxruntime import graph_runner
from srdeploy.spec import Precision
from srdeploy.validate.metrics import cut_border, luma, psnr
from srdeploy.validate.torch_session import TorchSession

Upscale = Callable[[Frames], Frames]


def mean_psnr(upscale: Upscale, other: Upscale | None, scale: int) -> float:
    """Over the pairs, against the truth or against another's output."""
    values = []
    for lr, hr in pairs(scale):
        truth = hr if other is None else other(lr)
        planes = (cut_border(luma(frames[0]), scale) for frames in (upscale(lr), truth))
        values.append(psnr(*planes))
    return float(np.mean(values))


GOLDEN = {path.stem: path for path in golden_files(None)}


@pytest.mark.parametrize(
    ("backend", "name"), cases(list(GOLDEN), "vapsr_tiny_x2"), indirect=["backend"]
)
def test_golden_values(backend: Backend, name: str) -> None:
    golden = read_golden(GOLDEN[name])
    given = [(lr.numpy(), hr.numpy()) for lr, hr in golden.pairs]
    found = errors(golden.subject, given, backend, Precision.FP32)
    assert max(found) < GOLDEN_TOLERANCE


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.INT8])
@pytest.mark.parametrize(("backend", "name"), cases(TINY, SMALLEST), indirect=["backend"])
def test_every_tiny_network(backend: Backend, name: str, precision: Precision) -> None:
    """fp32 to a code value; fp16 within 0.01 dB; int8 as the graph says, computed in float."""
    made = subject(name)
    scale = made.spec.scale
    reference = TorchSession(made.network, made.spec)
    engine = engine_of(backend, name, precision)
    with engine.open() as session:
        assert session.target == backend.target.name
        if precision is Precision.FP32:
            for lr, _ in pairs(scale):
                difference = session.upscale(lr).astype(int) - reference.upscale(lr)
                assert np.abs(difference).max() <= 1
            return
        ours = mean_psnr(session.upscale, None, scale)
        if precision is Precision.FP16:
            assert abs(ours - mean_psnr(reference.upscale, None, scale)) <= 0.01
            return
        run = graph_runner(engine.graph)
        as_written: Upscale = lambda frames: run({"frames": frames})["upscaled"]  # noqa: E731
        assert abs(ours - mean_psnr(as_written, None, scale)) <= 0.05
        assert mean_psnr(session.upscale, as_written, scale) >= 40


@pytest.mark.parametrize(
    "backend", [pytest.param("tensorrt", marks=pytest.mark.gpu)], indirect=True
)
@pytest.mark.parametrize("name", [n for n in TINY if n.startswith(("hat", "enlcn"))])
def test_custom_ops_are_plugins(backend: Backend, name: str) -> None:
    """Or a note says why their bodies were built in."""
    engine = engine_of(backend, name, Precision.FP16)
    assert engine.manifest.build.plugins or any("no plugin" in n for n in engine.built.notes)


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8])
@pytest.mark.parametrize(
    "backend",
    [pytest.param(name, marks=pytest.mark.gpu) for name in ("tensorrt", "tensorrt-rtx")],
    indirect=True,
)
def test_layers_are_built_as_asked(backend: Backend, precision: Precision) -> None:
    """At least nine of ten products whose layer says what it computes in."""
    nodes = engine_of(backend, SMALLEST, precision).built.layers.nodes
    told = [node for node in nodes if node.built]
    assert told
    assert sum(node.differs for node in told) <= len(told) // 10


KERNELS = """
import json
from srdeploy.bench.gpu_plugins import Machine, correctness, through_pycuda
machine = Machine()
assert not machine.dry
print(json.dumps({"triton": correctness(machine), "pycuda": through_pycuda(machine)}))
"""


@pytest.mark.gpu
def test_plugin_kernels_against_torch() -> None:
    """In a process of its own, where Triton does not interpret."""
    if reason := gpu_facts.driver_problem():
        pytest.skip(reason)
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip(f"PyTorch {torch.__version__} sees no CUDA device")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KERNELS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert not [row for row in found["triton"] if not row["within_twice"]]
    if isinstance(found["pycuda"], str):
        pytest.skip(found["pycuda"])
    assert not [row for row in found["pycuda"] if not row["within_twice"]]
