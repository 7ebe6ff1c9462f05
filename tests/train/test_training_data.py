"""What a sampler is given: files of every kind, videos, and what cannot be used."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from srdeploy.commands import training_data
from srdeploy.commands.train import train_model
from srdeploy.commands.training_data import VIDEOS, frames_to_train_on, open_sampler, world_of
from srdeploy.errors import DatasetError, MediaError
from srdeploy.runtime.video.round_trip import through_h264
from srdeploy.train import picture_cache
from srdeploy.train.data import PatchSampler, find_pictures
from srdeploy.train.degradation import RealWorld
from srdeploy.train.picture_cache import Videos, open_pictures
from srdeploy.train.recipe import DEGRADATIONS
from srdeploy.validate.datasets import find_datasets
from srdeploy.validate.resize import modcrop, shrink


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SRDEPLOY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/training"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pictures"
    made.mkdir()
    return made


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def film(path: Path, scenes: list[tuple[int, bool]], gop: int = 12) -> Path:
    """A video: each scene has a length and whether its camera moves."""
    with av.open(str(path), "w") as container:
        options = {"crf": "10", "g": str(gop), "sc_threshold": "0", "bf": "0"}
        stream = container.add_stream("libx264", 25, width=96, height=64, pix_fmt="yuv420p")
        stream.options = options
        for seed, (length, moves) in enumerate(scenes):
            wide = np.random.default_rng(seed).integers(0, 256, (8, 400, 3), dtype=np.uint8)
            wide = wide.repeat(8, 0).repeat(8, 1)
            for index in range(length):
                left = 2 * index * moves
                frame = av.VideoFrame.from_ndarray(
                    np.ascontiguousarray(wide[:, left : left + 96]), "rgb24"
                )
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_videos_are_found_beside_pictures(folder: Path) -> None:
    clip = film(folder / "clip.mp4", [(30, True)])
    Image.fromarray(noise(70, 80)).save(folder / "a.png")
    (folder / ".hidden.png").write_bytes(b"of the system")
    (folder / "album.png").mkdir()
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    assert find_pictures([folder], VIDEOS) == [folder / "a.png", clip]
    assert find_pictures([folder]) == [folder / "a.png"]
    assert find_pictures([clip, folder, folder], VIDEOS) == [clip, folder / "a.png"]
    sampler = open_sampler([clip], 2, 16, None, lambda _: None)
    assert 16 <= len(sampler.pairs) <= 32
    assert sampler.pairs[0][1].shape == (64, 96, 3)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent", None, "there is no .*absent"),
        ("notes.txt", b"words", r"notes\.txt is no picture"),
        ("empty", "folder", "empty holds no pictures"),
    ],
)
def test_paths_that_give_nothing(folder: Path, name: str, content, message: str) -> None:
    Image.fromarray(noise(70, 80)).save(folder / "good.png")
    path = folder / name
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(DatasetError, match=message) as caught:
        find_pictures([folder, path], VIDEOS)
    assert ".webp" in caught.value.hint
    assert ".mp4" in caught.value.hint


def test_no_paths() -> None:
    with pytest.raises(DatasetError, match="no pictures to train on were named"):
        find_pictures([])


def rotated(path: Path) -> None:
    """Lies on its side; its EXIF says how to turn it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(upright())).save(path, exif=exif)


def upright() -> np.ndarray:
    """Left half black, right half white, and wider than high."""
    return np.concatenate([np.zeros((40, 36, 3)), np.full((40, 36, 3), 255)], 1).astype(np.uint8)


def deep(path: Path) -> None:
    values = upright()[:, :, 0].astype(np.uint16) * 257
    Image.fromarray(values).save(path)


def several(path: Path) -> None:
    first = Image.fromarray(upright())
    first.save(path, save_all=True, append_images=[Image.new("RGB", first.size)], lossless=True)


KINDS: dict[str, Callable[[Path], None]] = {
    "a.png": lambda path: Image.fromarray(upright()).save(path),
    "A.JPG": lambda path: Image.fromarray(upright()).save(path, "JPEG", quality=95),
    "a.jpeg": lambda path: Image.fromarray(upright()).convert("L").save(path, quality=95),
    "a.bmp": lambda path: Image.fromarray(upright()).save(path),
    "a.webp": lambda path: Image.fromarray(upright()).save(path, quality=95),
    "a.tif": lambda path: Image.fromarray(upright()).save(path),
    "grey.png": lambda path: Image.fromarray(upright()).convert("L").save(path),
    "bits.png": lambda path: Image.fromarray(upright()).convert("1").save(path),
    "palette.png": lambda path: Image.fromarray(upright()).convert("P").save(path),
    "alpha.png": lambda path: Image.fromarray(np.dstack([upright(), upright()[:, :, 0]])).save(
        path
    ),
    "cmyk.jpg": lambda path: Image.fromarray(upright()).convert("CMYK").save(path, quality=95),
    "16 bits.png": deep,
    "turned.jpg": rotated,
    "several.webp": several,
    "several.png": several,
}


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_kind_of_picture_is_read_right(folder: Path, name: str) -> None:
    KINDS[name](folder / name)
    opened = open_pictures(find_pictures([folder]), 2)
    assert opened.skipped == []
    ((_, high),) = opened.pairs
    assert high.shape == (40, 72, 3)
    assert np.abs(high.astype(int) - upright())[:, [*range(28), *range(44, 72)]].max() <= 12


def bomb(path: Path) -> None:
    Image.new("1", (12_000, 12_000)).save(path)


def cut(path: Path) -> None:
    Image.fromarray(noise(60, 60)).save(path)
    path.write_bytes(path.read_bytes()[:-900])


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "bomb.png": (bomb, "144000000 pixels"),
    "cut.png": (cut, "cannot be read"),
    "cut.jpg": (cut, "cannot be read"),
    "cut.webp": (cut, "cannot be read"),
    "cut.bmp": (cut, "cannot be read"),
    "nonsense.png": (lambda path: path.write_bytes(b"of no use"), "cannot be read"),
    "empty.png": (lambda path: path.touch(), "cannot be read"),
    "32 bits.tif": (lambda path: Image.new("F", (60, 60)).save(path), "32 bits a channel"),
    "tiny.png": (lambda path: Image.new("RGB", (60, 20)).save(path), "60×20 is too small"),
    "empty.mp4": (lambda path: path.touch(), r"empty\.mp4"),
    "nonsense.mkv": (lambda path: path.write_bytes(b"of no use"), r"nonsense\.mkv"),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_what_cannot_be_used_is_left_out_and_named(folder: Path, name: str) -> None:
    make, reason = BAD[name]
    make(folder / name)
    with pytest.raises(DatasetError, match=f"none of 1 files can be used: .*{reason}") as caught:
        open_sampler([folder], 2, 16, None, lambda _: None)
    assert "at least 32 pixels" in caught.value.hint
    Image.fromarray(noise(40, 40)).save(folder / "good.png")
    sampler = open_sampler([folder], 2, 16, None, lambda _: None)
    assert len(sampler.pairs) == 1
    (line,) = sampler.skipped
    assert name in line


def test_a_video_that_is_damaged_later_leaves_nothing_behind(folder: Path, cache: Path) -> None:
    """Frames before the damage are taken back; the files around it are whole."""
    first, last = noise(40, 60, 1), noise(50, 40, 2)

    def broken(path: Path) -> Iterator[tuple[int, np.ndarray]]:
        yield 1, noise(64, 96)
        raise MediaError(f"{path} is damaged")

    files = [folder / name for name in ("a.png", "b.mp4", "c.png")]
    Image.fromarray(first).save(files[0])
    files[1].touch()
    Image.fromarray(last).save(files[2])
    opened = open_pictures(files, 2, videos=Videos((".mp4",), "", broken))
    assert opened.names == [str(files[0]), str(files[2])]
    for (low, high), wanted in zip(opened.pairs, (first, last), strict=True):
        assert np.array_equal(high, wanted)
        assert np.array_equal(low, shrink(wanted, 2))
    assert opened.skipped == [f"{files[1]} is damaged"]
    (kept,) = [p for p in cache.iterdir() if p.is_dir()]
    assert (kept / picture_cache.PIXELS).stat().st_size == 3 * 1.25 * (40 * 60 + 50 * 40)


def test_videos_are_decoded_once_and_anew_under_another_rule(folder: Path) -> None:
    clip = folder / "a.mp4"
    clip.write_bytes(b"a")
    told: list[str] = []

    def videos(rule: str) -> Videos:
        def read(_: Path) -> Iterator[tuple[int, np.ndarray]]:
            told.append(rule)
            yield 7, noise(32, 32)

        return Videos((".mp4",), rule, read)

    for rule in ("one", "one", "two", "one"):
        opened = open_pictures([clip], 2, videos=videos(rule))
        assert opened.names == [f"{clip} frame 7"]
    assert told == ["one", "two"]
    clip.write_bytes(b"ab")
    open_pictures([clip], 2, videos=videos("one"))
    assert told == ["one", "two", "one"]
    Image.fromarray(noise(8, 8)).save(folder / "p.png")
    open_pictures([folder / "p.png"], 2, videos=videos("one"))
    kept = len(list((folder.parent / "cache/training").glob("*/index.json")))
    open_pictures([folder / "p.png"], 2, videos=videos("two"))  # of no matter to pictures
    assert len(list((folder.parent / "cache/training").glob("*/index.json"))) == kept


def test_frames_are_spread_over_scenes_and_unlike(tmp_path: Path) -> None:
    """Of a scene that stands still one frame is enough."""
    clip = film(tmp_path / "clip.mp4", [(60, True), (200, False), (40, True)], gop=250)
    numbers = [number for number, _ in frames_to_train_on(clip)]
    assert numbers == sorted(set(numbers))
    counts, _ = np.histogram(numbers, [1, 61, 261, 301])
    assert counts[1] == 1
    assert min(counts[0], counts[2]) >= 5
    assert len(numbers) <= training_data.MOST_FRAMES


def test_a_clip_of_a_still_picture_gives_one_frame(tmp_path: Path) -> None:
    (only,) = frames_to_train_on(film(tmp_path / "still.mp4", [(50, False)]))
    assert only[1].shape == (64, 96, 3)


def test_key_frames_are_chosen_among_where_they_are_enough(tmp_path: Path) -> None:
    """And they have the colours that decoding all of the clip gives them."""
    clip = film(tmp_path / "long.mp4", [(40, True)] * 10, gop=10)
    found = dict(frames_to_train_on(clip))
    assert len(found) == training_data.MOST_FRAMES
    assert max(found) <= 40  # counted among key frames
    every = {i + 1: p for i, p in enumerate(training_data.read_frames(clip, range(400)))}
    for number, pixels in found.items():
        assert np.array_equal(pixels, every[10 * (number - 1) + 1][1])


def test_a_damaged_clip_in_a_folder_is_left_out(folder: Path) -> None:
    clip = film(folder / "clip.mkv", [(60, True)])
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    Image.fromarray(noise(40, 40)).save(folder / "good.png")
    sampler = open_sampler([folder], 2, 16, None, lambda _: None)
    assert [high.shape for _, high in sampler.pairs] == [(40, 40, 3)]
    assert "clip.mkv" in sampler.skipped[0]


@settings(max_examples=30)
@given(
    scale=st.sampled_from([2, 3, 4]),
    patch=st.integers(8, 20),
    beyond=st.tuples(st.integers(0, 30), st.integers(0, 30)),
    real=st.booleans(),
    step=st.integers(0, 1000),
    size=st.integers(1, 4),
)
def test_patches_are_cut_from_the_picture(scale, patch, beyond, real, step, size) -> None:
    """Each HR patch is a crop of it, turned or mirrored, at a place on the grid of LR."""
    hr = noise(patch * scale + beyond[0], patch * scale + beyond[1], step)
    kept = modcrop(hr, scale)
    with pytest.MonkeyPatch.context() as patched:
        place = Path(os.environ["SRDEPLOY_CACHE"]) / "patches"
        patched.setenv("SRDEPLOY_CACHE", str(place))
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"{step}-{hr.shape}.png"
        Image.fromarray(hr).save(path)
        world = RealWorld(through_h264) if real else None
        sampler = PatchSampler([path], scale, patch, seed=step, world=world)
        low, high = sampler.batch(step, size)
        again = PatchSampler([path], scale, patch, seed=step, world=world).batch(step, size)
    assert torch.equal(low, again[0])
    assert torch.equal(high, again[1])
    assert low.shape == (size, 3, patch, patch)
    assert high.shape == (size, 3, patch * scale, patch * scale)
    assert low.dtype == high.dtype == torch.float32
    edge = patch * scale
    places = {
        (y, x): kept[y * scale :, x * scale :][:edge, :edge]
        for y in range(kept.shape[0] // scale - patch + 1)
        for x in range(kept.shape[1] // scale - patch + 1)
    }
    shrunk = shrink(kept, scale)
    for ours_low, ours_high in zip(low, high, strict=True):
        l, h = ((t * 255).round().byte().permute(1, 2, 0).numpy() for t in (ours_low, ours_high))
        found = [
            (y, x, turned, mirrored)
            for (y, x), crop in places.items()
            for turned in range(4)
            for mirrored in (False, True)
            if np.array_equal(turn(crop, turned, mirrored), h)
        ]
        assert found
        if not real:
            y, x, turned, mirrored = found[0]
            assert np.array_equal(turn(shrunk[y:, x:][:patch, :patch], turned, mirrored), l)


def turn(crop: np.ndarray, turns: int, mirrored: bool) -> np.ndarray:
    crop = np.rot90(crop, turns)
    return crop[:, ::-1] if mirrored else crop


def test_all_eight_ways_to_turn_a_patch_come_up(folder: Path) -> None:
    hr = noise(16, 16)
    Image.fromarray(hr).save(folder / "a.png")
    sampler = PatchSampler([folder / "a.png"], 2, 8)
    _, high = sampler.batch(0, 200)
    assert not torch.equal(high, sampler.batch(1, 200)[1])
    seen = {(h * 255).round().byte().numpy().tobytes() for h in high}
    assert len(seen) == 8


@pytest.mark.shared
@pytest.mark.parametrize("name", ["Set5", "Set14"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_no_pixel_of_a_sampler_differs_from_the_published_lr(
    shared: Path, name: str, scale: int
) -> None:
    (dataset,) = find_datasets(shared / "data" / name, scale)
    sampler = PatchSampler([pair.hr for pair in dataset.pairs], scale, 8)
    assert sampler.skipped == []
    for pair, (low, high) in zip(dataset.pairs, sampler.pairs, strict=True):
        published, truth = pair.read()
        assert np.count_nonzero(low != published) == 0, pair.name
        assert np.array_equal(high, truth)


@pytest.mark.parametrize("degradation", DEGRADATIONS)
def test_a_run_on_a_picture_and_a_video(tmp_path: Path, folder: Path, degradation: str) -> None:
    clip = film(folder / "clip.mp4", [(20, True)])
    Image.fromarray(noise(64, 64)).save(folder / "a.png")
    lines: list[str] = []
    scores = []
    for run in "ab":
        done = train_model(
            "vapsr-tiny",
            4,
            [folder / "a.png", clip],
            folder,
            tmp_path / run,
            True,
            None,
            None,
            lines.append,
            degradation=degradation,
            steps=2,
            batch=2,
            patch=8,
        )
        scores.append(done["psnr"])
    assert scores[0] == scores[1]
    assert lines[0].startswith("decoded 1 of 2 files")
    assert sum("decoded 2 of 2" in line for line in lines) == 1
    assert (world_of(degradation) is None) == (degradation == "bicubic")
