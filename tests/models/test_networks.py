"""All networks: equality with the published ones, what tensors tell, how far a pixel reaches."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from srdeploy.commands.train import validation_pairs
from srdeploy.data import bundled_weights
from srdeploy.errors import CheckpointError
from srdeploy.models import all_variants, architecture, architecture_names
from srdeploy.models.attentionsr import AttentionSRConfig
from srdeploy.models.enlcn import ENLCNConfig
from srdeploy.models.han import HANConfig
from srdeploy.models.hat import HATConfig
from srdeploy.models.networks.attentionsr import LayerWeights
from srdeploy.models.networks.enlcn import LinearAttention
from srdeploy.models.networks.han import LayerAttention
from srdeploy.models.networks.layers.global_mean import GlobalMean
from srdeploy.models.vapsr import VapSRConfig
from srdeploy.models.weights import checkpoint, resolve
from srdeploy.models.weights.checkpoint import load_network
from srdeploy.spec import revive
from srdeploy.train.validation import evaluate
from srdeploy.validate.metrics import cut_border, luma, psnr
from srdeploy.validate.resize import resize
from torch.utils.flop_counter import FlopCounterMode

FAMILIES = [architecture(name) for name in architecture_names()]
VARIANTS = [pytest.param(f, v, id=v.name) for f, v in all_variants()]
SMALL: dict[str, Any] = {
    "attentionsr": AttentionSRConfig(3, 8, 3, 2, pooled=True, layer_attention=True),
    "enlcn": ENLCNConfig(2, 16, 8, 4, 8),
    "han": HANConfig(3, 3, 2, 8, 2),
    "hat": HATConfig(4, 12, (2, 2), (2, 3), 4, 6, 4, 3, 16, 8),
    "vapsr": VapSRConfig(4, 8, 3, 12, 2, 16),
}
GLOBAL = (GlobalMean, LayerAttention, LinearAttention, LayerWeights)
CASES = [pytest.param(architecture(name), config, id=name) for name, config in SMALL.items()]


def tensors_of(family, config) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(family.build(config).state_dict())


def test_golden(golden) -> None:
    """Within 2e-5 of the range of what the published code gives, at every size of the file."""
    network, family = golden.network, golden.family
    assert [f.name for f in FAMILIES if f.claims(golden.state)] == [family.name]
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, golden.state[name]), name  # indices as well as weights
    for lr, expected in golden.pairs:
        with torch.inference_mode():
            got = network(lr)
        assert got.shape == expected.shape
        assert (got - expected).abs().max() / (expected.max() - expected.min()) < 2e-5


@pytest.mark.parametrize(("family", "variant"), VARIANTS)
def test_variants_are_what_the_tables_say(family, variant) -> None:
    with torch.device("meta"):
        network = family.build(variant.config)
    assert sum(p.numel() for p in network.parameters()) == variant.parameters
    state = network.state_dict()
    assert [f.name for f in FAMILIES if f.claims(state)] == [family.name]
    spec = family.describe(variant.config)
    assert (spec.architecture, spec.variant, spec.scale) == (
        family.name,
        variant.name,
        variant.scale,
    )
    if family.name in {"enlcn", "han"}:  # its mean shift is read, which meta tensors have not
        state |= {"sub_mean.bias": torch.tensor([-0.4488, -0.4371, -0.4040]) * spec.value_range}
    assert family.detect(state) == variant.config


@pytest.mark.parametrize(("family", "variant"), VARIANTS)
def test_macs(family, variant) -> None:
    """For 1280×720 of output; a fraction of an LR pixel counts as a fraction."""
    s = variant.scale
    height, width = -(-720 // s), -(-1280 // s)
    with torch.device("meta"):
        network = family.build(variant.config).eval().requires_grad_(False)
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 3, height, width))
    share = (1280 * 720) / (height * s * width * s)
    assert counter.get_total_flops() / 2 * share == pytest.approx(variant.macs, rel=1e-9)


@given(data=st.data())
@pytest.mark.parametrize("name", list(SMALL))
def test_detection_reads_every_hyper_parameter(name: str, data) -> None:
    draw, family = data.draw, architecture(name)
    few, some = st.integers(1, 3), st.integers(2, 6)
    scale = draw(st.sampled_from([2, 3, 4, 8] if name in {"hat", "han", "enlcn"} else [2, 3, 4]))
    if name == "vapsr":
        groups = draw(st.sampled_from([1, 2]))
        config: Any = VapSRConfig(
            scale, 2 * draw(some), draw(few), draw(some), groups, 4 * draw(few)
        )
    elif name == "attentionsr":
        flags = draw(st.booleans()), draw(st.booleans())
        config = AttentionSRConfig(scale, 1 + draw(some), 1 + draw(few), draw(few), *flags)
    elif name == "han":
        value_range = draw(st.sampled_from([1.0, 255.0]))
        config = HANConfig(scale, draw(some), draw(few), draw(some), draw(few), value_range)
    elif name == "enlcn":
        config = ENLCNConfig(scale, 8 * draw(few), draw(some), draw(some), draw(some))
    else:
        groups, window = draw(few), 2 * draw(some)
        heads = tuple(draw(few) for _ in range(groups))
        config = HATConfig(
            scale=scale,
            embed_dim=6 * draw(few),
            depths=tuple(draw(few) for _ in range(groups)),
            num_heads=heads,
            window=window,
            key_window=window + 2 * draw(st.integers(1, window // 2)),
            compressed=draw(some),
            squeezed=draw(some),
            mlp_feat=draw(some),
            upsampler_feat=draw(some),
        )
    assert family.detect(family.build(config).state_dict()) == config


def load(state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What :func:`load_network` does with these tensors, without a file."""
    monkeypatch.setattr(checkpoint, "read_state", lambda _: state)
    return load_network(Path("net.pth"), "")


@pytest.mark.parametrize(("family", "config"), CASES)
def test_a_missing_tensor_is_named(family, config, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tensors_of(family, config)
    for name in state:
        cut = {key: tensor for key, tensor in state.items() if key != name}
        if family.is_derived(name):
            load(cut, monkeypatch)
            continue
        with pytest.raises(CheckpointError) as caught:
            load(cut, monkeypatch)
        assert f"'{name}'" in caught.value.message
        assert "missing" in caught.value.message


@pytest.mark.parametrize(("family", "config"), CASES)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_misshapen_tensor_is_named(
    family, config, axis: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tensors_of(family, config)
    for name, tensor in state.items():
        if tensor.ndim <= axis or name == "conv_body.weight":  # its shape tells the groups
            continue
        bad = torch.cat([tensor, tensor.narrow(axis, 0, 1)], axis)
        with pytest.raises(CheckpointError) as caught:
            load({**state, name: bad}, monkeypatch)
        assert name in caught.value.message


@pytest.mark.parametrize(("family", "config"), CASES)
def test_a_tensor_of_another_kind_is_named(family, config, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tensors_of(family, config)
    for name in [n for n, t in state.items() if t.is_floating_point()][::3]:
        with pytest.raises(CheckpointError) as caught:
            load({**state, name: state[name].long()}, monkeypatch)
        assert name in caught.value.message


@pytest.mark.parametrize(
    ("window", "key_window", "heads"),
    [(4, 7, 2), (4, 4, 2), (4, 2, 2), (5, 7, 2), (4, 10, 2), (64, 96, 2), (4, 6, 5), (300, 450, 1)],
)
def test_windows_that_cannot_be(window: int, key_window: int, heads: int) -> None:
    with pytest.raises(ValueError, match="relative_position_bias_table"):
        HATConfig(4, 12, (1,), (heads,), window, key_window)
    with torch.device("meta"):
        state = dict(architecture("hat").build(HATConfig(4, 12, (1,), (2,), 4, 6)).state_dict())
        for name in [n for n in state if n.endswith("bias_table")]:
            keys = key_window if "overlap" in name else window
            state[name] = torch.empty((window + keys - 1) ** 2, heads)
    with pytest.raises(ValueError, match="relative_position_bias_table"):
        architecture("hat").detect(state)


def test_indices_of_another_network_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    family = architecture("hat")
    state = tensors_of(family, SMALL["hat"])
    name = "relative_position_index_OCA"
    assert state[name].min() < 0  # as published
    with pytest.raises(CheckpointError, match=name):
        load({**state, name: state[name].abs()}, monkeypatch)


@pytest.mark.parametrize(("family", "config"), CASES)
def test_files_that_people_have(family, config, tmp_path: Path) -> None:
    """Wrapped, prefixed and in half precision; the tensors alone say what it is."""
    state = tensors_of(family, config)
    half = {f"module.{k}": v.half() if v.is_floating_point() else v for k, v in state.items()}
    torch.save({"params_ema": half, "params": {"x": torch.zeros(1)}}, tmp_path / "net.pth")
    network, spec = load_network(tmp_path / "net.pth", "net.pth")
    assert (spec.architecture, spec.scale) == (family.name, config.scale)
    assert revive(family.configuration, spec.config) == config
    for name, tensor in network.state_dict().items():
        expected = state[name]
        assert torch.equal(
            tensor, expected.half().float() if expected.is_floating_point() else expected
        )


def test_what_no_tensor_tells_can_be_set(tmp_path: Path) -> None:
    for name, option, value in (("hat", "conv_scale", 0.5), ("enlcn", "res_scale", 1.0)):
        family, config = architecture(name), SMALL[name]
        torch.save(tensors_of(family, config), tmp_path / f"{name}.pth")
        plain, published = load_network(tmp_path / f"{name}.pth", "")
        changed, spec = load_network(tmp_path / f"{name}.pth", "", {option: value})
        assert published.config[option] == getattr(type(config), option)
        assert spec.config[option] == value
        x = torch.rand(1, 3, 9, 8)
        with torch.inference_mode():
            assert not torch.equal(plain(x), changed(x))
    with pytest.raises(CheckpointError, match="'window' of hat cannot be set") as caught:
        load_network(tmp_path / "hat.pth", "", {"window": 8})
    assert "conv_scale" in caught.value.hint


def test_relatives_are_not_claimed_but_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """EDSR, RCAN and SwinIR share most names with ENLCN, HAN and HAT, and are neither."""
    han = tensors_of(architecture("han"), HANConfig(4, 10, 20, 4, 1))
    rcan = {k: v for k, v in han.items() if k.split(".")[0] not in ("la", "csa", "last_conv")}
    with pytest.raises(CheckpointError, match="does not know") as caught:
        load(rcan, monkeypatch)
    assert "nearest is han-x4" in caught.value.message
    assert "lacks 'csa.conv.bias'" in caught.value.message
    edsr = {"head.0.weight": torch.zeros(4, 3, 3, 3), "body.0.body.0.weight": torch.zeros(4, 4)}
    hat = tensors_of(architecture("hat"), SMALL["hat"])
    swinir = {
        k: v
        for k, v in hat.items()
        if not any(part in k for part in ("overlap_attn", "conv_block", "index_OCA"))
    }
    for other in (edsr, swinir, {"extra": torch.zeros(1), **edsr}):
        assert not any(family.claims(other) for family in FAMILIES)
        with pytest.raises(CheckpointError, match="nearest is"):
            load(other, monkeypatch)


class Held:
    """Gives what a function gave first, whatever its inputs are then."""

    def __init__(self, real) -> None:
        self.real, self.first = real, None

    def __call__(self, *inputs):
        if self.first is None:
            self.first = self.real(*inputs)
        return self.first


def hold(monkeypatch: pytest.MonkeyPatch, network: torch.nn.Module) -> None:
    """Have every operation over the whole picture go on giving what it gives first."""
    for module in network.modules():
        if isinstance(module, GLOBAL):
            name = "weights" if isinstance(module, LayerAttention | LayerWeights) else "forward"
            monkeypatch.setattr(module, name, Held(getattr(module, name)))


@pytest.mark.parametrize(("family", "config"), CASES)
def test_receptive_radius_is_what_one_pixel_reaches(
    family, config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A moved pixel changes nothing beyond the radius, but through a global operation."""
    if family.name == "hat":
        config = dataclasses.replace(config, depths=(2,), num_heads=(2,))
    if family.name == "enlcn":  # a tenth of a tenth of … is lost in float64 too
        config = dataclasses.replace(config, n_resblocks=8, res_scale=1.0)
    if family.name == "vapsr":
        config = dataclasses.replace(config, num_block=2)
    torch.manual_seed(0)
    network = family.build(config).double().eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(0.5)
            elif parameter.ndim >= 4 and parameter.requires_grad:
                parameter.uniform_(0.05, 0.1)  # no chance zero hides a connection
    spec = family.describe(config)
    assert spec.global_operation == any(isinstance(m, GLOBAL) for m in network.modules())
    size = 2 * spec.receptive_radius + 16
    x = torch.rand(1, 3, spec.minimum_size, size, dtype=torch.float64)

    def changed_columns(place: int) -> torch.Tensor:
        moved = x.clone()
        moved[..., place] += 0.25
        with torch.inference_mode():
            change = (network(moved) - network(x)).abs().amax((0, 1, 2))
        return change.reshape(size, -1).amax(1) > 0

    assert bool(changed_columns(0)[-1]) == spec.global_operation
    hold(monkeypatch, network)
    reaches = []
    for place in range(size // 2, size // 2 + (config.window if family.name == "hat" else 1)):
        reached = changed_columns(place).nonzero().flatten()
        reaches.append(max(place - int(reached[0]), int(reached[-1]) - place))
    # windows are counted as if each began where the last one ended
    least = spec.receptive_radius // 2 if family.name == "hat" else spec.receptive_radius - 1
    assert least <= max(reaches) <= spec.receptive_radius


def beyond_bicubic(variant, folder: Path | None) -> float:
    """How many dB the bundled weights of a variant are above bicubic, on average, on Y."""
    network, _ = resolve.load(variant.name, variant.scale)
    s = variant.scale
    pairs = validation_pairs(folder, s)
    bicubic = [
        psnr(cut_border(luma(resize(lr, *hr.shape[:2])), s), cut_border(luma(hr), s))
        for _, lr, hr in pairs
    ]
    return evaluate(network, pairs, s)["mean"] - sum(bicubic) / len(bicubic)


TINY = [pytest.param(f, v, id=v.name) for f, v in all_variants() if v.tiny]


@pytest.mark.parametrize(("family", "variant"), TINY)
def test_tiny_networks_are_bundled_small_and_trained(family, variant) -> None:
    path = bundled_weights(variant.name)
    assert path is not None
    assert path.stat().st_size < 300_000
    state = load_file(path)
    assert not any(map(family.is_derived, state))
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}
    network, spec = resolve.load(variant.name, variant.scale)
    assert (spec.variant, spec.random_weights) == (variant.name, False)
    assert all(p.dtype == torch.float32 for p in network.parameters())
    assert beyond_bicubic(variant, None) > 0.2  # on the bundled photographs


@pytest.mark.shared
@pytest.mark.parametrize(("family", "variant"), TINY)
def test_tiny_networks_beat_bicubic_by_one_db(family, variant, shared: Path) -> None:
    assert beyond_bicubic(variant, shared / "data/Set5") > 1.0, family.name
