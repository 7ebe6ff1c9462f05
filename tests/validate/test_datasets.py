"""Finding and reading test sets: the three layouts, and everything that can be wrong."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from srdeploy.errors import DatasetError
from srdeploy.validate.datasets import Pair, find_datasets, read_picture
from srdeploy.validate.resize import modcrop, shrink


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def save(path: Path, pixels: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def make_set(
    folder: Path, names: tuple[str, ...] = ("one", "two"), scales: tuple[int, ...] = (4,)
) -> None:
    for seed, name in enumerate(names):
        hr = picture(42, 50, seed)
        save(folder / "HR" / f"{name}.png", hr)
        for scale in scales:
            lr = shrink(modcrop(hr, scale), scale)
            save(folder / "LR_bicubic" / f"X{scale}" / f"{name}x{scale}.png", lr)


def test_a_folder_of_data_sets(tmp_path: Path) -> None:
    for name in ("Set14", "Set5"):
        make_set(tmp_path / name)
    save(tmp_path / "train" / "T91" / "t1.png", picture(8, 8))
    (tmp_path / "video").mkdir()
    save(tmp_path / "logo.png", picture(8, 8))
    datasets = find_datasets(tmp_path, 4)
    assert [d.name for d in datasets] == ["Set5", "Set14"]
    assert [p.name for p in datasets[0].pairs] == ["one", "two"]
    first = datasets[0].pairs[0]
    assert first.hr == tmp_path / "Set5" / "HR" / "one.png"
    assert first.lr == tmp_path / "Set5" / "LR_bicubic" / "X4" / "onex4.png"


def test_one_data_set(tmp_path: Path) -> None:
    make_set(tmp_path / "Mine", scales=(2, 4))
    (dataset,) = find_datasets(tmp_path / "Mine", 2)
    assert dataset.name == "Mine"
    lr, hr = dataset.pairs[1].read()
    assert (lr.shape, hr.shape) == ((21, 25, 3), (42, 50, 3))
    assert lr.dtype == hr.dtype == np.uint8
    assert np.array_equal(hr, picture(42, 50, 1))


def test_a_folder_of_hr_pictures(tmp_path: Path) -> None:
    hr = picture(47, 54)
    save(tmp_path / "b10.png", hr)
    save(tmp_path / "b9.PNG", picture(60, 60))
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".b9.png").write_bytes(b"what some file systems leave")
    (dataset,) = find_datasets(tmp_path, 4)
    assert [(p.name, p.lr) for p in dataset.pairs] == [("b9", None), ("b10", None)]
    lr, cropped = dataset.pairs[1].read()
    assert np.array_equal(cropped, hr[:44, :52])
    assert np.array_equal(lr, shrink(hr[:44, :52], 4))


def test_published_lr_is_read_and_not_made(tmp_path: Path) -> None:
    make_set(tmp_path)
    other = picture(10, 12, 9)
    save(tmp_path / "LR_bicubic" / "X4" / "onex4.png", other)
    (dataset,) = find_datasets(tmp_path, 4)
    assert np.array_equal(dataset.pairs[0].read()[0], other)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere is not a folder") as caught:
        find_datasets(tmp_path / "nowhere", 4)
    assert "--data" in caught.value.hint


@pytest.mark.parametrize("inside", [".", "HR", "Set/HR"])
def test_a_folder_without_pictures(tmp_path: Path, inside: str) -> None:
    (tmp_path / inside).mkdir(parents=True, exist_ok=True)
    (tmp_path / inside / "readme.txt").write_text("none")
    with pytest.raises(DatasetError, match="holds no pictures") as caught:
        find_datasets(tmp_path, 4)
    assert ".png" in caught.value.hint


def test_a_missing_scale_names_those_that_are_here(tmp_path: Path) -> None:
    make_set(tmp_path / "Set5", scales=(2, 4, 12))
    (tmp_path / "Set5" / "LR_bicubic" / "old").mkdir()
    with pytest.raises(DatasetError, match=r"Set5 has no .* scale 3; its scales: 2, 4, 12") as e:
        find_datasets(tmp_path, 3)
    assert str(tmp_path / "Set5" / "HR") in e.value.hint
    (way_out,) = find_datasets(tmp_path / "Set5" / "HR", 3)
    assert way_out.pairs[0].read()[0].shape == (14, 16, 3)


def test_no_lr_at_all(tmp_path: Path) -> None:
    save(tmp_path / "HR" / "a.png", picture(30, 30))
    with pytest.raises(DatasetError, match="its scales: none"):
        find_datasets(tmp_path, 4)


def test_pictures_that_do_not_pair_are_named(tmp_path: Path) -> None:
    make_set(tmp_path, tuple("abcdefgh"))
    for name in "bcdefgh":
        (tmp_path / "LR_bicubic" / "X4" / f"{name}x4.png").unlink()
    with pytest.raises(DatasetError, match=r"HR pictures without LR in X4: b, c, .* and 2 more"):
        find_datasets(tmp_path, 4)
    for name in "bcdefgh":
        (tmp_path / "HR" / f"{name}.png").unlink()
    save(tmp_path / "LR_bicubic" / "X4" / "lonelyx4.png", picture(9, 9))
    with pytest.raises(DatasetError, match="LR pictures in X4 without HR: lonely"):
        find_datasets(tmp_path, 4)


def test_two_pictures_of_one_name(tmp_path: Path) -> None:
    save(tmp_path / "a.png", picture(30, 30))
    save(tmp_path / "a.bmp", picture(30, 30))
    with pytest.raises(DatasetError, match=r"a\.bmp and a\.png"):
        find_datasets(tmp_path, 4)


@pytest.mark.parametrize("size", [(10, 11), (11, 13), (12, 11)])
def test_sizes_that_do_not_fit(tmp_path: Path, size: tuple[int, int]) -> None:
    hr = save(tmp_path / "hr.png", picture(44, 48))
    lr = save(tmp_path / "lr.png", picture(*size))
    message = rf"lr\.png has {size[1]}×{size[0]} pixels, .* 4 is not the 48×44 of .*hr\.png"
    with pytest.raises(DatasetError, match=message) as caught:
        Pair("hr", hr, lr, 4).read()
    assert "12×11" in caught.value.hint


@pytest.mark.parametrize(("edge", "fits"), [(19, False), (20, True), (3, False), (1, False)])
def test_pictures_too_small_for_ssim(tmp_path: Path, edge: int, fits: bool) -> None:
    pair = Pair("p", save(tmp_path / "p.png", picture(edge, 40)), None, 4)
    if fits:
        assert pair.read()[1].shape == (20, 40, 3)
        return
    with pytest.raises(DatasetError, match=f"40×{edge} pixels, too few .* scale 4") as caught:
        pair.read()
    assert "needs 19" in caught.value.hint


def grey_16() -> Image.Image:
    return Image.fromarray(np.array([[0, 255, 256, 0x1234, 0xFFFF]], np.uint16))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Image.fromarray(np.array([[0, 7, 255]], np.uint8)), [[0] * 3, [7] * 3, [255] * 3]),
        (grey_16, [[0] * 3, [0] * 3, [1] * 3, [0x12] * 3, [255] * 3]),
        (lambda: Image.new("RGBA", (1, 1), (1, 2, 3, 0)), [[1, 2, 3]]),
        (lambda: Image.new("LA", (1, 1), (9, 0)), [[9, 9, 9]]),
        (lambda: Image.new("1", (1, 1), 1), [[255, 255, 255]]),
        (lambda: Image.new("RGB", (1, 1), (5, 6, 7)).quantize(2), [[5, 6, 7]]),
        (lambda: Image.new("RGBA", (1, 1), (5, 6, 7, 99)).quantize(2), [[5, 6, 7]]),
    ],
    ids=["grey", "grey16", "rgba", "grey+alpha", "bits", "palette", "palette+alpha"],
)
def test_every_kind_of_png_becomes_rgb(
    tmp_path: Path, make: Callable[[], Image.Image], expected: list[list[int]]
) -> None:
    make().save(tmp_path / "p.png")
    pixels = read_picture(tmp_path / "p.png")
    assert pixels.dtype == np.uint8
    assert pixels[0].tolist() == expected


def test_transparency_in_a_palette_is_dropped(tmp_path: Path) -> None:
    paletted = Image.new("RGB", (2, 1), (5, 6, 7)).quantize(2)
    paletted.save(tmp_path / "p.png", transparency=b"\x00\x80")
    assert read_picture(tmp_path / "p.png")[0].tolist() == [[5, 6, 7]] * 2


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bits_are_refused(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (2, 2), 70000).save(tmp_path / "p.tif")
    with pytest.raises(DatasetError, match=rf"p\.tif .* 32 bits a channel \(mode {mode}\)"):
        read_picture(tmp_path / "p.tif")


def test_a_picture_of_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "p.png", picture(9, 9))
    for limit in (50, 20):  # Pillow warns over the limit and refuses over twice the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DatasetError, match=r"p\.png cannot be read.*81 pixels"):
            read_picture(path)


@given(data=st.data(), form=st.sampled_from(["PNG", "JPEG", "BMP", "TIFF", "WEBP"]))
def test_a_damaged_picture_is_read_or_named(
    data: st.DataObject, form: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture(9, 13)).save(buffer, form)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    kept = bytes(content[: data.draw(st.integers(0, len(content)))])
    path = tmp_path_factory.mktemp("damaged") / f"p.{form.lower()}"
    path.write_bytes(kept)
    try:
        pixels = read_picture(path)
    except DatasetError as error:
        named = error.message
    else:
        named = str(path)
        assert (pixels.dtype, pixels.ndim, pixels.shape[2]) == (np.uint8, 3, 3)
    assert str(path) in named


def test_half_a_picture_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "half.png", picture(40, 40))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DatasetError, match=r"half\.png cannot be read"):
        Pair("half", path, None, 4).read()


@pytest.mark.shared
def test_the_test_sets_of_the_literature(shared: Path) -> None:
    found = {d.name: len(d.pairs) for d in find_datasets(shared / "data", 4)}
    assert found == {"Set5": 5, "Set14": 14, "BSD100": 100}
    (alone,) = find_datasets(shared / "data" / "Set5", 3)
    assert [p.name for p in alone.pairs] == ["baby", "bird", "butterfly", "head", "woman"]
    with pytest.raises(DatasetError, match="BSD100 has no LR pictures of scale 2; its scales: 4"):
        find_datasets(shared / "data", 2)


@pytest.mark.shared
def test_every_picture_of_set14_pairs(shared: Path) -> None:
    (dataset,) = find_datasets(shared / "data" / "Set14", 3)
    for pair in dataset.pairs:  # bridge is greyscale, most HR are no multiple of 3
        lr, hr = pair.read()
        assert hr.shape == (lr.shape[0] * 3, lr.shape[1] * 3, 3)
