"""The modules of VapSR; ``models/vapsr.py`` names their source."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ..vapsr import VapSRConfig

LEAKY_SLOPE = 0.1


class LargeKernelAttention(nn.Module):
    """Pixel attention with a 17-pixel reach: x · DWd(DW(PW(x))), shapes N×A×H×W throughout."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(channels, channels, 1)
        self.depthwise = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.depthwise_dilated = nn.Conv2d(
            channels, channels, 5, padding=6, groups=channels, dilation=3
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` weighted pixel by pixel."""
        attention: Tensor = self.depthwise_dilated(self.depthwise(self.pointwise(x)))
        return x * attention


class AttentionBlock(nn.Module):
    """VAB: 1×1 up to A channels, GELU, attention, 1×1 back to C, residual, pixel norm."""

    def __init__(self, channels: int, attention_channels: int) -> None:
        super().__init__()
        self.proj_1 = nn.Conv2d(channels, attention_channels, 1)
        self.atten_branch = LargeKernelAttention(attention_channels)
        self.proj_2 = nn.Conv2d(attention_channels, channels, 1)
        self.pixel_norm = nn.LayerNorm(channels)
        # The published initialisation: a small gain keeps 21 stacked attentions stable.
        nn.init.constant_(self.pixel_norm.weight, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Map N×C×H×W to the same shape."""
        y = self.proj_2(self.atten_branch(F.gelu(self.proj_1(x)))) + x
        # Pixel normalisation is LayerNorm over the channels of each pixel.
        normed: Tensor = self.pixel_norm(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return normed


class VapSR(nn.Module):
    """The network: N×3×H×W in [0, 1] to N×3×(sH)×(sW), not clamped."""

    def __init__(self, config: VapSRConfig) -> None:
        super().__init__()
        c, s, up = config.num_feat, config.scale, config.upsampler_feat
        self.config = config
        self.conv_first = nn.Conv2d(3, c, 3, padding=1)
        self.body = nn.Sequential(
            *(AttentionBlock(c, config.d_atten) for _ in range(config.num_block))
        )
        self.conv_body = nn.Conv2d(c, c, 3, padding=1, groups=config.conv_groups)
        if s == 4:  # two steps of ×2; indices 1, 2 and 4 hold no tensors
            self.upsampler = nn.Sequential(
                nn.Conv2d(c, up, 3, padding=1),
                nn.PixelShuffle(2),
                nn.LeakyReLU(LEAKY_SLOPE),
                nn.Conv2d(up // 4, 12, 3, padding=1),
                nn.PixelShuffle(2),
            )
        else:  # one step
            self.upsampler = nn.Sequential(
                nn.Conv2d(c, up, 3, padding=1),
                nn.LeakyReLU(LEAKY_SLOPE),
                nn.Conv2d(up, 3 * s * s, 3, padding=1),
                nn.PixelShuffle(s),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Upscale ``x``."""
        shallow = self.conv_first(x)
        deep = self.conv_body(self.body(shallow)) + shallow
        upscaled: Tensor = self.upsampler(deep)
        return upscaled


NETWORK = VapSR
