from __future__ import annotations

import tracemalloc
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from srdeploy.runtime.video import Progress, VideoOptions, upscale_video

FAST = VideoOptions(preset="ultrafast", crf=30)


def test_times_audio_and_count_are_kept(
    tmp_path: Path, Repeat: Any, write_clip: Any, packets: Any, shown: Any
) -> None:
    source = write_clip(tmp_path / "a.mp4", count=30, audio="aac")
    result = upscale_video(source, tmp_path / "b.mp4", Repeat(3), FAST)
    assert (result.frames, result.width, result.height) == (30, 192, 144)
    assert shown(tmp_path / "b.mp4") == shown(source)
    assert packets(tmp_path / "b.mp4", "audio") == packets(source, "audio")
    assert result.notes == ()
    assert result.fps == pytest.approx(30 / result.seconds)
    assert 0 < result.engine_busy_seconds <= result.engine_seconds < result.seconds


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.integers(1, 9000), min_size=2, max_size=12),
    first=st.integers(0, 50_000),
    base=st.sampled_from([Fraction(1, 90000), Fraction(1, 12800), Fraction(1001, 30000)]),
    reorder=st.booleans(),
)
def test_uneven_times_are_kept_exactly_in_mp4(
    tmp_path: Path,
    Repeat: Any,
    write_clip: Any,
    shown: Any,
    packets: Any,
    steps: list[int],
    first: int,
    base: Fraction,
    reorder: bool,
) -> None:
    times = list(accumulate(steps, initial=first))
    source = write_clip(
        tmp_path / "a.mp4",
        count=len(times),
        times=times,
        time_base=base,
        options={"preset": "fast" if reorder else "ultrafast"},
    )
    assert shown(source) == [t * base for t in times]  # else the test tests nothing
    options = VideoOptions(preset="fast" if reorder else "ultrafast")
    upscale_video(source, tmp_path / "b.mp4", Repeat(), options)
    assert shown(tmp_path / "b.mp4") == [t * base for t in times]
    if not reorder:  # with reordering MP4 stores distances of decoding, not durations
        lengths = [[p.duration for p in packets(f, "video")] for f in (source, tmp_path / "b.mp4")]
        assert lengths[0] == lengths[1]


@pytest.mark.parametrize(
    ("ending", "codec", "audio"),
    [(".webm", "libvpx", "libopus"), (".mkv", "libx264", "flac"), (".mov", "libx264", "aac")],
)
def test_uneven_times_are_kept_in_other_containers(
    tmp_path: Path,
    Repeat: Any,
    write_clip: Any,
    shown: Any,
    packets: Any,
    ending: str,
    codec: str,
    audio: str,
) -> None:
    times = [7, 40, 81, 140, 141, 300, 333, 400]
    source = write_clip(
        tmp_path / f"a{ending}",
        count=len(times),
        times=times,
        time_base=Fraction(1, 1000),
        codec=codec,
        audio=audio,
        options={"lag-in-frames": "0"} if codec == "libvpx" else {},
    )
    output = tmp_path / f"b{ending}"
    result = upscale_video(source, output, Repeat(), FAST)
    assert shown(output) == shown(source)
    assert shown(output)[0] == Fraction(7, 1000)
    assert packets(output, "audio") == packets(source, "audio")
    assert result.codec == ("libvpx-vp9" if ending == ".webm" else "libx264")
    assert result.notes == ()


def test_avi_keeps_every_frame_at_its_place(
    tmp_path: Path, Repeat: Any, write_clip: Any, shown: Any
) -> None:
    source = write_clip(tmp_path / "a.avi", codec="mpeg4", count=20)
    output = tmp_path / "b.avi"
    assert upscale_video(source, output, Repeat(), FAST).frames == 20
    # FFmpeg reads H.264 in AVI as if frames were reordered: all one frame later
    offsets = {b - a for a, b in zip(shown(source), shown(output), strict=True)}
    assert len(offsets) == 1
    assert 0 <= offsets.pop() <= Fraction(1, 25)


def test_an_uneven_video_written_with_a_fixed_rate_says_so(
    tmp_path: Path, Repeat: Any, write_clip: Any
) -> None:
    times = [0, 40, 95, 120, 160, 200]
    source = write_clip(tmp_path / "a.mkv", count=6, times=times, time_base=Fraction(1, 1000))
    result = upscale_video(source, tmp_path / "b.avi", Repeat(), FAST)
    assert result.frames == 6
    assert any("fixed rate" in note for note in result.notes)


def test_mp4_to_mkv_says_that_times_are_rounded(
    tmp_path: Path, Repeat: Any, write_clip: Any, shown: Any
) -> None:
    source = write_clip(tmp_path / "a.mp4", rate=30, count=10)
    result = upscale_video(source, tmp_path / "b.mkv", Repeat(), FAST)
    assert any("1/1000 s" in note for note in result.notes)
    errors = [abs(a - b) for a, b in zip(shown(source), shown(tmp_path / "b.mkv"), strict=True)]
    assert max(errors) <= Fraction(1, 2000)


def test_concurrent_calls_of_uneven_length_leave_the_frames_in_order(
    tmp_path: Path, Repeat: Any, write_clip: Any
) -> None:
    source = write_clip(tmp_path / "a.mp4", count=40)
    session = Repeat(1, parallel=4, jitter=0.004)
    result = upscale_video(source, tmp_path / "b.mp4", session, VideoOptions(crf=5))
    assert session.most_concurrent > 1
    assert result.peak_in_flight <= 9
    with av.open(str(source)) as one, av.open(str(tmp_path / "b.mp4")) as two:
        pairs = zip(one.decode(video=0), two.decode(video=0), strict=True)
        for a, b in pairs:
            difference = a.to_ndarray(format="gray").astype(int) - b.to_ndarray(format="gray")
            assert np.abs(difference).mean() < 2  # a neighbouring frame differs by more
    assert result.engine_busy_seconds < result.engine_seconds


def test_a_transport_stream_keeps_its_times_and_starts_where_it_did(
    tmp_path: Path, Repeat: Any, write_clip: Any, shown: Any, packets: Any
) -> None:
    def prepare(container: Any, _: Any) -> None:
        container.container_options["output_ts_offset"] = "5"

    source = write_clip(tmp_path / "a.ts", count=25, audio="aac", prepare=prepare)
    output = tmp_path / "b.ts"
    result = upscale_video(source, output, Repeat(), FAST)
    assert shown(output) == shown(source)
    assert shown(source)[0] >= 5
    assert [p.pts for p in packets(output, "audio")] == [p.pts for p in packets(source, "audio")]
    assert result.frames == 25


def test_copied_packets_of_one_time_are_moved_apart(
    tmp_path: Path, Repeat: Any, write_clip: Any, packets: Any
) -> None:
    """Matroska stores them, MP4 refuses them; so do damaged files of any kind."""
    clip = write_clip(tmp_path / "clip.mkv", count=25, audio="flac")
    source = tmp_path / "a.mkv"
    with av.open(str(clip)) as container, av.open(str(source), "w") as doubled:
        copies = [doubled.add_stream_from_template(s, opaque=True) for s in container.streams]
        last = 0
        for packet in container.demux():
            if not packet.size:
                continue
            if packet.stream.type == "audio":
                packet.pts = packet.dts = last = last if packet.pts == 480 else packet.pts
            packet.stream = copies[packet.stream.index]
            doubled.mux(packet)
    times = [p.pts for p in packets(source, "audio")]
    assert len(set(times)) < len(times)
    kept = upscale_video(source, tmp_path / "b.mkv", Repeat(), FAST)
    assert packets(tmp_path / "b.mkv", "audio") == packets(source, "audio")
    assert kept.notes == ()
    moved = upscale_video(source, tmp_path / "b.mp4", Repeat(), FAST)
    assert any("out of order" in note for note in moved.notes)
    data = [[p.data for p in packets(f, "audio")] for f in (source, tmp_path / "b.mp4")]
    assert data[0] == data[1]


def test_names_that_look_like_addresses_or_options_are_files(
    tmp_path: Path, Repeat: Any, write_clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plain = write_clip(tmp_path / "plain.mp4", count=3)
    for name in ("http:a b.mp4", "-v.mp4", "naïve %d é.mp4", "a:b.mp4"):
        Path(name).write_bytes(plain.read_bytes())
        assert upscale_video(Path(name), Path(f"x {name}"), Repeat(), FAST).frames == 3
        assert Path(f"x {name}").is_file()


def test_memory_does_not_grow_with_the_clip(tmp_path: Path, Repeat: Any, write_clip: Any) -> None:
    """numpy reports its arrays to tracemalloc: upscaled frames here are 1.3 MB each."""
    peaks = []
    for count in (30, 240):
        source = write_clip(tmp_path / f"{count}.mp4", count=count, size=(160, 90))
        tracemalloc.start()
        upscale_video(source, tmp_path / "out.mp4", Repeat(4, parallel=2), FAST)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2_000_000


def test_tiles_give_the_same_video(tmp_path: Path, Repeat: Any, write_clip: Any) -> None:
    source = write_clip(tmp_path / "a.mp4", count=5)
    for name, tile in (("b", None), ("c", 24)):
        session = Repeat()
        upscale_video(
            source,
            tmp_path / f"{name}.mkv",
            session,
            VideoOptions(codec="ffv1", tile=tile, halo=4),
        )
        assert max(shape[2] for shape in session.shapes) == (tile or 64)
    with av.open(str(tmp_path / "b.mkv")) as one, av.open(str(tmp_path / "c.mkv")) as two:
        for a, b in zip(one.decode(video=0), two.decode(video=0), strict=True):
            np.testing.assert_array_equal(a.to_ndarray(), b.to_ndarray())


def test_progress_counts_up_to_all_frames(tmp_path: Path, Repeat: Any, write_clip: Any) -> None:
    source = write_clip(tmp_path / "a.mp4", count=40)
    seen: list[Progress] = []
    upscale_video(source, tmp_path / "b.mp4", Repeat(jitter=0.02), FAST, seen.append)
    assert len(seen) >= 2
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert {p.total for p in seen} == {40}
    assert seen[-1].done == 40
    assert seen[-1].fps > 0
