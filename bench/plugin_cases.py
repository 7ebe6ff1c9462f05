"""Arguments of the ops, at ordinary and at hard scales, and how an error is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class OcaCase:
    """One overlapping attention; ``scale`` is the size of its queries and keys."""

    name: str
    shape: tuple[int, int, int]
    head_dim: int
    heads: int
    window: int
    overlap: int
    scale: float = 1.0

    def arguments(self, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[Any, ...]:
        """q, k, v, bias, window, overlap, heads; q, k and v are thirds of one map, as in HAT."""
        generator = torch.Generator().manual_seed(0)
        channels = self.heads * self.head_dim
        whole = torch.randn(*self.shape, 3 * channels, generator=generator)
        whole[..., : 2 * channels] *= self.scale
        whole = whole.to(device, dtype)
        q, k, v = (whole[..., i * channels : (i + 1) * channels] for i in range(3))
        rows = (2 * self.window + self.overlap - 1) ** 2
        bias = torch.randn(rows, self.heads, generator=generator)
        return q, k, v, bias.to(device, dtype), self.window, self.overlap, self.heads


@dataclass(frozen=True)
class EnlaCase:
    """One linear attention; ``sharpness`` is the length of its embeddings, ``level`` of v."""

    name: str
    batch: int
    size: tuple[int, int]
    embedded: int
    channels: int
    features: int
    sharpness: float = 6**0.5
    level: float = 1.0

    def arguments(self, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[Any, ...]:
        """q, k, v, projection, eps."""
        generator = torch.Generator().manual_seed(0)

        def embedding() -> Tensor:
            x = torch.randn(self.batch, self.embedded, *self.size, generator=generator)
            return self.sharpness * F.normalize(x, dim=1, eps=5e-5)

        q, k = embedding(), embedding()
        v = torch.randn(self.batch, self.channels, *self.size, generator=generator)
        projection = torch.randn(self.features, self.embedded, generator=generator)
        # all values of one sign: their sum grows with the number of pixels
        tensors = (q, k, (v.abs() + 0.5) * self.level, projection)
        return *(t.to(device, dtype) for t in tensors), 1e-4


OCA = [
    OcaCase("window 16, heads of 30", (1, 16, 32), 30, 2, 16, 8),
    OcaCase("window 16, not whole windows", (1, 21, 18), 24, 1, 16, 8),
    OcaCase("window 8, heads of 32, batch", (3, 8, 16), 32, 2, 8, 4),
    OcaCase("window 8, less than a window", (2, 5, 9), 24, 2, 8, 4),
    OcaCase("window 8, no overlap", (1, 11, 8), 30, 1, 8, 0),
    OcaCase("full overlap", (1, 9, 8), 8, 2, 4, 4),
    OcaCase("large logits", (1, 8, 16), 32, 2, 8, 4, scale=8.0),
    OcaCase("tiny values", (1, 8, 8), 24, 1, 8, 4, scale=1e-3),
    OcaCase("odd window", (1, 7, 11), 5, 1, 3, 2),
]
ENLA = [
    EnlaCase("published widths", 1, (24, 25), 64, 256, 128),
    EnlaCase("batch, odd size", 3, (13, 17), 8, 16, 32),
    EnlaCase("nothing a power of two", 2, (9, 31), 30, 24, 20),
    EnlaCase("sums beyond fp16", 1, (64, 96), 8, 8, 16, level=60.0),
    EnlaCase("one pixel", 1, (1, 1), 4, 3, 5),
    EnlaCase("short embeddings", 1, (8, 40), 16, 16, 32, sharpness=0.1),
]


def exactly(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same arguments in float64."""
    return tuple(a.double() if isinstance(a, Tensor) else a for a in arguments)


def error(got: Tensor, exact: Tensor) -> float:
    """Root mean square; infinite where a value is not finite."""
    difference = (got.double() - exact).square().mean().sqrt().item()
    return difference if difference == difference else float("inf")
