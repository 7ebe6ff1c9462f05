"""HAT: super-resolution with window attention, channel attention and overlapping cross-attention.

Source: Chen et al., "Activating More Pixels in Image Super-Resolution Transformer", CVPR 2023,
arXiv:2205.04437; windows, shifts and position biases from Liu et al., "Swin Transformer",
arXiv:2103.14030. Tensor names are those of the published checkpoints.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from ..spec import ModelSpec
from . import Architecture, PublishedQuality, StateDict, Variant
from .detection.mean_shift import DIV2K_MEAN
from .detection.sizes import count_indices, size_of
from .detection.upsampler import scale_of_upsampler, upsampler_radius

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
    describe=describe,
    derived=(r"relative_position_index_(SA|OCA)",),
    untold=("conv_scale",),
)
