from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from srdeploy import data
from srdeploy.data import CONTENT, SPLITS, Picture, bundled_onnx, bundled_weights, pictures
from srdeploy.errors import DatasetError

FOLDER = Path(data.__file__).resolve().parent
ALL = [picture for split in SPLITS for picture in pictures(split)]


def test_all_pictures_take_at_most_two_and_a_half_megabytes() -> None:
    assert sum(picture.path.stat().st_size for picture in ALL) <= 2_500_000


@pytest.mark.parametrize("split", SPLITS)
def test_each_split_holds_each_kind_of_content_and_photographs_first(split: str) -> None:
    held = pictures(split)
    assert {picture.content for picture in held} == set(CONTENT)
    drawn = [picture.drawn for picture in held]
    assert drawn == sorted(drawn)


@pytest.mark.parametrize("picture", [p for p in ALL if not p.drawn], ids=lambda p: p.name)
def test_the_content_of_a_photograph_is_what_is_measured(picture: Picture) -> None:
    plane = picture.read() @ np.array([0.299, 0.587, 0.114])
    differences = [np.abs(np.diff(plane, axis=axis)).mean() for axis in (0, 1)]
    found = "smooth" if np.mean(differences) < 4 else "textured"
    if not 80 <= plane.mean() < 128:
        found = "dark" if plane.mean() < 80 else "bright"
    assert picture.content == found


def test_the_manifest_and_the_folder_list_the_same_files() -> None:
    listed = json.loads((FOLDER / "pictures.json").read_text(encoding="utf-8"))["pictures"]
    assert sorted(p.file for p in ALL) == sorted(entry["file"] for entry in listed)
    assert sorted(p.file for p in ALL) == sorted(p.name for p in (FOLDER / "pictures").iterdir())
    assert len({p.name for p in ALL}) == len(ALL)


@pytest.mark.parametrize("picture", ALL, ids=lambda p: p.name)
def test_each_picture_is_the_one_that_the_manifest_names(picture: Picture) -> None:
    assert hashlib.sha256(picture.path.read_bytes()).hexdigest() == picture.sha256
    pixels = picture.read()
    assert pixels.dtype == np.uint8
    assert pixels.shape == (picture.height, picture.width, 3)
    assert min(pixels.shape[:2]) >= 192
    assert picture.height % 12 == picture.width % 12 == 0
    assert pixels.std() > 15, "a picture has contrast"


@pytest.mark.parametrize("picture", ALL, ids=lambda p: p.name)
def test_each_picture_is_stored_without_visible_loss(picture: Picture) -> None:
    with Image.open(picture.path) as opened:
        if opened.format == "JPEG":
            # The mean step of the luma table is below 8 from quality 93 on.
            assert np.mean(opened.quantization[0]) < 8
            sampling = {component[1:3] for component in opened.layer}
            assert sampling == {(1, 1)}, "chroma must not be subsampled"
        else:
            assert opened.format == "PNG"


@pytest.mark.parametrize("picture", ALL, ids=lambda p: p.name)
def test_each_picture_has_a_free_licence_and_an_author(picture: Picture) -> None:
    if picture.drawn:
        assert (picture.licence, picture.author) == ("MIT", "srdeploy")
        assert picture.source.startswith("srdeploy.data.drawing.")
    else:
        assert picture.licence in ("CC0 1.0", "CC BY 2.0", "Public domain")
        assert picture.licence_address.startswith("https://creativecommons.org/")
        assert picture.source.startswith("http")
    assert picture.author.strip()
    for_people = (FOLDER / "LICENSES.md").read_text(encoding="utf-8").splitlines()
    (row,) = [line for line in for_people if line.startswith(f"| `{picture.file}`")]
    assert picture.author in row
    assert picture.source in row
    assert picture.licence_address in row


def test_no_source_is_in_two_splits_and_no_split_is_empty() -> None:
    sources = [{picture.source for picture in pictures(split)} for split in SPLITS]
    assert all(sources)
    assert sum(map(len, sources)) == len(set.union(*sources))


def test_no_picture_repeats_another() -> None:
    def thumbnail(picture: Picture) -> np.ndarray:
        grey = Image.fromarray(picture.read()).convert("L").resize((32, 32))
        values = np.asarray(grey, dtype=float)
        return (values - values.mean()) / values.std()

    thumbnails = [thumbnail(picture) for picture in ALL]
    for i, first in enumerate(thumbnails):
        for second in thumbnails[i + 1 :]:
            assert (first * second).mean() < 0.8


def test_calibration_covers_dark_light_grey_and_saturated_pixels() -> None:
    pixels = np.concatenate([p.read().reshape(-1, 3) for p in pictures("calibration")])
    luma = pixels.mean(axis=1)
    saturation = pixels.max(axis=1).astype(int) - pixels.min(axis=1)
    assert min((luma < 32).mean(), (luma > 200).mean()) > 0.03
    assert min((saturation < 8).mean(), (saturation > 128).mean()) > 0.05
    assert pixels.min() == 0
    assert pixels.max() == 255


def test_an_unknown_split_is_refused_with_the_known_ones() -> None:
    with pytest.raises(DatasetError) as caught:
        pictures("test")
    assert "'test'" in caught.value.message
    assert all(split in caught.value.hint for split in SPLITS)


def test_an_altered_or_missing_file_is_noticed_on_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = ALL[0]
    content = bytearray(picture.path.read_bytes())
    monkeypatch.setattr(data, "_FOLDER", tmp_path)
    with pytest.raises(DatasetError, match="cannot be read"):
        picture.read()
    picture.path.parent.mkdir()
    content[len(content) // 2] ^= 1
    picture.path.write_bytes(content)
    with pytest.raises(DatasetError, match="altered"):
        picture.read()


def test_a_file_of_the_right_digest_but_not_a_picture_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "_FOLDER", tmp_path)
    impostor = replace(ALL[0], sha256=hashlib.sha256(b"text").hexdigest())
    impostor.path.parent.mkdir()
    impostor.path.write_bytes(b"text")
    with pytest.raises(DatasetError, match="no picture"):
        impostor.read()


def test_a_picture_of_another_size_is_refused() -> None:
    with pytest.raises(DatasetError, match="expected"):
        replace(ALL[0], width=ALL[0].width + 12).read()


@pytest.mark.parametrize(
    "change",
    [
        {"split": "training"},
        {"file": "../escape.jpg"},
        {"content": "watercolour"},
        {"width": "504"},
        {"camera": "unknown"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_damaged_manifest_is_refused(
    change: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = json.loads((FOLDER / "pictures.json").read_text(encoding="utf-8"))
    manifest["pictures"][0].update(change)
    (tmp_path / "pictures.json").write_text(json.dumps(manifest), encoding="utf-8")
    monkeypatch.setattr(data, "_FOLDER", tmp_path)
    with pytest.raises(DatasetError, match="pictures"):
        pictures("proof")


def test_a_source_in_two_splits_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = json.loads((FOLDER / "pictures.json").read_text(encoding="utf-8"))
    crop = dict(manifest["pictures"][0], file="crop.jpg", split="proof")
    manifest["pictures"].append(crop)
    (tmp_path / "pictures.json").write_text(json.dumps(manifest), encoding="utf-8")
    monkeypatch.setattr(data, "_FOLDER", tmp_path)
    with pytest.raises(DatasetError, match="two splits"):
        pictures("proof")


def test_bundled_weights_are_found_by_variant_and_only_in_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "_FOLDER", tmp_path)
    assert bundled_weights("net-x4") is None
    assert bundled_onnx("net-x4") is None
    data.weights_folder().mkdir()
    for file in ("weights/net-x4.safetensors", "weights/net-x4.onnx", "outside.safetensors"):
        (tmp_path / file).write_bytes(b"")
    assert bundled_weights("net-x4") == tmp_path / "weights" / "net-x4.safetensors"
    assert bundled_onnx("net-x4") == tmp_path / "weights" / "net-x4.onnx"
    assert bundled_weights("../outside") is None
    assert bundled_weights(str(tmp_path / "outside")) is None
    assert bundled_weights("other") is None
