"""The modules of HAT; ``models/hat.py`` names their source.

Features are N×H×W×C between the layers, where most of the work is on single tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...plugins.oca.op import oca, relative_rows
from ..detection.mean_shift import DIV2K_MEAN
from ..hat import HATConfig
from .layers.channel_gate import channel_gate
from .layers.global_mean import GlobalMean
from .layers.upsampler import upsampler
from .layers.windows import (
    from_windows,
    reflect_to_multiple,
    relative_positions,
    roll,
    shift_mask,
    to_windows,
)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(qkᵀ/√d + bias + mask)·v over windows.

    Args:
        q: Queries, N×windows×heads×tokens×d.
        k: Keys, likewise.
        v: Values, likewise.
        bias: heads×tokens×tokens.
        mask: windows×1×tokens×tokens, or None.
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + bias
    if mask is not None:
        scores = scores + mask
    weighted: Tensor = scores.softmax(-1) @ v
    return weighted


class Mlp(nn.Module):
    """Two linear layers with a GELU between, on the last axis."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, hidden)
        self.fc2 = nn.Linear(hidden, features)

    def forward(self, x: Tensor) -> Tensor:
        """Map …×C to the same shape."""
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


class ChannelAttention(nn.Module):
    """Weighs each channel by what the channels are on average over the whole picture."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(GlobalMean(), *channel_gate(channels, squeezed))

    def forward(self, x: Tensor) -> Tensor:
        """Map N×C×H×W to the same shape."""
        y: Tensor = x * self.attention(x)
        return y


class ConvBlock(nn.Module):
    """CAB: a narrow pair of 3×3 convolutions and channel attention."""

    def __init__(self, config: HATConfig) -> None:
        super().__init__()
        c, narrow = config.embed_dim, config.compressed
        self.cab = nn.Sequential(
            nn.Conv2d(c, narrow, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(narrow, c, 3, padding=1),
            ChannelAttention(c, config.squeezed),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map N×H×W×C to the same shape."""
        y: Tensor = self.cab(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return y


class Windows(NamedTuple):
    """What all window attentions of one forward pass share."""

    within: Tensor
    """Row of the bias table for each pair of pixels of a window, E²×E²."""
    mask: Tensor
    """Mask of shifted windows, (h·w)×1×E²×E²."""


class PositionBias(nn.Module):
    """Base of both attentions: qkv, projection and the table of position biases."""

    def __init__(self, config: HATConfig, heads: int, key_window: int) -> None:
        super().__init__()
        self.window, self.heads, self.overlap = config.window, heads, key_window - config.window
        rows = (config.window + key_window - 1) ** 2
        self.relative_position_bias_table = nn.Parameter(torch.zeros(rows, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qkv = nn.Linear(config.embed_dim, 3 * config.embed_dim)
        self.proj = nn.Linear(config.embed_dim, config.embed_dim)

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Three maps of the shape of ``x``, N×H×W×C."""
        c, mapped = x.shape[-1], self.qkv(x)
        return mapped[..., :c], mapped[..., c : 2 * c], mapped[..., 2 * c :]


class WindowAttention(PositionBias):
    """Attention among the pixels of each window."""

    def __init__(self, config: HATConfig, heads: int) -> None:
        super().__init__(config, heads, config.window)

    def forward(self, x: Tensor, rows: Tensor, mask: Tensor | None) -> Tensor:
        """Map N×H×W×C to the same shape."""
        q, k, v = (
            self.split_heads(to_windows(t, self.window)) for t in self.queries_keys_values(x)
        )
        y = self.join_heads(attend(q, k, v, self.bias(rows), mask))
        return from_windows(self.proj(y), self.window, x.shape[1], x.shape[2])

    def bias(self, rows: Tensor) -> Tensor:
        """Biases of the given table rows, heads×tokens×keys."""
        flat = self.relative_position_bias_table.index_select(0, rows.flatten())
        return flat.reshape(*rows.shape, self.heads).permute(2, 0, 1)

    def split_heads(self, x: Tensor) -> Tensor:
        """N×windows×tokens×C to N×windows×heads×tokens×d."""
        n, windows, tokens, c = x.shape
        return x.reshape(n, windows, tokens, self.heads, c // self.heads).transpose(2, 3)

    def join_heads(self, x: Tensor) -> Tensor:
        """Undo :meth:`split_heads`."""
        n, windows, heads, tokens, d = x.shape
        return x.transpose(2, 3).reshape(n, windows, tokens, heads * d)


class HybridBlock(nn.Module):
    """HAB: (shifted) window attention beside a convolution block, then an MLP."""

    def __init__(self, config: HATConfig, heads: int, shift: int) -> None:
        super().__init__()
        self.shift, self.conv_scale = shift, config.conv_scale
        self.norm1 = nn.LayerNorm(config.embed_dim)
        self.attn = WindowAttention(config, heads)
        self.conv_block = ConvBlock(config)
        self.norm2 = nn.LayerNorm(config.embed_dim)
        self.mlp = Mlp(config.embed_dim, config.mlp_feat)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        """Map N×H×W×C to the same shape."""
        y = self.norm1(x)
        if self.shift:
            turned = roll(y, -self.shift)
            attended = roll(self.attn(turned, windows.within, windows.mask), self.shift)
        else:
            attended = self.attn(y, windows.within, None)
        x = x + attended + self.conv_scale * self.conv_block(y)
        mixed: Tensor = x + self.mlp(self.norm2(x))
        return mixed


class OverlapAttention(PositionBias):
    """OCAB: each window asks the larger window around it, then an MLP."""

    def __init__(self, config: HATConfig, heads: int) -> None:
        super().__init__(config, heads, config.key_window)
        self.norm1 = nn.LayerNorm(config.embed_dim)
        self.norm2 = nn.LayerNorm(config.embed_dim)
        self.mlp = Mlp(config.embed_dim, config.mlp_feat)

    def forward(self, x: Tensor) -> Tensor:
        """Map N×H×W×C to the same shape."""
        q, k, v = self.queries_keys_values(self.norm1(x))
        bias = self.relative_position_bias_table.to(q.dtype)
        x = x + self.proj(oca(q, k, v, bias, self.window, self.overlap, self.heads))
        mixed: Tensor = x + self.mlp(self.norm2(x))
        return mixed


class AttentionBlocks(nn.Module):
    """The hybrid blocks of a group, every other one shifted, and its overlapping attention."""

    def __init__(self, config: HATConfig, depth: int, heads: int) -> None:
        super().__init__()
        half = config.window // 2
        self.blocks = nn.ModuleList(
            HybridBlock(config, heads, half if i % 2 else 0) for i in range(depth)
        )
        self.overlap_attn = OverlapAttention(config, heads)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        """Map N×H×W×C to the same shape."""
        for block in self.blocks:
            x = block(x, windows)
        y: Tensor = self.overlap_attn(x)
        return y


class Group(nn.Module):
    """RHAG: attention blocks and a 3×3 convolution around a residual."""

    def __init__(self, config: HATConfig, depth: int, heads: int) -> None:
        super().__init__()
        self.residual_group = AttentionBlocks(config, depth, heads)
        self.conv = nn.Conv2d(config.embed_dim, config.embed_dim, 3, padding=1)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        """Map N×H×W×C to the same shape."""
        deep = self.residual_group(x, windows).permute(0, 3, 1, 2)
        y: Tensor = self.conv(deep).permute(0, 2, 3, 1) + x
        return y


class PatchEmbed(nn.Module):
    """Holds the norm before the first group, under its published name."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise …×C."""
        y: Tensor = self.norm(x)
        return y


class HAT(nn.Module):
    """The network: N×3×H×W in [0, 1] to N×3×(sH)×(sW), not clamped, H, W ≥ window/2 + 1."""

    rgb_mean: Tensor
    relative_position_index_SA: Tensor  # noqa: N815 - its name in the checkpoints

    def __init__(self, config: HATConfig) -> None:
        super().__init__()
        c, up = config.embed_dim, config.upsampler_feat
        self.config = config
        mean = torch.tensor(DIV2K_MEAN).view(1, 3, 1, 1)
        self.register_buffer("rgb_mean", mean, persistent=False)
        # Published as buffers, though they follow from the edges of the windows.
        window = config.window
        self.register_buffer("relative_position_index_SA", relative_positions(window))
        self.register_buffer(
            "relative_position_index_OCA", relative_rows(window, config.key_window)
        )
        self.conv_first = nn.Conv2d(3, c, 3, padding=1)
        self.patch_embed = PatchEmbed(c)
        self.layers = nn.ModuleList(
            Group(config, depth, heads)
            for depth, heads in zip(config.depths, config.num_heads, strict=True)
        )
        self.norm = nn.LayerNorm(c)
        self.conv_after_body = nn.Conv2d(c, c, 3, padding=1)
        self.conv_before_upsample = nn.Sequential(nn.Conv2d(c, up, 3, padding=1), nn.LeakyReLU())
        self.upsample = upsampler(up, config.scale)
        self.conv_last = nn.Conv2d(up, 3, 3, padding=1)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale ``x``."""
        s = self.config.scale
        height, width = x.shape[2:]
        shallow = self.conv_first(reflect_to_multiple(x, self.config.window) - self.rgb_mean)
        deep = self.conv_after_body(self._body(shallow)) + shallow
        y: Tensor = self.conv_last(self.upsample(self.conv_before_upsample(deep))) + self.rgb_mean
        return y[:, :, : height * s, : width * s]

    def _body(self, x: Tensor) -> Tensor:
        tokens = self.patch_embed(x.permute(0, 2, 3, 1))
        height, width = x.shape[2:]
        mask = shift_mask(height, width, self.config.window, x.device).to(x.dtype)
        windows = Windows(self.relative_position_index_SA, mask)
        for group in self.layers:
            tokens = group(tokens, windows)
        normed: Tensor = self.norm(tokens).permute(0, 3, 1, 2)
        return normed


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


NETWORK = HAT
