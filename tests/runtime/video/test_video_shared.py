"""Real clips: H.264 with 5.1 AAC, VP8 with Vorbis and uneven times, BT.601 at 12.5 fps."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
from srdeploy.runtime.video import VideoOptions, upscale_video

pytestmark = pytest.mark.shared

CLIPS = {"bbb_480p_5s.mp4": 0, "intel_car-detection.mp4": 6, "sintel_arpage.mp4": 0}


@pytest.mark.parametrize("name", sorted(CLIPS))
def test_real_clips_keep_times_audio_and_colour(
    tmp_path: Path, shared: Path, Repeat: Any, packets: Any, name: str
) -> None:
    source, output = shared / "data" / "video" / name, tmp_path / name
    result = upscale_video(source, output, Repeat(1), VideoOptions(preset="ultrafast"))
    pts = [sorted(p.pts for p in packets(f, "video")) for f in (source, output)]
    assert pts[0] == pts[1]
    assert len(pts[0]) == result.frames
    assert packets(output, "audio") == packets(source, "audio")
    matrix = CLIPS[name] or 6  # undeclared and below 720 lines: BT.601
    with av.open(str(output)) as made:
        assert made.streams.video[0].codec_context.colorspace == matrix
    assert result.notes == ()


def test_uneven_times_of_a_real_webm(
    tmp_path: Path, shared: Path, Repeat: Any, packets: Any, write_clip: Any
) -> None:
    whole = shared / "data" / "video" / "bbb_moviepy_0_30.webm"
    source = tmp_path / "start.webm"
    with av.open(str(whole)) as container, av.open(str(source), "w") as cut:
        copies = {s.index: cut.add_stream_from_template(s, opaque=True) for s in container.streams}
        for packet in container.demux():
            if packet.pts is None or packet.pts > 3000:
                break
            packet.stream = copies[packet.stream.index]
            cut.mux(packet)
    steps = {b.pts - a.pts for a, b in pairwise(packets(source, "video"))}
    assert len(steps) > 1  # uneven indeed
    output = tmp_path / "out.webm"
    result = upscale_video(source, output, Repeat(1), VideoOptions(preset="ultrafast"))
    assert result.codec == "libvpx-vp9"
    for kind in ("video", "audio"):
        times = [[p.pts for p in packets(f, kind)] for f in (source, output)]
        assert times[0] == times[1]
    assert [p.data for p in packets(output, "audio")] == [p.data for p in packets(source, "audio")]
