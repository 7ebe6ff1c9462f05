"""VapSR: equality with the published network, detection, variants."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from srdeploy.errors import SrDeployError
from srdeploy.models import all_variants, architecture, architecture_names, candidates
from srdeploy.models.vapsr import VapSRConfig, describe, detect, rename_legacy

ARCHITECTURE = architecture("vapsr")


@pytest.mark.shared
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_golden(shared: Path, scale: int) -> None:
    with safe_open(shared / f"golden/vapsr_tiny_x{scale}.safetensors", "pt") as golden:
        tensors = {name: golden.get_tensor(name) for name in golden.keys()}  # noqa: SIM118
    state = {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
    config = detect(state)
    assert config is not None
    network = ARCHITECTURE.build(config).eval()
    network.load_state_dict(state, strict=True)
    for name in [n for n in tensors if n.startswith("input.")]:
        expected = tensors[name.replace("input", "output")]
        with torch.inference_mode():
            got = network(tensors[name])
        span = expected.max() - expected.min()
        assert (got - expected).abs().max() / span < 2e-5


@pytest.mark.parametrize("variant", ARCHITECTURE.variants, ids=lambda v: v.name)
def test_variant_parameters_and_detection(variant) -> None:
    network = ARCHITECTURE.build(variant.config)
    assert sum(p.numel() for p in network.parameters()) == variant.parameters
    assert detect(network.state_dict()) == variant.config
    assert describe(variant.config).variant == variant.name


@given(
    scale=st.sampled_from([2, 3, 4]),
    half_feat=st.integers(2, 12),
    blocks=st.integers(1, 4),
    attention=st.integers(1, 20),
    groups=st.sampled_from([1, 2]),
    upsampler=st.integers(1, 4),
)
def test_detection_reads_every_hyper_parameter(
    scale: int, half_feat: int, blocks: int, attention: int, groups: int, upsampler: int
) -> None:
    config = VapSRConfig(scale, 2 * half_feat, blocks, attention, groups, 4 * upsampler)
    with torch.device("meta"):
        state = ARCHITECTURE.build(config).state_dict()
    assert detect(state) == config


def test_legacy_names() -> None:
    config = VapSRConfig(4, 8, 1, 8)
    state = ARCHITECTURE.build(config).state_dict()
    old = {k.replace("atten_branch", "spatial_gating_unit"): v for k, v in state.items()}
    assert {rename_legacy(k) for k in old} == set(state)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_receptive_radius_is_what_a_pixel_reaches(scale: int) -> None:
    config = VapSRConfig(scale, 8, 2, 8)
    torch.manual_seed(0)
    network = ARCHITECTURE.build(config).double().eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):  # no chance zero hides a connection
                module.weight.uniform_(0.05, 0.1)
    radius = describe(config).receptive_radius
    assert radius is not None
    size = 2 * radius + 7
    x = torch.rand(1, 3, 1, size, dtype=torch.float64)
    moved = x.clone()
    moved[..., size // 2] += 1.0
    with torch.inference_mode():
        columns = (network(moved) - network(x)).abs().amax((0, 1, 2)).reshape(size, scale)
    reached = columns.amax(1).nonzero().flatten()
    distance = max(size // 2 - int(reached[0]), int(reached[-1]) - size // 2)
    assert radius - 1 <= distance <= radius


def test_registry_is_the_folder() -> None:
    assert "vapsr" in architecture_names()
    assert len({v.name for _, v in all_variants()}) == len(all_variants())
    assert [v.name for _, v in candidates("vapsr", 4)] == ["vapsr-x4", "vapsr-s-x4"]
    assert [v.name for _, v in candidates("vapsr-s", 4)] == ["vapsr-s-x4"]


@pytest.mark.parametrize(("model", "scale"), [("nonsense", 4), ("vapsr", 7), ("vapsr-s", 3)])
def test_unknown_names_say_what_is_known(model: str, scale: int) -> None:
    with pytest.raises(SrDeployError) as caught:
        candidates(model, scale)
    assert caught.value.hint
