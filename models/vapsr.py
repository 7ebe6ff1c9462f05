"""VapSR: efficient super-resolution with vast-receptive-field pixel attention.

Source: Zhou et al., "Efficient Image Super-Resolution using Vast-Receptive-Field Attention",
ECCV 2022 workshops, arXiv:2210.05960. Tensor names are those of the published checkpoints.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ..spec import ModelSpec
from . import Architecture, PublishedQuality, PublishedWeights, StateDict, Variant
from .detection.sizes import count_indices, size_of

# A VAB reaches 2 pixels through its 5×5 and 2·3 through its 5×5 of dilation 3.
BLOCK_RADIUS = 2 + 2 * 3


@dataclass(frozen=True)
class VapSRConfig:
    """Hyper-parameters, all of which can be read off the tensors of a checkpoint.

    Attributes:
        scale: 2, 3 or 4.
        num_feat: Channels C of the trunk.
        num_block: Number of attention blocks.
        d_atten: Channels A inside an attention block.
        conv_groups: Groups of the convolution that ends the trunk.
        upsampler_feat: Channels after the first upsampler convolution.
    """

    scale: int
    num_feat: int = 48
    num_block: int = 21
    d_atten: int = 64
    conv_groups: int = 1
    upsampler_feat: int = 64


def rename_legacy(name: str) -> str:
    """Map the tensor names of the first public VapSR checkpoints to the later ones."""
    return name.replace("spatial_gating_unit", "atten_branch")


def detect(state: StateDict) -> VapSRConfig:
    """Read the hyper-parameters off the tensors of a VapSR.

    Raises:
        KeyError: A tensor that tells one is missing.
        ValueError: The tensors contradict each other.
    """
    num_feat = size_of(
        state, (r"body\.\d+\.proj_2\.bias", 0), (r"body\.\d+\.pixel_norm\.(weight|bias)", 0)
    )
    groups, remainder = divmod(num_feat, max(size_of(state, (r"conv_body\.weight", 1)), 1))
    if remainder:
        raise ValueError(f"the tensor 'conv_body.weight' does not divide {num_feat} channels")
    one_step = {3 * scale**2: scale for scale in (2, 3)}
    two_steps = any(name.startswith("upsampler.3.") for name in state)
    return VapSRConfig(
        scale=4
        if two_steps
        else one_step[
            size_of(state, (r"upsampler\.2\.(weight|bias)", 0), valid=one_step.__contains__)
        ],
        num_feat=num_feat,
        num_block=count_indices(state, "body"),
        d_atten=size_of(state, (r"body\.\d+\.atten_branch\..*\.bias", 0)),
        conv_groups=groups,
        upsampler_feat=_upsampler_feat(state, two_steps),
    )


def _upsampler_feat(state: StateDict, two_steps: bool) -> int:
    """Channels after the first upsampler convolution; the second one tells where they differ."""
    told = [
        size_of(state, (rf"upsampler\.0\.{kind}", 0))
        for kind in ("weight", "bias")
        if f"upsampler.0.{kind}" in state
    ]
    if len(set(told)) == 1:
        return told[0]
    if two_steps:
        return 4 * size_of(state, (r"upsampler\.3\.weight", 1))
    return size_of(state, (r"upsampler\.2\.weight", 1))


def describe(config: VapSRConfig) -> ModelSpec:
    """State what deployment must know about a VapSR of this configuration."""
    # Through the 3×3 convolutions at the input resolution, plus the upsampler's second
    # one, which for ×4 works at twice that resolution and so adds half a pixel.
    upsampler = 2
    return ModelSpec(
        architecture="vapsr",
        variant=ARCHITECTURE.variant_name(config, config.scale),
        scale=config.scale,
        receptive_radius=1 + BLOCK_RADIUS * config.num_block + 1 + upsampler,
        config=asdict(config),
    )


_SOURCE = "https://raw.githubusercontent.com/zhoumumu/VapSR/404c584/"
_README = "the authors' README, github.com/zhoumumu/VapSR"


def _published(file: str, sha256: str) -> PublishedWeights:
    return PublishedWeights(_SOURCE + file, sha256, licence="none stated by the authors")


def _small(scale: int, config: dict[str, int]) -> VapSRConfig:
    return VapSRConfig(scale, conv_groups=2, **config)


_S = {"num_feat": 32, "num_block": 11, "d_atten": 64}


VARIANTS = (
    Variant(
        "vapsr-x4",
        4,
        VapSRConfig(4),
        342_220,
        19_516_723_200,
        _published(
            "VapSR_X4.pth",
            "fa6b84a174d8994eaaaa38156c9d751109b27c833bceeeb6018523e4d8a48ea0",
        ),
        quality=PublishedQuality((32.38, 28.77, 27.68), _README),
    ),
    Variant(
        "vapsr-x3",
        3,
        VapSRConfig(3, num_block=20, upsampler_feat=56),
        336_811,
        33_651_916_800,
        _published(
            "VapSR_X3.pth",
            "5c0052ea719174ea43e55f337655196fa1564ba2e0b04c3220a1312a18405a09",
        ),
    ),
    Variant(
        "vapsr-x2",
        2,
        VapSRConfig(2, num_block=20, upsampler_feat=56),
        329_236,
        73_974_988_800,
        _published(
            "VapSR_X2.pth",
            "6cbe6af3c18c16c8a2c9b83f484761693884f972e29a4a20e84f64b84d0a10cc",
        ),
    ),
    Variant(
        "vapsr-s-x4",
        4,
        _small(4, _S),
        154_956,
        8_992_972_800,
        _published(
            "VapSR-S.pth",
            "4ca434fcdd4abb327e281b3f7930fe9802b36d3d6acfbe785843fee5db7e0cfe",
        ),
        quality=PublishedQuality((32.14, 28.64, 27.60), _README),
    ),
    # The authors published no VapSR-S for other scales; this one is srdeploy's.
    Variant("vapsr-s-x2", 2, _small(2, _S), 160_140, 35_971_891_200),
    Variant(
        "vapsr-tiny-x4",
        4,
        _small(4, {"num_feat": 16, "num_block": 5, "d_atten": 24, "upsampler_feat": 32}),
        20_572,
        1_288_396_800,
        tiny=True,
    ),
)

ARCHITECTURE = Architecture(
    name="vapsr",
    paper="arXiv:2210.05960",
    variants=VARIANTS,
    marks=(
        r"body\.\d+\.atten_branch\.",
        r"body\.\d+\.pixel_norm\.",
        r"body\.\d+\.proj_[12]\.",
    ),
    configuration=VapSRConfig,
    detect=detect,
    describe=describe,
    rename=rename_legacy,
)
