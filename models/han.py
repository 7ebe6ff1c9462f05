"""HAN: super-resolution with attention over channels, layers and channel-space volumes.

Source: Niu et al., "Single Image Super-Resolution via a Holistic Attention Network", ECCV 2020,
arXiv:2008.08767; its residual groups from Zhang et al., "Image Super-Resolution Using Very Deep
Residual Channel Attention Networks", arXiv:1807.02758. Tensor names are those of the published
checkpoints.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ..spec import ModelSpec
from . import Architecture, PublishedQuality, StateDict, Variant
from .detection.mean_shift import DIV2K_MEAN, value_range_of
from .detection.sizes import count_indices, size_of
from .detection.upsampler import scale_of_upsampler, upsampler_radius


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
    describe=describe,
)
