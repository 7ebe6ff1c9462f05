"""AttentionSRNet: a residual network behind a channel and a spatial attention.

Source: the founding note on attention in super-resolution, whose code is the variant
``attentionsr``: attention once, right after the first convolution. Its text defines two more,
which the variant ``attentionsr-layer`` has: spatial attention over the mean and the maximum
of the channels, M = σ(conv([mean f, max f])), and layer attention that fuses the outputs of
the blocks, f = Σ w_l·f_l with w = softmax(MLP(pool f)).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ..spec import ModelSpec
from . import Architecture, StateDict, Variant
from .detection.sizes import count_indices, size_of


@dataclass(frozen=True)
class AttentionSRConfig:
    """Hyper-parameters, all of which can be read off the tensors of a checkpoint.

    Attributes:
        scale: 2, 3 or 4.
        num_features: Channels C.
        num_blocks: Residual blocks L.
        squeezed: Channels between the two layers of the channel attention.
        pooled: Spatial attention sees the mean and maximum over the channels, not them all.
        layer_attention: The outputs of the blocks are fused with learned weights.
    """

    scale: int = 2
    num_features: int = 64
    num_blocks: int = 16
    squeezed: int = 4
    pooled: bool = False
    layer_attention: bool = False


def detect(state: StateDict) -> AttentionSRConfig:
    """Read the hyper-parameters off the tensors of an AttentionSRNet.

    Raises:
        KeyError: A tensor that tells one is missing.
        ValueError: The tensors contradict each other.
    """
    blocks = count_indices(state, "reconstruction", below=r"conv[12]\.")
    outputs = {3 * scale**2: scale for scale in (2, 3, 4)}
    last = rf"reconstruction\.{blocks + 2}\.(weight|bias)"
    features = size_of(state, (r"reconstruction\.\d+\.conv[12]\.(weight|bias)", 0))
    return AttentionSRConfig(
        scale=outputs[size_of(state, (last, 0), valid=outputs.__contains__)],
        num_features=features,
        num_blocks=blocks,
        squeezed=size_of(
            state,
            (r"channel_attention\.1\.(weight|bias)", 0),
            (r"channel_attention\.3\.weight", 1),
        ),
        pooled=size_of(state, (r"spatial_attention\.0\.weight", 1)) == 2 != features,
        layer_attention=any(name.startswith("layer_attention.") for name in state),
    )


def describe(config: AttentionSRConfig) -> ModelSpec:
    """State what deployment must know about an AttentionSRNet of this configuration."""
    # 3×3, the 7×7 of the spatial attention, two a block, and two before the shuffle
    return ModelSpec(
        architecture="attentionsr",
        variant=ARCHITECTURE.variant_name(config, config.scale),
        scale=config.scale,
        receptive_radius=1 + 3 + 2 * config.num_blocks + 1 + 1,
        global_operation=True,
        fp32_nodes=("*/ReduceMean*", *(("*/Softmax*",) if config.layer_attention else ())),
        config=asdict(config),
    )


_TINY = AttentionSRConfig(2, num_features=32, num_blocks=4, squeezed=2)


def _variant(scale: int, parameters: int, macs: int) -> Variant:
    config = AttentionSRConfig(scale)
    return Variant(f"attentionsr-x{scale}", scale, config, parameters, macs)


def _layer_variant(scale: int, parameters: int, macs: int) -> Variant:
    config = AttentionSRConfig(scale, pooled=True, layer_attention=True)
    return Variant(f"attentionsr-layer-x{scale}", scale, config, parameters, macs)


VARIANTS = (
    _variant(2, 1_231_057, 282_997_555_712),
    _variant(3, 1_239_712, 126_661_427_712),
    _variant(4, 1_251_829, 71_943_782_912),
    _layer_variant(2, 1_294_659, 282_297_667_072),
    _layer_variant(3, 1_303_314, 126_350_403_020),
    _layer_variant(4, 1_315_431, 71_768_860_672),
    Variant("attentionsr-tiny-x2", 2, _TINY, 89_327, 20_466_892_928, tiny=True),
)

ARCHITECTURE = Architecture(
    name="attentionsr",
    paper="the founding note on attention in super-resolution",
    variants=VARIANTS,
    marks=(
        r"reconstruction\.\d+\.conv[12]\.",
        r"spatial_attention\.0\.",
    ),
    configuration=AttentionSRConfig,
    detect=detect,
    describe=describe,
)
