"""LR as the world makes it: blur, a resizer of somebody's choice, noise, JPEG or H.264.

Which steps there are follows Zhang et al., "Designing a Practical Degradation Model for Deep Blind
Image Super-Resolution", ICCV 2021 (arXiv:2103.14006), sections 3.1 to 3.4, and Wang et al.,
"Real-ESRGAN", ICCVW 2021 (arXiv:2107.10833), section 3.1: isotropic and anisotropic Gaussian blur,
several resizers, Gaussian and Poisson noise in colour or in grey, JPEG. They are taken once and in
the order in which a camera takes them. H.264 is ours: the deployed networks upscale videos.

LR stays on the grid of HR: no step moves it by a part of a pixel.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]
"""H×W×3 RGB, 0…255."""

Codec = Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]
"""Takes T×H×W×3 frames and a constant rate factor; gives what a player would show."""

_BORDER = 8
"""LR pixels of a frame around its patch. Mirrored or wrapped edges reach 6 of them: blur 2.25
(three deviations), Lanczos 3. It is also the edge of a block of JPEG or H.264, whose grid lies
anywhere within it."""

_MOTION = 4
"""LR pixels that a frame of a video may lie beside the one that is kept."""

MARGIN = _BORDER + _MOTION
"""LR pixels around a patch that are degraded with it and cut off."""

_RESIZERS = {
    "area": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Degradation:
    """How often and how strongly the world spoils a picture.

    Lengths are in LR pixels, so that they mean the same at every scale: the papers' blur of up
    to 3 HR pixels at x4 is 0.75 here. Noise is given as its standard deviation in code values,
    for Poisson noise that of white. Ranges are drawn from evenly.

    Attributes:
        blur: Share of patches that are blurred by a Gaussian.
        sigma: Its standard deviation; arXiv:2107.10833 has 0.2…3 HR pixels at x4.
        anisotropic: Share of the blurred ones whose Gaussian is an ellipse of random angle, both
            axes drawn from ``sigma``; the others are round.
        resizers: One is drawn; each smoothes before it samples.
        gaussian: Share of patches with Gaussian noise.
        poisson: Share with Poisson noise; none has both.
        noise: Standard deviation; arXiv:2103.14006 has 1…25.
        grey: Share of the noisy ones whose channels all get the same noise.
        h264: Share of patches that are a frame of a video.
        crf: Constant rate factor of H.264.
        jpeg: Share of the other patches that go through JPEG.
        quality: Of JPEG; both papers have 30…95.
    """

    blur: float = 0.8
    sigma: tuple[float, float] = (0.05, 0.75)
    anisotropic: float = 0.5
    resizers: tuple[str, ...] = tuple(_RESIZERS)
    gaussian: float = 0.4
    poisson: float = 0.3
    noise: tuple[float, float] = (1.0, 25.0)
    grey: float = 0.4
    h264: float = 0.3
    crf: tuple[int, int] = (18, 34)
    jpeg: float = 0.6
    quality: tuple[int, int] = (30, 95)


@dataclass(frozen=True)
class RealWorld:
    """Makes LR of HR.

    Attributes:
        codec: H.264, which only ``runtime/video`` can call.
        degradation: What is done.
    """

    codec: Codec
    degradation: Degradation = field(default_factory=Degradation)

    def shrink(self, high: Picture, scale: int, rng: np.random.Generator) -> Picture:
        """LR of a cut-out of a picture; a function of the pixels and the state of ``rng``.

        Args:
            high: ``scale``·(h + 2·MARGIN) × ``scale``·(w + 2·MARGIN) × 3, uint8: the patch with
                what surrounds it.
            scale: Upscaling factor.
            rng: Draws what is done.

        Returns:
            h×w×3, uint8.
        """
        has = self.degradation
        height, width = (edge // scale - 2 * MARGIN for edge in high.shape[:2])
        video = rng.random() < has.h264
        if not video:  # nothing moves
            still = scale * _MOTION
            high = high[still:-still, still:-still]
        # where the patch lies in the blocks of a codec; 4:2:0 wants an even place
        top, left = (int(v) for v in 2 * rng.integers(_BORDER // 2, size=2))
        blurred = _blur(high, scale, has, rng)
        resizer = _RESIZERS[has.resizers[rng.integers(len(has.resizers))]]
        kept, shifts = _motion(scale, rng) if video else (0, [(0, 0)])
        frames = np.stack(
            [_cut(blurred, scale, shift, (height, width), resizer)[top:, left:] for shift in shifts]
        )
        frames = _noise(frames, has, rng)
        low: Picture = frames[kept]
        if video:
            low = self.codec(frames, int(rng.integers(has.crf[0], has.crf[1] + 1)))[kept]
        elif rng.random() < has.jpeg:
            low = _jpeg(low, has, rng)
        return low[_BORDER - top :, _BORDER - left :][:height, :width]


def window(
    picture: Picture, corner: tuple[int, int], size: tuple[int, int], margin: int
) -> Picture:
    """A cut-out with what surrounds it; beyond its edges the picture is mirrored.

    Args:
        picture: H×W×3.
        corner: Top and left of the cut-out.
        size: Its height and width.
        margin: Pixels to take on each side of it.

    Returns:
        (height + 2·margin) × (width + 2·margin) × 3.
    """
    inside, beyond = [], []
    for start, length, edge in zip(corner, size, picture.shape, strict=False):
        first, last = start - margin, start + length + margin
        inside.append(slice(max(first, 0), min(last, edge)))
        beyond.append((max(-first, 0), max(last - edge, 0)))
    padded: Picture = np.pad(picture[tuple(inside)], [*beyond, (0, 0)], "symmetric")
    return padded


def _blur(high: Picture, scale: int, has: Degradation, rng: np.random.Generator) -> Picture:
    """Gaussian blur by its transfer function, which knows no grid and so moves nothing.

    What wraps around at the borders stays within the margin.
    """
    if rng.random() >= has.blur:
        return high
    axes = scale * rng.uniform(*has.sigma, size=2)
    if rng.random() >= has.anisotropic:
        axes[1] = axes[0]
    angle = rng.uniform(0, np.pi)
    height, width = high.shape[:2]
    y = np.fft.fftfreq(height)[:, None]
    x = np.fft.rfftfreq(width)
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    passed = np.exp(-2 * np.pi**2 * ((axes[0] * along) ** 2 + (axes[1] * across) ** 2))
    planes = np.ascontiguousarray(high.transpose(2, 0, 1), np.float64)
    smooth = np.fft.irfft2(np.fft.rfft2(planes) * passed, (height, width))
    return _to_8_bits(smooth).transpose(1, 2, 0)


def _motion(scale: int, rng: np.random.Generator) -> tuple[int, list[tuple[int, int]]]:
    """Which of four frames is kept, and where each lies, in HR pixels: the kept one at 0, 0.

    A camera that pans by up to 4/3 LR pixels a frame, by steps of HR pixels: a codec then
    predicts from parts of pixels, as it mostly does.
    """
    count = 4
    kept = int(rng.integers(count))
    step = _MOTION * scale / (count - 1) * rng.uniform(-1, 1, 2)
    places = [np.trunc((frame - kept) * step).astype(int) for frame in range(count)]
    return kept, [(int(y), int(x)) for y, x in places]


def _cut(
    high: Picture,
    scale: int,
    shift: tuple[int, int],
    size: tuple[int, int],
    resizer: Image.Resampling,
) -> Picture:
    """A frame of the patch and its border, ``shift`` HR pixels beside the kept one, shrunk."""
    height, width = (edge + 2 * _BORDER for edge in size)
    top = (high.shape[0] - height * scale) // 2 + shift[0]
    left = (high.shape[1] - width * scale) // 2 + shift[1]
    cut = high[top : top + height * scale, left : left + width * scale]
    return np.asarray(Image.fromarray(cut).resize((width, height), resizer))


def _noise(frames: Picture, has: Degradation, rng: np.random.Generator) -> Picture:
    """Noise of one kind and strength, drawn for each frame."""
    kind = rng.random()
    if kind >= has.gaussian + has.poisson:
        return frames
    deviation = rng.uniform(*has.noise)
    grey = rng.random() < has.grey
    values = frames.astype(np.float64)
    clean = values.mean(axis=3, keepdims=True) if grey else values
    if kind < has.gaussian:
        return _to_8_bits(values + deviation * rng.standard_normal(clean.shape))
    photons = (255 / deviation) ** 2  # of white: their number's deviation is its square root
    counted = rng.poisson(clean / 255 * photons) * (255 / photons)
    return _to_8_bits(values + counted - clean)


def _jpeg(picture: Picture, has: Degradation, rng: np.random.Generator) -> Picture:
    quality = int(rng.integers(has.quality[0], has.quality[1] + 1))
    subsampling = "4:2:0" if rng.random() < 0.5 else "4:4:4"
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    with Image.open(buffer) as opened:
        return np.asarray(opened)


def _to_8_bits(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    rounded: NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded
