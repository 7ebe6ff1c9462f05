"""The modules of ENLCN; ``models/enlcn.py`` names their source."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...plugins.enla.op import enla
from ..enlcn import BLOCKS_BETWEEN, ENLCNConfig
from .layers.conv import conv3x3
from .layers.mean_shift import MeanShift
from .layers.upsampler import upsampler

SHARPNESS = 6**0.5
"""k: both embeddings are scaled to this length, so that their product is at most 6."""

FLOOR = 1e-4
"""Keeps every random feature above zero."""

NORM_EPSILON = 5e-5


def orthogonal_features(
    rows: int, columns: int, generator: torch.Generator | None = None
) -> Tensor:
    """Random projection m×c: blocks of orthogonal rows with the lengths of Gaussian ones."""
    blocks = [
        torch.linalg.qr(torch.randn(columns, columns, generator=generator))[0].T
        for _ in range((rows + columns - 1) // columns)
    ]
    gaussian = torch.randn(rows, columns, generator=generator)
    lengths = torch.linalg.vector_norm(gaussian, dim=1)
    projection: Tensor = lengths[:, None] * torch.cat(blocks)[:rows]
    return projection


class LinearAttention(nn.Module):
    """ENLA: softmax attention over all pixels in linear time; holds the random projection."""

    projection_matrix: Tensor

    def __init__(self, channels: int, random_features: int) -> None:
        super().__init__()
        projection = orthogonal_features(random_features, channels)
        self.register_buffer("projection_matrix", projection)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend: ``q`` and ``k`` N×c×H×W, ``v`` N×C×H×W, to the shape of ``v``."""
        dtype = v.dtype  # under autocast the norm leaves q and k in float32
        projection = self.projection_matrix.to(dtype)
        y: Tensor = enla(q.to(dtype), k.to(dtype), v, projection, FLOOR)
        return y


class NonLocalBlock(nn.Module):
    """ENLCA: 1×1 embeddings of length k around the attention, and a residual."""

    def __init__(self, config: ENLCNConfig) -> None:
        super().__init__()
        c = config.n_feats
        self.res_scale = config.res_scale
        self.conv_match1 = nn.Sequential(nn.Conv2d(c, config.embedded, 1))
        self.conv_match2 = nn.Sequential(nn.Conv2d(c, config.embedded, 1))
        self.conv_assembly = nn.Sequential(nn.Conv2d(c, c, 1))
        self.attn_fn = LinearAttention(config.embedded, config.random_features)

    def forward(self, x: Tensor) -> Tensor:
        """Map N×C×H×W to the same shape."""
        q, k = (
            SHARPNESS * F.normalize(embed(x), dim=1, eps=NORM_EPSILON)
            for embed in (self.conv_match1, self.conv_match2)
        )
        y: Tensor = self.attn_fn(q, k, self.conv_assembly(x)) * self.res_scale + x
        return y


class ResidualBlock(nn.Module):
    """x + res_scale·conv(relu(conv(x)))."""

    def __init__(self, config: ENLCNConfig) -> None:
        super().__init__()
        c = config.n_feats
        self.res_scale = config.res_scale
        self.body = nn.Sequential(conv3x3(c, c), nn.ReLU(), conv3x3(c, c))

    def forward(self, x: Tensor) -> Tensor:
        """Map N×C×H×W to the same shape."""
        y: Tensor = self.body(x) * self.res_scale + x
        return y


class ENLCN(nn.Module):
    """The network: N×3×H×W in [0, 1] to N×3×(sH)×(sW), not clamped."""

    def __init__(self, config: ENLCNConfig) -> None:
        super().__init__()
        if config.n_resblocks % BLOCKS_BETWEEN:
            raise ValueError(f"blocks come by {BLOCKS_BETWEEN}, got {config.n_resblocks}")
        c = config.n_feats
        self.config = config
        self.sub_mean = MeanShift(config.value_range, -1)
        self.add_mean = MeanShift(config.value_range, +1)
        self.head = nn.Sequential(conv3x3(3, c))
        layers: list[nn.Module] = [NonLocalBlock(config)]
        for i in range(config.n_resblocks):
            layers.append(ResidualBlock(config))
            if i % BLOCKS_BETWEEN == BLOCKS_BETWEEN - 1:
                layers.append(NonLocalBlock(config))
        self.body = nn.Sequential(*layers, conv3x3(c, c))
        self.tail = nn.Sequential(upsampler(c, config.scale), conv3x3(c, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Upscale ``x``."""
        shallow = self.head(self.sub_mean(x * self.config.value_range))
        y: Tensor = self.add_mean(self.tail(self.body(shallow) + shallow))
        return y / self.config.value_range


NETWORK = ENLCN
