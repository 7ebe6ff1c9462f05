"""ENLCN: super-resolution with efficient non-local attention.

Source: Xia et al., "Efficient Non-Local Contrastive Attention for Image Super-Resolution",
AAAI 2022, arXiv:2201.03794; the random features from Choromanski et al., "Rethinking Attention
with Performers", arXiv:2009.14794; the trunk is that of EDSR, arXiv:1707.02921. Tensor names
are those of the published checkpoints.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ..spec import ModelSpec
from . import Architecture, StateDict, Variant
from .detection.mean_shift import DIV2K_MEAN, value_range_of
from .detection.sizes import count_indices, size_of
from .detection.upsampler import scale_of_upsampler, upsampler_radius

RES_SCALE = 0.1
BLOCKS_BETWEEN = 8
"""Residual blocks between two attentions."""


@dataclass(frozen=True)
class ENLCNConfig:
    """Hyper-parameters; all but ``res_scale`` can be read off the tensors of a checkpoint.

    Attributes:
        scale: 2, 3, 4 or 8.
        n_resblocks: Residual blocks, a multiple of 8.
        n_feats: Channels C.
        embedded: Channels c of the embeddings that are compared.
        random_features: Random features m of the attention.
        value_range: What a white pixel is inside the network, 1 as published.
        res_scale: Weight of each residual block and attention.
    """

    scale: int
    n_resblocks: int = 32
    n_feats: int = 256
    embedded: int = 64
    random_features: int = 128
    value_range: float = 1.0
    res_scale: float = RES_SCALE


def detect(state: StateDict) -> ENLCNConfig:
    """Read the hyper-parameters off the tensors of an ENLCN.

    Raises:
        KeyError: A tensor that tells one is missing.
        ValueError: The tensors contradict each other.
    """
    features = size_of(state, (r"body\.\d+\.body\.[02]\.(weight|bias)", 0))
    # attentions and blocks alternate as 1, 8, 1, 8, 1, and a convolution ends the body
    layers = count_indices(state, "body")
    sections, rest = divmod(layers - 2, BLOCKS_BETWEEN + 1)
    if rest:
        raise ValueError(f"the tensors 'body.*' are {layers} layers, expected 9n + 2")
    return ENLCNConfig(
        scale=scale_of_upsampler(state, "tail.0", features),
        n_resblocks=sections * BLOCKS_BETWEEN,
        n_feats=features,
        embedded=size_of(state, (r"body\.\d+\.conv_match[12]\.0\.(weight|bias)", 0)),
        random_features=size_of(state, (r"body\.\d+\.attn_fn\.projection_matrix", 0)),
        value_range=value_range_of(state),
    )


def describe(config: ENLCNConfig) -> ModelSpec:
    """State what deployment must know about an ENLCN of this configuration."""
    # head, two convolutions a block, the end of the body, then the tail
    radius = 1 + 2 * config.n_resblocks + 1 + upsampler_radius(config.scale)
    return ModelSpec(
        architecture="enlcn",
        variant=ARCHITECTURE.variant_name(config, config.scale),
        scale=config.scale,
        receptive_radius=radius,
        global_operation=True,
        value_range=config.value_range,
        mean=DIV2K_MEAN,
        # the norm of the embeddings; φ and the sums over the pixels are float32 by themselves
        fp32_nodes=("body.*/ReduceL2*", "body.*/Clip*"),
        config=asdict(config),
    )


_PAGE = "https://github.com/Zj-BinXia/ENLCA"
_TINY = ENLCNConfig(4, n_resblocks=8, n_feats=16, embedded=8, random_features=32)

VARIANTS = (
    Variant("enlcn-x4", 4, ENLCNConfig(4), 43_583_387, 2_946_496_723_200, page=_PAGE),
    Variant("enlcn-x3", 3, ENLCNConfig(3), 44_173_467, 4_568_877_670_400),
    Variant("enlcn-x2", 2, ENLCNConfig(2), 41_223_067, 9_592_524_518_400, page=_PAGE),
    Variant("enlcn-tiny-x4", 4, _TINY, 59_995, 5_581_728_000, tiny=True),
)

ARCHITECTURE = Architecture(
    name="enlcn",
    paper="arXiv:2201.03794",
    variants=VARIANTS,
    marks=(r"body\.\d+\.attn_fn\.projection_matrix$",),
    configuration=ENLCNConfig,
    detect=detect,
    describe=describe,
    untold=("res_scale",),
)
