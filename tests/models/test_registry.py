"""The registry of architectures, and the old names of VapSR's tensors."""

from __future__ import annotations

import pkgutil
import sys

import pytest
from srdeploy.errors import SrDeployError
from srdeploy.models import all_variants, architecture, architecture_names, candidates, networks
from srdeploy.models.vapsr import VapSRConfig, rename_legacy

ARCHITECTURE = architecture("vapsr")


def test_legacy_names() -> None:
    config = VapSRConfig(4, 8, 1, 8)
    state = ARCHITECTURE.build(config).state_dict()
    old = {k.replace("atten_branch", "spatial_gating_unit"): v for k, v in state.items()}
    assert {rename_legacy(k) for k in old} == set(state)


def test_registry_is_the_folder() -> None:
    assert architecture_names() == ("attentionsr", "enlcn", "han", "hat", "vapsr")
    modules = {module.name for module in pkgutil.iter_modules(networks.__path__)}
    assert modules - {"layers"} == set(architecture_names())
    assert len({v.name for _, v in all_variants()}) == len(all_variants())
    assert [v.name for _, v in candidates("vapsr", 4)] == ["vapsr-x4", "vapsr-s-x4"]
    assert [v.name for _, v in candidates("vapsr-s", 4)] == ["vapsr-s-x4"]
    # a model goes before the rest of the family that has its name; -tiny must be asked for
    assert [v.name for _, v in candidates("hat", 4)] == ["hat-x4", "hat-l-x4", "hat-s-x4"]
    assert [v.name for _, v in candidates("hat-tiny", 4)] == ["hat-tiny-x4"]


def test_only_building_needs_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "srdeploy.models.networks.vapsr", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    spec = ARCHITECTURE.describe(ARCHITECTURE.variants[0].config)
    assert spec.variant == "vapsr-x4"
    with pytest.raises(SrDeployError, match="torch is not installed") as caught:
        ARCHITECTURE.build(ARCHITECTURE.variants[0].config)
    assert "install" in caught.value.hint
    assert "[torch]" in caught.value.hint


@pytest.mark.parametrize(("model", "scale"), [("nonsense", 4), ("vapsr", 7), ("vapsr-s", 3)])
def test_unknown_names_say_what_is_known(model: str, scale: int) -> None:
    with pytest.raises(SrDeployError) as caught:
        candidates(model, scale)
    assert caught.value.hint
