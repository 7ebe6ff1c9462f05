"""HAT: super-resolution with window attention, channel attention and overlapping cross-attention.

Source: Chen et al., "Activating More Pixels in Image Super-Resolution Transformer", CVPR 2023,
arXiv:2205.04437; windows, shifts and position biases from Liu et al., "Swin Transformer",
arXiv:2103.14030. Tensor names are those of the published checkpoints.

Features are N×H×W×C between the layers, where most of the work is on single tokens.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..plugins.oca.op import oca, relative_rows
from ..spec import ModelSpec
from . import Architecture, PublishedQuality, StateDict, Variant, count_indices, size_of
from .layers.channel_gate import channel_gate
from .layers.global_mean import GlobalMean
from .layers.mean_shift import DIV2K_MEAN
from .layers.upsampler import scale_of_upsampler, upsampler, upsampler_radius
from .layers.windows import (
    from_windows,
    reflect_to_multiple,
    relative_positions,
    roll,
    shift_mask,
    to_windows,
)

CONV_SCALE = 0.01

LARGEST_WINDOW = 32
"""Larger ones would need gigabytes for their positions alone; the published ones have 16."""


@dataclass(frozen=True)
class HATConfig:
    """Hyper-parameters; all but ``conv_scale`` can be read off the tensors of a checkpoint.

    Attributes:
        scale: 2, 3, 4 or 8.
        embed_dim: Channels C of the trunk.
        depths: Hybrid attention blocks of each group.
        num_heads: Attention heads of each group; they divide C.
        window: Edge of an attention window, pixels.
        key_window: Edge of the larger window from which overlapping attention takes keys.
        compressed: Channels between the two convolutions beside each attention.
        squeezed: Channels between the two layers of the channel attention.
        mlp_feat: Hidden features of the MLPs.
        upsampler_feat: Channels of the upsampler.
        conv_scale: Weight of the convolutions beside the attention.
    """

    scale: int
    embed_dim: int = 180
    depths: tuple[int, ...] = (6,) * 6
    num_heads: tuple[int, ...] = (6,) * 6
    window: int = 16
    key_window: int = 24
    compressed: int = 60
    squeezed: int = 6
    mlp_feat: int = 360
    upsampler_feat: int = 64
    conv_scale: float = CONV_SCALE

    def __post_init__(self) -> None:
        margin = self.key_window - self.window
        if not (2 <= self.window <= LARGEST_WINDOW and 0 < margin <= self.window):
            raise ValueError(
                "its tensors 'relative_position_bias_table' make windows of"
                f" {self.window} and {self.key_window} pixels; the first must have 2 to"
                f" {LARGEST_WINDOW}, the second more, and at most twice as many"
            )
        if self.window % 2 or margin % 2:
            raise ValueError(
                "its tensors 'relative_position_bias_table' make windows of"
                f" {self.window} and {self.key_window} pixels, which do not lie evenly"
            )
        if any(heads < 1 or self.embed_dim % heads for heads in self.num_heads):
            raise ValueError(
                f"its tensors 'relative_position_bias_table' have {self.num_heads} heads, which do"
                f" not divide {self.embed_dim} channels"
            )

    @property
    def minimum_size(self) -> int:
        """Least H and W: reflection to a whole window must find enough pixels."""
        return self.window // 2 + 1


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


MARKS = (
    r"layers\.\d+\.residual_group\.overlap_attn\.",
    r"relative_position_index_OCA$",
    r"layers\.\d+\.residual_group\.blocks\.\d+\.conv_block\.cab\.",
)


def detect(state: StateDict) -> HATConfig:
    """Read the hyper-parameters off the tensors of a HAT.

    Raises:
        KeyError: A tensor that tells one is missing.
        ValueError: The tensors contradict each other.
    """
    group = r"layers\.\d+\.residual_group\."
    block = group + r"blocks\.\d+\."
    table = "relative_position_bias_table"
    window = _edges(state, block + rf"attn\.{table}") // 2
    groups = range(count_indices(state, "layers"))
    up = size_of(
        state,
        (r"conv_last\.weight", 1),
        (r"upsample\.\d\.weight", 1),
        (r"conv_before_upsample\.0\.(weight|bias)", 0),
    )
    return HATConfig(
        scale=scale_of_upsampler(state, "upsample", up),
        embed_dim=size_of(state, (block + r"norm[12]\.(weight|bias)", 0)),
        depths=tuple(count_indices(state, f"layers.{g}.residual_group.blocks") for g in groups),
        num_heads=tuple(
            size_of(state, (rf"layers\.{g}\.residual_group\..*{table}", 1)) for g in groups
        ),
        window=window,
        key_window=_edges(state, group + rf"overlap_attn\.{table}") - window,
        compressed=size_of(
            state,
            (block + r"conv_block\.cab\.0\.(weight|bias)", 0),
            (block + r"conv_block\.cab\.2\.weight", 1),
        ),
        squeezed=size_of(
            state,
            (block + r"conv_block\.cab\.3\.attention\.1\.(weight|bias)", 0),
            (block + r"conv_block\.cab\.3\.attention\.3\.weight", 1),
        ),
        mlp_feat=size_of(
            state,
            (block + r"mlp\.fc1\.(weight|bias)", 0),
            (block + r"mlp\.fc2\.weight", 1),
        ),
        upsampler_feat=up,
    )


def _edges(state: StateDict, pattern: str) -> int:
    """Sum of the two edges that a table of (queries + keys - 1)² biases is for."""

    def square(rows: int) -> bool:
        return rows > 0 and math.isqrt(rows) ** 2 == rows

    return math.isqrt(size_of(state, (pattern, 0), valid=square)) + 1


def describe(config: HATConfig) -> ModelSpec:
    """State what deployment must know about a HAT of this configuration."""
    within = config.window - 1
    beside = (config.key_window - config.window) // 2
    block = max(within, 2)  # the two convolutions lie beside the attention
    groups = sum(depth * block + within + beside + 1 for depth in config.depths)
    # conv_first, conv_after_body and conv_before_upsample reach one pixel each
    return ModelSpec(
        architecture="hat",
        variant=ARCHITECTURE.variant_name(config, config.scale),
        scale=config.scale,
        receptive_radius=1 + groups + 1 + 1 + upsampler_radius(config.scale),
        global_operation=True,
        size_multiple=config.window,
        minimum_size=config.minimum_size,
        mean=DIV2K_MEAN,
        fp32_nodes=("*/Softmax*", "*/ReduceMean*"),
        config=asdict(config),
    )


_PAGE = "https://github.com/XPixelGroup/HAT"
_QUOTED = "arXiv:2205.04437, as quoted in the README of github.com/ming053l/DRCT"
_QUALITY_L = PublishedQuality((33.30, 29.47, 28.09), _QUOTED)
_QUALITY = PublishedQuality((33.04, 29.23, 28.00), _QUOTED)
_QUALITY_S = PublishedQuality((32.92, 29.15, 27.97), f"the authors' README, {_PAGE}")


def _base(scale: int) -> HATConfig:
    return HATConfig(scale)


def _large(scale: int) -> HATConfig:
    return HATConfig(scale, depths=(6,) * 12, num_heads=(6,) * 12)


def _small(scale: int) -> HATConfig:
    return HATConfig(scale, embed_dim=144, mlp_feat=288, compressed=6)


_TINY = HATConfig(
    4,
    embed_dim=24,
    depths=(2, 2),
    num_heads=(2, 2),
    window=8,
    key_window=12,
    compressed=8,
    squeezed=4,
    mlp_feat=48,
    upsampler_feat=16,
)


def _variant(
    model: str,
    config: HATConfig,
    parameters: int,
    macs: int,
    quality: PublishedQuality | None = None,
) -> Variant:
    name = f"{model}-x{config.scale}"
    return Variant(name, config.scale, config, parameters, macs, page=_PAGE, quality=quality)


VARIANTS = (
    _variant("hat-l", _large(4), 40_846_575, 3_044_825_735_040, _QUALITY_L),
    _variant("hat-l", _large(3), 40_883_503, 5_090_869_311_309),
    _variant("hat-l", _large(2), 40_698_863, 11_528_032_452_480),
    _variant("hat", _base(4), 20_772_507, 1_558_203_756_480, _QUALITY),
    _variant("hat", _base(3), 20_809_435, 2_584_153_147_953),
    _variant("hat", _base(2), 20_624_795, 5_829_315_088_320),
    _variant("hat-s", _small(4), 9_621_183, 819_292_140_288, _QUALITY_S),
    _variant("hat-s", _small(3), 9_658_111, 1_338_213_196_907),
    _variant("hat-s", _small(2), 9_473_471, 2_996_820_603_648),
    Variant("hat-tiny-x4", 4, _TINY, 86_167, 8_256_860_928, tiny=True),
)

ARCHITECTURE = Architecture(
    name="hat",
    paper="arXiv:2205.04437",
    variants=VARIANTS,
    marks=MARKS,
    configuration=HATConfig,
    detect=detect,
    build=HAT,
    describe=describe,
    derived=(r"relative_position_index_(SA|OCA)",),
    untold=("conv_scale",),
)
