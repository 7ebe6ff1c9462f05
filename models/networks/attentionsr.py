"""The modules of AttentionSRNet; ``models/attentionsr.py`` names their source."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..attentionsr import AttentionSRConfig
from .layers.channel_gate import channel_gate
from .layers.global_mean import GlobalMean


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


NETWORK = AttentionSR
