"""Pictures to calibrate on: what is found, read, skipped and refused."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from srdeploy.calib.pictures import HeldPictures, NamedPicture, as_input, load_pictures
from srdeploy.errors import DatasetError, MediaError


def test_input_is_planar_and_scaled() -> None:
    frames = np.zeros((1, 2, 3, 3), np.uint8)
    frames[0, 1, 2] = 255, 51, 0
    made = as_input(frames)
    assert made.shape == (1, 3, 2, 3)
    assert made.dtype == np.float32
    assert np.allclose(made[0, :, 1, 2], [1, 0.2, 0])
    assert made.sum() == pytest.approx(1.2)


def save(path: Path, value: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 4), (value, 0, 0)).save(path)
    return path


def test_files_and_folders_are_read_once_in_order(tmp_path) -> None:
    b = save(tmp_path / "b.png", 2)
    save(tmp_path / "in" / "a.PNG", 1)
    save(tmp_path / ".hidden.png", 3)
    (tmp_path / "notes.txt").write_text("not a picture")
    source = load_pictures([b, tmp_path])
    assert len(source) == 2
    read = list(source.read())
    assert [p.pixels[0, 0, 0] for p in read] == [2, 1]
    assert read[0].name == str(b)
    assert read[0].pixels.shape == (4, 5, 3)
    assert [p.name for p in source.read({str(b)})] == [str(b)]
    assert source.skipped == {}


def test_pictures_in_memory() -> None:
    held = HeldPictures([NamedPicture(n, np.zeros((1, 1, 3), np.uint8)) for n in "ab"])
    assert [p.name for p in held.read()] == ["a", "b"]
    assert [p.name for p in held.read({"b"})] == ["b"]


def test_what_cannot_be_read_is_said(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"no pictures found in .*empty"):
        load_pictures([tmp_path / "empty"])
    with pytest.raises(DatasetError, match="an empty list"):
        load_pictures([])
    with pytest.raises(DatasetError, match="there is no"):
        load_pictures([tmp_path / "missing.png"])
    for name, error in (("a.txt", DatasetError), ("a.png", DatasetError), ("a.mp4", MediaError)):
        (tmp_path / name).write_bytes(b"nothing of use")
        with pytest.raises(error, match=name):
            list(load_pictures([tmp_path / name]).read())


def test_damaged_files_in_a_folder_are_skipped_unless_strict(tmp_path) -> None:
    good = save(tmp_path / "good.png", 7)
    for name in ("broken.png", "broken.mp4"):
        (tmp_path / name).write_bytes(b"nothing of use")
    source = load_pictures([tmp_path])
    assert [p.name for p in source.read()] == [str(good)]
    assert set(source.skipped) == {str(tmp_path / n) for n in ("broken.png", "broken.mp4")}
    assert all(name in reason for name, reason in source.skipped.items())
    with pytest.raises(MediaError, match=r"broken\.mp4"):
        list(load_pictures([tmp_path], strict=True).read())
    with pytest.raises(DatasetError, match=r"broken\.png"):  # named beside its folder
        list(load_pictures([tmp_path, tmp_path / "broken.png"]).read())


def test_a_video_that_is_damaged_later_gives_no_frame(tmp_path) -> None:
    path = film(tmp_path / "clip.avi", 60)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    source = load_pictures([tmp_path])
    assert list(source.read()) == []
    assert list(source.skipped) == [str(path)]


def film(path: Path, length: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", 25, width=32, height=16, pix_fmt="bgr0")
        for index in range(length):
            pixels = np.full((16, 32, 3), 3 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())
    return path


def test_frames_of_a_video_are_named_and_can_be_read_again(tmp_path) -> None:
    path = film(tmp_path / "clip.mkv", 40)
    source = load_pictures([path])
    read = list(source.read())
    assert len({p.name for p in read}) == len(read) == 16
    for picture in read:
        number = int(picture.name.removeprefix(f"{path} frame ")) - 1
        assert (picture.pixels == 3 * number).all()
    assert [p.name for p in source.read({read[3].name})] == [read[3].name]


def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path) -> None:
    peaks = []
    for count in (4, 24):
        for index in range(count):
            Image.new("RGB", (400, 300), (index, 0, 0)).save(tmp_path / f"{index}.png")
        tracemalloc.start()
        for picture in load_pictures([tmp_path]).read():
            assert picture.pixels.nbytes == 360_000
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 400_000
