"""Starting from other networks' checkpoints, and learning from a teacher's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from srdeploy import data
from srdeploy.errors import CheckpointError, TrainingError
from srdeploy.models import candidates
from srdeploy.train.weights import load_teacher, start_from, store, untrained

HAN_ALONE = ("la.", "csa.", "last_conv.", "last.")


def tiny(model: str, scale: int = 4):
    return candidates(model, scale)[0]


def test_rcan_starts_han(tmp_path: Path) -> None:
    """An RCAN is a HAN without its own attentions; the names of all other tensors are the same."""
    family, variant = tiny("han-tiny")
    rcan = {
        name: tensor.clone()
        for name, tensor in untrained(family, variant, 1).state_dict().items()
        if not name.startswith(HAN_ALONE)
    }
    path = tmp_path / "rcan.pt"
    torch.save(rcan, path)
    network = untrained(family, variant, 2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    start = start_from(path, network, family)
    assert start.taken == len(rcan)
    assert {name.split(".")[0] for name in start.fresh} == {"la", "csa", "last_conv", "last"}
    assert "untrained in la, csa, last_conv, last" in str(start)
    assert f"{len(rcan)} of {len(before)} tensors" in str(start)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, rcan.get(name, before[name])), name


def test_another_scale_starts_all_but_the_upsampler(tmp_path: Path) -> None:
    family, large = tiny("vapsr", 2)
    path = tmp_path / "x2.pth"
    torch.save({"params_ema": untrained(family, large, 1).state_dict()}, path)
    family, variant = tiny("vapsr", 3)
    start = start_from(path, untrained(family, variant, 2), family)
    assert {name.split(".")[0] for name in start.fresh} == {"upsampler"}
    assert start.share > 0.9


def test_a_run_s_own_checkpoint_starts_from_its_average(tmp_path: Path) -> None:
    family, variant = tiny("hat-tiny")
    trained = untrained(family, variant, 1)
    path = tmp_path / "hat.safetensors"
    store(path, trained, family, half=False)
    network = untrained(family, variant, 2)
    start = start_from(path, network, family)
    assert str(start) == f"all {start.taken} tensors"
    assert all(
        torch.equal(one, other)
        for one, other in zip(network.parameters(), trained.parameters(), strict=True)
    )


def test_what_cannot_start_is_refused(tmp_path: Path) -> None:
    family, variant = tiny("hat-tiny")
    network = untrained(family, variant, 0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    weights = data.bundled_weights("han-tiny-x4")
    with pytest.raises(TrainingError, match=r"fits 0 of the .* too little to start from"):
        start_from(weights, network, family)
    with pytest.raises(CheckpointError, match="no file"):
        start_from(tmp_path / "absent.pth", network, family)
    damaged = {name: t for name, t in before.items() if name != "conv_last.weight"}
    save_file({n: t.contiguous() for n, t in damaged.items()}, tmp_path / "damaged.safetensors")
    with pytest.raises(CheckpointError, match=r"conv_last.weight"):
        start_from(tmp_path / "damaged.safetensors", network, family)
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())


def test_a_teacher_has_the_scale_of_its_student() -> None:
    weights = data.bundled_weights("vapsr-tiny-x4")
    teacher, name = load_teacher(weights, 4)
    assert name == "vapsr-tiny-x4"
    assert teacher(torch.rand(1, 3, 16, 16)).shape == (1, 3, 64, 64)
    with pytest.raises(TrainingError, match=r"vapsr-tiny-x4 and upscales by 4, .* at scale 2"):
        load_teacher(weights, 2)
