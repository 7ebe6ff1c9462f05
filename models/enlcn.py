"""ENLCN: super-resolution with efficient non-local attention.

Source: Xia et al., "Efficient Non-Local Contrastive Attention for Image Super-Resolution",
AAAI 2022, arXiv:2201.03794; the random features from Choromanski et al., "Rethinking Attention
with Performers", arXiv:2009.14794; the trunk is that of EDSR, arXiv:1707.02921. Tensor names
are those of the published checkpoints.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..plugins.enla.op import enla
from ..spec import ModelSpec
from . import Architecture, StateDict, Variant, count_indices, size_of
from .layers.conv import conv3x3
from .layers.mean_shift import DIV2K_MEAN, MeanShift, value_range_of
from .layers.upsampler import scale_of_upsampler, upsampler, upsampler_radius

SHARPNESS = 6**0.5
"""k: both embeddings are scaled to this length, so that their product is at most 6."""

FLOOR = 1e-4
"""Keeps every random feature above zero."""

NORM_EPSILON = 5e-5
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
    build=ENLCN,
    describe=describe,
    untold=("res_scale",),
)
