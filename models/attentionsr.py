"""AttentionSRNet: a residual network behind a channel and a spatial attention.

Source: the founding note on attention in super-resolution, whose code is the variant
``attentionsr``: attention once, right after the first convolution. Its text defines two more,
which the variant ``attentionsr-layer`` has: spatial attention over the mean and the maximum
of the channels, M = σ(conv([mean f, max f])), and layer attention that fuses the outputs of
the blocks, f = Σ w_l·f_l with w = softmax(MLP(pool f)).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from ..spec import ModelSpec
from . import Architecture, StateDict, Variant, count_indices, size_of
from .layers.channel_gate import channel_gate
from .layers.global_mean import GlobalMean


@dataclass(frozen=True)
class AttentionSRConfig:
    """Hyper-parameters, all of which can be read off the tensors of a checkpoint.

    Attributes:
        scale: 2, 3 or 4.
        num_features: Channels C.
        num_blocks: Residual blocks L.
        squeezed: Channels between the two layers of the channel attention.
        pooled: Spatial attention sees the mean and maximum over the channels, not them all.
        layer_attention: The outputs of the blocks are fused with learned weights.
    """

    scale: int = 2
    num_features: int = 64
    num_blocks: int = 16
    squeezed: int = 4
    pooled: bool = False
    layer_attention: bool = False


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map N×C×H×W to the same shape."""
        y: Tensor = self.conv2(self.relu(self.conv1(x))) + x
        return y


class LayerWeights(nn.Module):
    """softmax(MLP(pooled features)): one weight per layer, from all layers' channel means."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(channels * layers, channels), nn.ReLU(), nn.Linear(channels, layers)
        )

    def weights(self, stacked: Tensor) -> Tensor:
        """One weight a layer, N×L, from N×L×C×H×W."""
        weights: Tensor = self.mlp(stacked.mean((3, 4)).flatten(1)).softmax(-1)
        return weights

    def forward(self, stacked: Tensor) -> Tensor:
        """Fuse N×L×C×H×W to N×C×H×W."""
        fused: Tensor = (stacked * self.weights(stacked)[:, :, None, None, None]).sum(1)
        return fused


class AttentionSR(nn.Module):
    """The network: N×3×H×W in [0, 1] to N×3×(sH)×(sW), not clamped."""

    def __init__(self, config: AttentionSRConfig) -> None:
        super().__init__()
        c, blocks = config.num_features, config.num_blocks
        self.config = config
        self.feature_extractor = nn.Sequential(nn.Conv2d(3, c, 3, padding=1), nn.ReLU())
        self.channel_attention = nn.Sequential(GlobalMean(), *channel_gate(c, config.squeezed))
        self.spatial_attention = nn.Sequential(
            nn.Conv2d(2 if config.pooled else c, 1, 7, padding=3), nn.Sigmoid()
        )
        self.layer_attention = LayerWeights(c, blocks) if config.layer_attention else None
        self.reconstruction = nn.Sequential(
            *(ResidualBlock(c) for _ in range(blocks)),
            nn.Conv2d(c, c, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(c, 3 * config.scale**2, 3, padding=1),
            nn.PixelShuffle(config.scale),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Upscale ``x``."""
        features = self.feature_extractor(x)
        features = features * self.channel_attention(features)
        features = features * self.spatial_attention(self._seen(features))
        if self.layer_attention is not None:
            features = self._fused(features)
            layers = self.reconstruction[self.config.num_blocks :]
        else:
            layers = self.reconstruction
        y: Tensor = layers(features)
        return y

    def _seen(self, features: Tensor) -> Tensor:
        """What the spatial attention sees: N×2×H×W pooled over the channels, or all of them."""
        if not self.config.pooled:
            return features
        return torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], 1)

    def _fused(self, features: Tensor) -> Tensor:
        assert self.layer_attention is not None
        outputs = []
        for i in range(self.config.num_blocks):
            features = self.reconstruction[i](features)
            outputs.append(features)
        fused: Tensor = self.layer_attention(torch.stack(outputs, 1))
        return fused


def detect(state: StateDict) -> AttentionSRConfig:
    """Read the hyper-parameters off the tensors of an AttentionSRNet.

    Raises:
        KeyError: A tensor that tells one is missing.
        ValueError: The tensors contradict each other.
    """
    blocks = count_indices(state, "reconstruction", below=r"conv[12]\.")
    outputs = {3 * scale**2: scale for scale in (2, 3, 4)}
    last = rf"reconstruction\.{blocks + 2}\.(weight|bias)"
    features = size_of(state, (r"reconstruction\.\d+\.conv[12]\.(weight|bias)", 0))
    return AttentionSRConfig(
        scale=outputs[size_of(state, (last, 0), valid=outputs.__contains__)],
        num_features=features,
        num_blocks=blocks,
        squeezed=size_of(
            state,
            (r"channel_attention\.1\.(weight|bias)", 0),
            (r"channel_attention\.3\.weight", 1),
        ),
        pooled=size_of(state, (r"spatial_attention\.0\.weight", 1)) == 2 != features,
        layer_attention=any(name.startswith("layer_attention.") for name in state),
    )


def describe(config: AttentionSRConfig) -> ModelSpec:
    """State what deployment must know about an AttentionSRNet of this configuration."""
    # 3×3, the 7×7 of the spatial attention, two a block, and two before the shuffle
    return ModelSpec(
        architecture="attentionsr",
        variant=ARCHITECTURE.variant_name(config, config.scale),
        scale=config.scale,
        receptive_radius=1 + 3 + 2 * config.num_blocks + 1 + 1,
        global_operation=True,
        fp32_nodes=("*/ReduceMean*", *(("*/Softmax*",) if config.layer_attention else ())),
        config=asdict(config),
    )


_TINY = AttentionSRConfig(2, num_features=32, num_blocks=4, squeezed=2)


def _variant(scale: int, parameters: int, macs: int) -> Variant:
    config = AttentionSRConfig(scale)
    return Variant(f"attentionsr-x{scale}", scale, config, parameters, macs)


def _layer_variant(scale: int, parameters: int, macs: int) -> Variant:
    config = AttentionSRConfig(scale, pooled=True, layer_attention=True)
    return Variant(f"attentionsr-layer-x{scale}", scale, config, parameters, macs)


VARIANTS = (
    _variant(2, 1_231_057, 282_997_555_712),
    _variant(3, 1_239_712, 126_661_427_712),
    _variant(4, 1_251_829, 71_943_782_912),
    _layer_variant(2, 1_294_659, 282_297_667_072),
    _layer_variant(3, 1_303_314, 126_350_403_020),
    _layer_variant(4, 1_315_431, 71_768_860_672),
    Variant("attentionsr-tiny-x2", 2, _TINY, 89_327, 20_466_892_928, tiny=True),
)

ARCHITECTURE = Architecture(
    name="attentionsr",
    paper="the founding note on attention in super-resolution",
    variants=VARIANTS,
    marks=(
        r"reconstruction\.\d+\.conv[12]\.",
        r"spatial_attention\.0\.",
    ),
    configuration=AttentionSRConfig,
    detect=detect,
    build=AttentionSR,
    describe=describe,
)
