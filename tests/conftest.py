"""Fixtures that all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported: kernels run on the CPU
if "PYTEST_XDIST_WORKER" in os.environ:  # the workers have the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings
from safetensors.torch import load_file
from srdeploy.models import Architecture
from srdeploy.models.weights.checkpoint import describe, detect
from srdeploy.spec import ModelSpec

settings.register_profile("srdeploy", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("srdeploy")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of the session: nothing is written into the user's, nor taken from it."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRDEPLOY_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of test sets, official weights and golden tensors; skips where there is none."""
    folder = Path(os.environ.get("SRDEPLOY_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "golden").is_dir():
        pytest.skip("no test data: set SRDEPLOY_SHARED")
    return folder


@dataclass(frozen=True)
class Golden:
    """A tiny network of the published code with random weights, and what it gave.

    Attributes:
        name: Of the file.
        family: Its architecture, found from the tensors.
        network: Ours, with the published tensors.
        spec: Its description.
        state: The published tensors.
        pairs: Inputs on [0, 1] and outputs.
    """

    name: str
    family: Architecture
    network: torch.nn.Module
    spec: ModelSpec
    state: dict[str, torch.Tensor]
    pairs: list[tuple[torch.Tensor, torch.Tensor]]


GOLDEN = [
    *(f"vapsr_tiny_x{s}" for s in (2, 3, 4)),
    "attentionsr_tiny_x2",
    *(f"han_tiny_x{s}" for s in (2, 3, 4)),
    *(f"enlcn_tiny_x{s}" for s in (2, 4)),
    *(f"hat_tiny_x{s}" for s in (2, 3, 4)),
]


def read_golden(path: Path) -> Golden:
    """Open a golden file; its pixels may be on another range than [0, 1]."""
    tensors = load_file(path)
    state = {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
    family, config, _ = detect(state, path)
    network = family.build(config).eval().requires_grad_(False)
    network.load_state_dict(state, strict=True)
    spec = describe(family, config, network, path.name)
    inputs = sorted(name for name in tensors if name.startswith("input."))
    pairs = [
        tuple(tensors[n] / spec.value_range for n in (name, name.replace("input", "output")))
        for name in inputs
    ]
    return Golden(path.stem, family, network, spec, state, pairs)


def _ours(name: str) -> Path:
    return REPOSITORY / "tests/golden" / f"{name}.safetensors"


def _golden(request: pytest.FixtureRequest) -> Golden:
    if _ours(request.param).exists():
        return read_golden(_ours(request.param))
    shared: Path = request.getfixturevalue("shared")
    return read_golden(shared / "golden" / f"{request.param}.safetensors")


@pytest.fixture(scope="session", params=GOLDEN)
def golden(request: pytest.FixtureRequest) -> Golden:
    """Each golden network; the larger files are not part of the checkout."""
    return _golden(request)


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(name, marks=[] if _ours(name).exists() else [pytest.mark.slow])
        for name in GOLDEN
    ],
)
def traced(request: pytest.FixtureRequest) -> Golden:
    """The same for what traces them, which takes long: the larger ones in the slow run only."""
    return _golden(request)
