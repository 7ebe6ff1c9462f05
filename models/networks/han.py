"""The modules of HAN; ``models/han.py`` names their source."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..han import HANConfig
from .layers.channel_gate import channel_gate
from .layers.conv import conv3x3
from .layers.global_mean import GlobalMean
from .layers.mean_shift import MeanShift
from .layers.upsampler import upsampler


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


NETWORK = HAN
