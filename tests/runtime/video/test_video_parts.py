"""The parts of the video path that can be tried without a video."""

from __future__ import annotations

import random
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from srdeploy.errors import MediaError
from srdeploy.runtime.video import default_output
from srdeploy.runtime.video.colour import BT601, LIMITED, Colour, YuvEncoder
from srdeploy.runtime.video.formats import (
    ENCODERS,
    MUXERS,
    PRESETS,
    encoder_of,
    encoder_options,
    muxer_of,
)
from srdeploy.runtime.video.ordered import OrderedLine, Stopped
from srdeploy.runtime.video.truncation import declared_size


@given(
    work=st.lists(st.booleans(), max_size=60),
    workers=st.integers(1, 4),
    limit=st.integers(1, 6),
    seed=st.integers(0, 5),
)
def test_the_line_keeps_the_order_and_its_limit(
    work: list[bool], workers: int, limit: int, seed: int
) -> None:
    line: OrderedLine[tuple[int, bool]] = OrderedLine(limit)
    chance = random.Random(seed)

    def fill() -> None:
        for number, wants in enumerate(work):
            line.put((number, False), wants)
        line.end()

    def labour() -> None:
        for entry in line.work():
            if chance.random() < 0.2:
                time.sleep(0.0005)
            line.finish(entry, (entry.item[0], True))

    threads = [threading.Thread(target=fill)]
    threads += [threading.Thread(target=labour) for _ in range(workers)]
    for thread in threads:
        thread.start()
    came = list(line.results())
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert came == list(enumerate(work))
    assert line.peak <= limit


@pytest.mark.parametrize("waiting", ["put", "work", "results"])
def test_a_failure_wakes_whoever_waits(waiting: str) -> None:
    line: OrderedLine[int] = OrderedLine(1)
    if waiting == "put":
        line.put(0, True)
    stopped = threading.Event()

    def wait() -> None:
        try:
            if waiting == "put":
                line.put(1, True)
            else:
                next(getattr(line, waiting)())
        except Stopped:
            stopped.set()

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.02)
    assert thread.is_alive()
    first = ValueError("first")
    line.fail(first)
    line.fail(ValueError("second"))
    thread.join(5)
    assert stopped.is_set()
    assert line.error is first


@pytest.mark.parametrize(
    ("ending", "codec"),
    [
        (".mp4", "libx264"),
        (".mov", "libx264"),
        (".mkv", "libx264"),
        (".webm", "libvpx"),
        (".avi", "mpeg4"),
    ],
)
def test_the_declared_size_is_that_of_a_whole_file(
    tmp_path: Path, write_clip: Any, ending: str, codec: str
) -> None:
    path = write_clip(tmp_path / f"a{ending}", codec=codec, count=10)
    whole = path.stat().st_size
    assert declared_size(path) == whole
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    assert declared_size(path) == whole
    path.write_bytes(data + b"stray bytes behind the end")
    assert (declared_size(path) or 0) <= whole + 26


@given(content=st.binary(max_size=300))
def test_no_bytes_upset_the_size_check(tmp_path_factory: Any, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    for head in (b"", b"\x1a\x45\xdf\xa3", b"RIFF\0\1\0\0AVI ", b"\0\0\0\x14ftyp"):
        path.write_bytes(head + content)
        size = declared_size(path)
        assert size is None or size >= 0


def test_default_names() -> None:
    assert default_output(Path("a/video.mp4"), 4) == Path("a/video_x4.mp4")
    assert default_output(Path("clip.one.WEBM"), 2) == Path("clip.one_x2.WEBM")
    # a container that is read but not written
    assert default_output(Path("tape.mpg"), 4) == Path("tape_x4.mkv")


def test_each_ending_has_a_muxer_and_a_codec() -> None:
    for ending in MUXERS:
        muxer = muxer_of(Path(f"a{ending.upper()}"))
        expected = "libvpx-vp9" if muxer == "webm" else "libx264"
        assert encoder_of(None, muxer).name == expected
    with pytest.raises(MediaError, match=r"cannot be written as '\.gif'"):
        muxer_of(Path("a.gif"))


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_every_preset_and_quality_is_an_option_of_its_encoder(name: str) -> None:
    encoder = ENCODERS[name]
    known = av.CodecContext.create(name, "w").supported_options
    names = {option.name for option in (*known.generic, *known.private)}
    for preset in PRESETS:
        options = encoder_options(encoder, None, preset)
        assert set(options) <= names
        assert options.get("crf") == (None if encoder.crf is None else str(encoder.crf))
    with pytest.raises(MediaError, match=r"crf|lossless"):
        encoder_options(encoder, encoder.worst + 1, "medium")


@pytest.mark.parametrize("preset", ["veryfast", "medium"])
def test_x264_gives_the_same_on_every_cpu(preset: str) -> None:
    """Its code for AVX2 gives another stream, and that for AVX-512 now this one, now that."""
    options = encoder_options(ENCODERS["libx264"], None, preset)
    others = options.get("x264-params")
    without_asm = f"{others}:asm=0" if others else "asm=0"
    assert encoded(options) == encoded(options | {"x264-params": without_asm})


def encoded(options: dict[str, str]) -> bytes:
    """Noise of 96×64 through x264."""
    noise = np.random.default_rng(0).integers(90, 160, (60, 64, 96, 3)).astype(np.uint8)
    to_yuv = YuvEncoder(Colour(BT601, LIMITED), "yuv420p")
    encoder: Any = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 96, 64, "yuv420p"
    encoder.time_base, encoder.thread_type, encoder.options = Fraction(1, 25), "AUTO", options
    packets = []
    for number, pixels in enumerate(noise):
        frame = to_yuv(pixels)
        frame.pts, frame.time_base = number, encoder.time_base
        packets += encoder.encode(frame)
    return b"".join(map(bytes, [*packets, *encoder.encode(None)]))


def test_a_better_quality_may_be_asked_for() -> None:
    assert encoder_options(ENCODERS["libx264"], 0, "slow")["crf"] == "0"
    with pytest.raises(MediaError, match="got -1"):
        encoder_options(ENCODERS["libx264"], -1, "slow")
