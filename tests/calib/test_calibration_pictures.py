"""Calibration sets: what is read, and where crops are cut."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from srdeploy.calib.pictures import (
    NamedPicture,
    as_input,
    digest,
    load_pictures,
    make_crops,
    too_small,
)
from srdeploy.errors import DatasetError, MediaError


def mapped(index: int, height: int, width: int) -> NamedPicture:
    """A picture whose pixels say where they are: (row, column, picture)."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = *np.mgrid[:height, :width], index
    return NamedPicture(f"picture {index}", pixels)


sizes = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=6)


@given(
    sizes, st.tuples(st.integers(1, 30), st.integers(1, 30)), st.integers(1, 40), st.integers(0, 9)
)
def test_crops_are_windows_and_favour_no_picture(shapes, size, count, seed) -> None:
    pictures = [mapped(i, *shape) for i, shape in enumerate(shapes)]
    usable = [i for i, (h, w) in enumerate(shapes) if h >= size[0] and w >= size[1]]
    assert too_small(pictures, size) == tuple(
        p.name for i, p in enumerate(pictures) if i not in usable
    )
    if not usable:
        with pytest.raises(DatasetError, match=f"0 of {len(pictures)} pictures"):
            make_crops(pictures, size, count, seed)
        return
    crops = make_crops(pictures, size, count, seed)
    assert crops.shape == (count, *size, 3)
    assert crops.dtype == np.uint8
    for crop in crops:
        top, left, index = crop[0, 0]
        whole = pictures[index].pixels
        assert np.array_equal(crop, whole[top : top + size[0], left : left + size[1]])
    shares = Counter(dict.fromkeys(usable, 0)) + Counter(int(c[0, 0, 2]) for c in crops)
    most = max(shares.values())
    assert most - min(shares.get(i, 0) for i in usable) <= 1
    assert np.array_equal(crops, make_crops(pictures, size, count, seed))


def test_crops_spread_over_a_picture() -> None:
    crops = make_crops([mapped(0, 240, 240)], (40, 40), 64)
    quarters = Counter((int(c[0, 0, 0]) > 100, int(c[0, 0, 1]) > 100) for c in crops)
    assert len(quarters) == 4
    assert min(quarters.values()) >= 12
    small = make_crops([mapped(0, 12, 11)], (10, 10), 60)
    assert {(int(c[0, 0, 0]), int(c[0, 0, 1])) for c in small} == set(np.ndindex(3, 2))


def test_crops_of_another_seed_differ() -> None:
    picture = [mapped(0, 100, 100)]
    first, second = (make_crops(picture, (10, 10), 5, seed) for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_no_crops_without_pictures_or_count() -> None:
    with pytest.raises(DatasetError, match="0 of 0 pictures"):
        make_crops([])
    with pytest.raises(DatasetError, match="0 of 10×10 pixels"):
        make_crops([mapped(0, 20, 20)], (10, 10), 0)


def test_digest_sees_pixels_and_shape() -> None:
    crops = np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3)
    other = crops.copy()
    other[1, 3, 5, 2] ^= 1
    seen = {digest(crops), digest(other), digest(crops.reshape(2, 6, 4, 3))}
    assert len(seen) == 3
    assert digest(np.asfortranarray(crops)) == digest(crops)


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
    read = load_pictures([b, tmp_path])
    assert [p.pixels[0, 0, 0] for p in read] == [2, 1]
    assert read[0].name == str(b)
    assert read[0].pixels.shape == (4, 5, 3)


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
            load_pictures([tmp_path / name])


@pytest.mark.parametrize("length", [1, 16, 17, 40])
def test_a_video_gives_frames_from_all_of_it(length, tmp_path) -> None:
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", 25, width=32, height=16, pix_fmt="bgr0")
        for index in range(length):
            pixels = np.full((16, 32, 3), 5 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())
    step = {1: 1, 16: 1, 17: 2, 40: 4}[length]
    read = load_pictures([path])
    assert [int(p.pixels[0, 0, 0]) for p in read] == [5 * i for i in range(0, length, step)]
    assert read[0].pixels.shape == (16, 32, 3)
    assert len({p.name for p in read}) == len(read)
