"""HAN: super-resolution with attention over channels, layers and channel-space volumes.

Source: Niu et al., "Single Image Super-Resolution via a Holistic Attention Network", ECCV 2020,
arXiv:2008.08767; its residual groups from Zhang et al., "Image Super-Resolution Using Very Deep
Residual Channel Attention Networks", arXiv:1807.02758. Tensor names are those of the published
checkpoints.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from ..spec import ModelSpec
from . import Architecture, PublishedQuality, StateDict, Variant, count_indices, size_of
from .layers.channel_gate import channel_gate
from .layers.conv import conv3x3
from .layers.global_mean import GlobalMean
from .layers.mean_shift import DIV2K_MEAN, MeanShift, value_range_of
from .layers.upsampler import scale_of_upsampler, upsampler, upsampler_radius


@dataclass(frozen=True)
class HANConfig:
    """Hyper-parameters, all of which can be read off the tensors of a checkpoint.

    Attributes:
        scale: 2, 3, 4 or 8.
        n_resgroups: Residual groups L, over which the layer attention runs.
        n_resblocks: Blocks of each group.
        n_feats: Channels C.
        squeezed: Channels between the two layers of the channel attention.
        value_range: What a white pixel is inside the network, 255 as published.
    """

    scale: int
    n_resgroups: int = 10
    n_resblocks: int = 20
    n_feats: int = 64
    squeezed: int = 4
    value_range: float = 255.0


class ChannelAttention(nn.Module):
    """Weighs each channel by a number made from the channels' means over the whole picture."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.avg_pool = GlobalMean()
        self.conv_du = nn.Sequential(*channel_gate(channels, squeezed))

    def forward(self, x: Tensor) -> Tensor:
        """Map N×C×H×W to the same shape."""
        y: Tensor = x * self.conv_du(self.avg_pool(x))
        return y


class Residual(nn.Module):
    """x + body(x); a block (RCAB) and a group (RG) differ in their bodies only."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        """Map N×C×H×W to the same shape."""
        y: Tensor = self.body(x) + x
        return y


class LayerAttention(nn.Module):
    """LAM: mixes the outputs of the groups by how alike they are over all pixels.

    energy = F·Fᵀ with F of L×(C·H·W); weights = softmax(max(energy) - energy); γ scales the
    mixture that is added. The energy is a sum over the whole picture, far beyond fp16.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    @staticmethod
    def weights(flat: Tensor) -> Tensor:
        """How much of each layer goes to each, N×L×L, from N×L×values."""
        energy = flat @ flat.transpose(1, 2)
        return (energy.amax(-1, keepdim=True) - energy).softmax(-1)

    def forward(self, stacked: Tensor) -> Tensor:
        """Map N×L×C×H×W to N×(L·C)×H×W."""
        n, layers, channels, height, width = stacked.shape
        flat = stacked.reshape(n, layers, channels * height * width)
        mixed = self.gamma * (self.weights(flat) @ flat) + flat
        return mixed.reshape(n, layers * channels, height, width)


class ChannelSpatialAttention(nn.Module):
    """CSAM: x + γ·sigmoid(3×3×3 convolution over channels and pixels)·x."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))
        self.conv = nn.Conv3d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map N×C×H×W to the same shape."""
        volume: Tensor = self.conv(x.unsqueeze(1)).squeeze(1)
        return x * (self.gamma * volume.sigmoid()) + x


class HAN(nn.Module):
    """The network: N×3×H×W in [0, 1] to N×3×(sH)×(sW), not clamped."""

    def __init__(self, config: HANConfig) -> None:
        super().__init__()
        c = config.n_feats
        self.config = config
        self.sub_mean = MeanShift(config.value_range, -1)
        self.add_mean = MeanShift(config.value_range, +1)
        self.head = nn.Sequential(conv3x3(3, c))
        groups = (self._group(config) for _ in range(config.n_resgroups))
        self.body = nn.Sequential(*groups, conv3x3(c, c))
        self.la = LayerAttention()
        self.csa = ChannelSpatialAttention()
        self.last_conv = conv3x3(c * (config.n_resgroups + 1), c)
        self.last = conv3x3(2 * c, c)
        self.tail = nn.Sequential(upsampler(c, config.scale), conv3x3(c, 3))

    @staticmethod
    def _group(config: HANConfig) -> Residual:
        c = config.n_feats
        blocks = (
            Residual(conv3x3(c, c), nn.ReLU(), conv3x3(c, c), ChannelAttention(c, config.squeezed))
            for _ in range(config.n_resblocks)
        )
        return Residual(*blocks, conv3x3(c, c))

    def forward(self, x: Tensor) -> Tensor:
        """Upscale ``x``."""
        shallow = self.head(self.sub_mean(x * self.config.value_range))
        deep, layers = shallow, []
        for layer in self.body:
            deep = layer(deep)
            layers.append(deep)
        by_layer = self.last_conv(self.la(torch.stack(layers[::-1], 1)))  # newest first
        fused = self.last(torch.cat([self.csa(deep), by_layer], 1)) + shallow
        y: Tensor = self.add_mean(self.tail(fused)) / self.config.value_range
        return y


def detect(state: StateDict) -> HANConfig:
    """Read the hyper-parameters off the tensors of a HAN.

    Raises:
        KeyError: A tensor that tells one is missing.
        ValueError: The tensors contradict each other.
    """
    block = r"body\.\d+\.body\.\d+\.body\."
    features = size_of(state, (block + r"[02]\.(weight|bias)", 0))
    groups = count_indices(state, "body", below=r"body\.")
    blocks = (count_indices(state, f"body.{g}.body", below=r"body\.") for g in range(groups))
    return HANConfig(
        scale=scale_of_upsampler(state, "tail.0", features),
        n_resgroups=groups,
        n_resblocks=max(blocks, default=0),
        n_feats=features,
        squeezed=size_of(
            state,
            (block + r"3\.conv_du\.0\.(weight|bias)", 0),
            (block + r"3\.conv_du\.2\.weight", 1),
        ),
        value_range=value_range_of(state),
    )


def describe(config: HANConfig) -> ModelSpec:
    """State what deployment must know about a HAN of this configuration."""
    group = 2 * config.n_resblocks + 1
    # head, the end of the body, CSAM (beside it last_conv), last, then the tail
    radius = 1 + group * config.n_resgroups + 1 + 1 + 1 + upsampler_radius(config.scale)
    return ModelSpec(
        architecture="han",
        variant=ARCHITECTURE.variant_name(config, config.scale),
        scale=config.scale,
        receptive_radius=radius,
        global_operation=True,
        value_range=config.value_range,
        mean=DIV2K_MEAN,
        fp32_nodes=("la/*", "*/ReduceMean*"),
        config=asdict(config),
    )


_PAGE = "https://github.com/wwlCape/HAN"
_QUOTED = "arXiv:2008.08767, as quoted in arXiv:2108.10257, table 2"
_TINY = HANConfig(4, n_resgroups=4, n_resblocks=2, n_feats=16)


def _variant(
    scale: int, parameters: int, macs: int, psnr: tuple[float, float, float] | None = None
) -> Variant:
    quality = PublishedQuality(psnr, _QUOTED) if psnr else None
    config = HANConfig(scale)
    return Variant(f"han-x{scale}", scale, config, parameters, macs, page=_PAGE, quality=quality)


VARIANTS = (
    _variant(4, 16_071_769, 945_467_296_000, (32.64, 28.90, 27.80)),
    _variant(3, 16_108_697, 1_638_061_977_520, (34.75, 30.67, 29.32)),
    _variant(2, 15_924_057, 3_641_170_969_600, (38.27, 34.16, 32.41)),
    _variant(8, 16_219_481, 271_541_377_600),
    Variant("han-tiny-x4", 4, _TINY, 85_561, 6_872_890_624, tiny=True),
)

ARCHITECTURE = Architecture(
    name="han",
    paper="arXiv:2008.08767",
    variants=VARIANTS,
    marks=(r"la\.gamma$", r"csa\.(gamma$|conv\.)"),
    configuration=HANConfig,
    detect=detect,
    build=HAN,
    describe=describe,
)
