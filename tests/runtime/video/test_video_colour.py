"""Colour through decode, engine and encode, against arithmetic written here from H.273."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from srdeploy.errors import MediaError
from srdeploy.runtime.video import VideoOptions, upscale_video
from srdeploy.runtime.video.colour import RgbDecoder

LIMITED, FULL = 1, 2
# H.273 code point of the matrix -> (K_R, K_B)
WEIGHTS = {
    1: (0.2126, 0.0722),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
PATCH = 16
LOSSLESS = {
    ".mp4": VideoOptions(codec="libx264", crf=0, preset="ultrafast"),
    ".mkv": VideoOptions(codec="ffv1"),
    ".webm": VideoOptions(codec="libvpx-vp9", crf=0, preset="ultrafast"),
}
Plane = NDArray[np.float64]


def patches(rows: int = 4, columns: int = 6) -> NDArray[np.uint8]:
    colours = np.random.default_rng(3).integers(0, 256, (rows, columns, 3))
    colours[0] = [
        [0, 0, 0],
        [255, 255, 255],
        [255, 0, 0],
        [0, 255, 0],
        [0, 0, 255],
        [128, 128, 128],
    ]
    return colours.repeat(PATCH, 0).repeat(PATCH, 1).astype(np.uint8)


def to_yuv(rgb: NDArray[Any], matrix: int, full: bool) -> list[Plane]:
    kr, kb = WEIGHTS[matrix]
    r, g, b = (rgb[..., i] / 255.0 for i in range(3))
    y = kr * r + (1 - kr - kb) * g + kb * b
    u, v = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
    scale_y, offset, scale_c = (255, 0, 255) if full else (219, 16, 224)
    planes = [y * scale_y + offset, u * scale_c + 128, v * scale_c + 128]
    return [np.clip(np.round(p), 0, 255) for p in planes]


def to_rgb(planes: list[Plane], matrix: int, full: bool) -> NDArray[Any]:
    kr, kb = WEIGHTS[matrix]
    scale_y, offset, scale_c = (255, 0, 255) if full else (219, 16, 224)
    y = (planes[0] - offset) / scale_y
    u, v = (planes[1] - 128) / scale_c, (planes[2] - 128) / scale_c
    r, b = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
    g = (y - kr * r - kb * b) / (1 - kr - kb)
    return np.clip(np.round(np.stack([r, g, b], -1) * 255), 0, 255)


def planes_of(frame: av.VideoFrame) -> list[Plane]:
    """Y, U, V at full size."""
    planes = []
    for plane in frame.planes[:3]:
        lines = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        grown = lines[:, : plane.width].astype(np.float64)
        factor = frame.width // plane.width
        planes.append(grown.repeat(factor, 0).repeat(factor, 1))
    return planes


def yuv_frame(planes: list[Plane], pixel_format: str = "yuv420p") -> av.VideoFrame:
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, pixel_format)
    for i, (plane, values) in enumerate(zip(frame.planes, planes, strict=True)):
        small = values if i == 0 else values[::2, ::2]
        line = np.zeros((plane.height, plane.line_size), np.uint8)
        line[:, : plane.width] = small
        plane.update(line.tobytes())
    return frame


def inner(image: NDArray[Any], scale: int) -> NDArray[Any]:
    """Centres of the patches, where chroma is not mixed with the neighbour's."""
    size = PATCH * scale
    cut = image.reshape(image.shape[0] // size, size, image.shape[1] // size, size, -1)
    return cut[:, size // 4 : -size // 4, :, size // 4 : -size // 4]


def coded_clip(
    write_clip: Any, path: Path, matrix: int, full: bool, tag: bool, rgb: NDArray[Any], **more: Any
) -> Path:
    frame = yuv_frame(to_yuv(rgb, matrix, full))
    if tag:
        frame.colorspace, frame.color_range = matrix, FULL if full else LIMITED

    def prepare(_: Any, stream: Any) -> None:
        if tag:
            context = stream.codec_context
            context.colorspace, context.color_range = matrix, FULL if full else LIMITED
            context.color_primaries, context.color_trc = more.get("meaning", (2, 2))

    options = {"crf": "0", "preset": "ultrafast"}
    size = (rgb.shape[1], rgb.shape[0])
    made: Path = write_clip(path, size=size, frames=[frame] * 3, options=options, prepare=prepare)
    return made


def first_frame(path: Path) -> av.VideoFrame:
    with av.open(str(path)) as container:
        return next(container.decode(video=0))


@pytest.mark.parametrize("ending", sorted(LOSSLESS))
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", sorted(WEIGHTS))
def test_patches_keep_their_colour_through_a_tagged_video(
    tmp_path: Path, Repeat: Any, write_clip: Any, matrix: int, full: bool, ending: str
) -> None:
    rgb = patches()
    source = coded_clip(write_clip, tmp_path / "a.mp4", matrix, full, True, rgb)
    output = tmp_path / f"b{ending}"
    upscale_video(source, output, Repeat(2), LOSSLESS[ending])
    coded, frame = first_frame(source), first_frame(output)
    alike = {5, 6}  # both are BT.601; VP9 has one code for them
    assert frame.colorspace == matrix or {frame.colorspace, matrix} <= alike
    assert (frame.color_range == FULL) == full
    before = to_rgb(planes_of(coded), matrix, full)
    after = to_rgb(planes_of(frame), int(frame.colorspace), frame.color_range == FULL)
    # to 8-bit RGB and back rounds twice; limited range stretches a step to 255/219 of one
    assert np.abs(inner(after, 2) - inner(before.repeat(2, 0).repeat(2, 1), 2)).max() <= 3
    assert np.abs(inner(before, 1) - inner(rgb.astype(float), 1)).max() <= 3


def chroma_shift(frame: av.VideoFrame) -> float:
    """Luma pixels by which V lies right of Y in a frame of waves along x, if sited left."""
    period, (y, _, v) = 32, planes_of(frame)
    waves = frame.width // period
    at = [np.angle(np.fft.fft(plane[0, ::step])[waves]) for plane, step in ((y, 1), (v, 2))]
    return float((at[0] - at[1] + np.pi) % (2 * np.pi) - np.pi) / (2 * np.pi) * period


@pytest.mark.parametrize(
    ("ending", "codec"),
    [
        (".mp4", "libx264"),
        (".mp4", "libx265"),
        (".webm", "libvpx-vp9"),
        (".mp4", "libsvtav1"),
        (".mkv", "ffv1"),
    ],
)
def test_colours_do_not_shift_against_brightness(
    tmp_path: Path, Repeat: Any, write_clip: Any, ending: str, codec: str
) -> None:
    """Where a source says nothing, its chroma lies on the left pixel of two; so it is written."""
    wave = np.sin(2 * np.pi * np.arange(128) / 16)
    rgb = np.broadcast_to((128 + 60 * wave[:, None] * [1, 0, 0]).round(), (64, 128, 3))
    source = coded_clip(write_clip, tmp_path / "a.mp4", 6, False, True, rgb)
    output = tmp_path / f"b{ending}"
    crf = None if codec == "ffv1" else 8
    upscale_video(source, output, Repeat(2), VideoOptions(codec=codec, crf=crf, preset="ultrafast"))
    frame = first_frame(output)
    assert abs(chroma_shift(frame)) < 0.15
    with av.open(str(output)) as container:  # as a player that reads the declaration
        shown = RgbDecoder()(next(container.decode(video=0)))
    wanted = rgb.repeat(2, 0).repeat(2, 1)
    assert np.abs(shown[8:-8, 16:-16].astype(float) - wanted[8:-8, 16:-16]).mean() < 4


@pytest.mark.parametrize(("height", "matrix"), [(64, 6), (704, 6), (720, 1)])
def test_an_undeclared_video_is_taken_as_players_do_and_then_declared(
    tmp_path: Path, Repeat: Any, write_clip: Any, height: int, matrix: int
) -> None:
    rgb = patches(height // PATCH, 6)
    source = coded_clip(write_clip, tmp_path / "a.mp4", matrix, False, False, rgb)
    assert first_frame(source).colorspace == 2
    output = tmp_path / "b.mp4"
    upscale_video(source, output, Repeat(2), LOSSLESS[".mp4"])
    frame = first_frame(output)
    # 704 lines became 1408: an undeclared output would now be read as BT.709
    assert (frame.colorspace, frame.color_range) == (matrix, LIMITED)
    after = to_rgb(planes_of(frame), matrix, False)
    assert (
        np.abs(inner(after, 2) - inner(rgb.repeat(2, 0).repeat(2, 1).astype(float), 2)).max() <= 3
    )


def test_primaries_and_transfer_are_declared_as_the_source_does(
    tmp_path: Path, Repeat: Any, write_clip: Any
) -> None:
    source = coded_clip(write_clip, tmp_path / "a.mp4", 9, False, True, patches(), meaning=(9, 16))
    output = tmp_path / "b.mp4"
    result = upscale_video(source, output, Repeat(2), LOSSLESS[".mp4"])
    frame = first_frame(output)
    assert (frame.color_primaries, frame.color_trc, frame.colorspace) == (9, 16, 9)
    assert any("HDR" in note for note in result.notes)


def test_old_full_range_pixel_formats_are_full_range(
    tmp_path: Path, Repeat: Any, write_clip: Any
) -> None:
    rgb = patches()
    frame = yuv_frame(to_yuv(rgb, 6, True), "yuvj420p")
    source = write_clip(
        tmp_path / "a.avi",
        size=(96, 64),
        codec="mjpeg",
        pixel_format="yuvj420p",
        frames=[frame] * 2,
        options={"qmin": "1", "qmax": "1"},
    )
    output = tmp_path / "b.mkv"
    upscale_video(source, output, Repeat(1), LOSSLESS[".mkv"])
    result = first_frame(output)
    assert (result.colorspace, result.color_range) == (6, FULL) or result.colorspace == 5
    after = to_rgb(planes_of(result), 6, True)
    assert np.abs(inner(after, 1) - inner(rgb.astype(float), 1)).mean() < 2


def test_an_rgb_video_becomes_declared_bt709(tmp_path: Path, Repeat: Any, write_clip: Any) -> None:
    rgb = patches()
    frames = [av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="bgr0")] * 2
    source = write_clip(
        tmp_path / "a.mkv", size=(96, 64), codec="ffv1", pixel_format="bgr0", frames=frames
    )
    output = tmp_path / "b.mkv"
    upscale_video(source, output, Repeat(1), LOSSLESS[".mkv"])
    frame = first_frame(output)
    assert (frame.colorspace, frame.color_range) == (1, LIMITED)
    after = to_rgb(planes_of(frame), 1, False)
    assert np.abs(inner(after, 1) - inner(rgb.astype(float), 1)).max() <= 3


@pytest.mark.parametrize(
    ("codec", "pixel_format", "note"),
    [("ffv1", "yuv420p10le", "10 bits"), ("ffv1", "yuva420p", "transparency")],
)
def test_what_the_engine_cannot_see_is_noted(
    tmp_path: Path, Repeat: Any, write_clip: Any, codec: str, pixel_format: str, note: str
) -> None:
    source = write_clip(tmp_path / "a.mkv", codec=codec, pixel_format=pixel_format, count=3)
    result = upscale_video(source, tmp_path / "b.mkv", Repeat(), LOSSLESS[".mkv"])
    assert any(note in text for text in result.notes)
    assert first_frame(tmp_path / "b.mkv").format.name == "yuv420p"


def test_ten_bits_are_rounded_not_cut_to_the_wrong_level(
    tmp_path: Path, Repeat: Any, write_clip: Any
) -> None:
    rgb = patches()
    frame = yuv_frame(to_yuv(rgb, 1, False))
    frame.colorspace, frame.color_range = 1, LIMITED
    deep = frame.reformat(format="yuv420p10le")

    def prepare(_: Any, stream: Any) -> None:
        stream.codec_context.colorspace, stream.codec_context.color_range = 1, LIMITED

    source = write_clip(
        tmp_path / "a.mkv",
        size=(96, 64),
        codec="ffv1",
        pixel_format="yuv420p10le",
        frames=[deep] * 2,
        prepare=prepare,
    )
    output = tmp_path / "b.mkv"
    upscale_video(source, output, Repeat(1), LOSSLESS[".mkv"])
    after = to_rgb(planes_of(first_frame(output)), 1, False)
    assert np.abs(inner(after, 1) - inner(rgb.astype(float), 1)).max() <= 3


def test_a_matrix_that_cannot_be_converted_is_an_error(
    tmp_path: Path, Repeat: Any, write_clip: Any
) -> None:
    def prepare(_: Any, stream: Any) -> None:
        stream.codec_context.colorspace = 8  # YCgCo

    source = write_clip(tmp_path / "a.mp4", count=2, prepare=prepare)
    with pytest.raises(MediaError, match=r"number 8 of ITU-T H\.273"):
        upscale_video(source, tmp_path / "b.mp4", Repeat())
    assert not (tmp_path / "b.mp4").exists()


@pytest.mark.parametrize(
    ("codec", "pixel_format"),
    [("libx264", "yuv444p"), ("libx265", "yuv444p"), ("libvpx-vp9", "yuv420p")],
)
def test_odd_sizes_lose_no_pixel(
    tmp_path: Path, Repeat: Any, write_clip: Any, codec: str, pixel_format: str
) -> None:
    source = write_clip(tmp_path / "a.mkv", size=(33, 25), codec="ffv1", count=3)
    output = tmp_path / "b.mkv"
    options = VideoOptions(codec=codec, preset="ultrafast")
    result = upscale_video(source, output, Repeat(3), options)
    frame = first_frame(output)
    assert (frame.width, frame.height) == (99, 75) == (result.width, result.height)
    assert frame.format.name == pixel_format
    assert any("4:4:4" in note for note in result.notes) == (pixel_format == "yuv444p")


def test_an_odd_size_that_the_codec_cannot_take_is_an_error(
    tmp_path: Path, Repeat: Any, write_clip: Any
) -> None:
    source = write_clip(tmp_path / "a.mkv", size=(33, 25), codec="ffv1", count=2)
    with pytest.raises(MediaError, match="odd size 99×75"):
        upscale_video(source, tmp_path / "b.mkv", Repeat(3), VideoOptions(codec="libsvtav1"))
