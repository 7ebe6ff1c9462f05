"""Training pictures are decoded once, and what is kept of them is never half there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from srdeploy.errors import OutputError
from srdeploy.train import picture_cache
from srdeploy.train.picture_cache import open_pictures
from srdeploy.validate.resize import modcrop, shrink


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SRDEPLOY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/training"


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = []
    for index, (height, width) in enumerate([(37, 50), (64, 64), (20, 90)]):
        paths.append(tmp_path / f"{index}.png")
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(paths[-1])
    return paths


def folders(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if path.is_dir()]


def whole(files: list[Path], scale: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """LR and HR, made anew."""
    pictures = [modcrop(np.asarray(Image.open(path)), scale) for path in files]
    return [(shrink(hr, scale), hr) for hr in pictures]


def equal(pictures: picture_cache.Pictures, expected: list) -> bool:
    return len(pictures.pairs) == len(expected) and all(
        np.array_equal(ours, wanted)
        for pair, both in zip(pictures.pairs, expected, strict=True)
        for ours, wanted in zip(pair, both, strict=True)
    )


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_decoded_once(cache: Path, files: list[Path], scale: int, monkeypatch) -> None:
    told: list[tuple[int, int]] = []
    first = open_pictures(files, scale, lambda *done: told.append(done))
    assert equal(first, whole(files, scale))
    assert first.names == [str(path) for path in files]
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert all(not a.flags.owndata and not a.flags.writeable for pair in first.pairs for a in pair)
    monkeypatch.setattr(picture_cache, "read_picture", None)  # must not be called
    assert equal(open_pictures(files, scale), whole(files, scale))


def test_a_changed_picture_is_decoded_again(cache: Path, files: list[Path]) -> None:
    open_pictures(files, 2)
    Image.new("RGB", (48, 40), (1, 2, 3)).save(files[1])
    assert equal(open_pictures(files, 2), whole(files, 2))
    assert len(folders(cache)) == 2


def test_what_cannot_be_used_is_named(cache: Path, files: list[Path], tmp_path: Path) -> None:
    damaged, tiny = tmp_path / "damaged.png", tmp_path / "tiny.png"
    damaged.write_bytes(files[0].read_bytes()[:100])
    Image.new("RGB", (3, 3)).save(tiny)
    for _ in ("decoded", "from the cache"):
        opened = open_pictures([damaged, *files, tiny], 4)
        assert equal(opened, whole(files, 4))
        named = zip(opened.skipped, (damaged, tiny), strict=True)
        assert all(line.startswith(str(path)) for line, path in named)


@pytest.mark.parametrize("damage", ["pixels cut", "index cut", "index of nonsense", "no pixels"])
def test_a_damaged_cache_is_made_anew(cache: Path, files: list[Path], damage: str) -> None:
    open_pictures(files, 2)
    (folder,) = folders(cache)
    pixels, index = folder / picture_cache.PIXELS, folder / picture_cache.INDEX
    if damage == "pixels cut":
        pixels.write_bytes(pixels.read_bytes()[:-1])
    elif damage == "no pixels":
        pixels.unlink()
    else:
        index.write_text("[1]" if "nonsense" in damage else index.read_text()[:-5])
    assert equal(open_pictures(files, 2), whole(files, 2))
    assert folders(cache) == [folder]


def test_a_full_disk(cache: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> list[int]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(picture_cache, "_append", full)
    with pytest.raises(OutputError, match="No space left on device") as caught:
        open_pictures(files, 2)
    assert "SRDEPLOY_CACHE" in caught.value.hint
    assert not folders(cache)


KILLED = """
import os, signal, sys
from pathlib import Path
from srdeploy.train import picture_cache
def progress(done, total):
    if done == 2:
        os.kill(os.getpid(), signal.SIGKILL)
picture_cache.open_pictures([Path(p) for p in sys.argv[1:]], 2, progress)
"""


def test_killed_while_it_decodes(cache: Path, files: list[Path], repository: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(repository / ".src")}
    command = [sys.executable, "-c", KILLED, *map(str, files)]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [p.name.endswith(".partial") for p in folders(cache)] == [True]
    assert equal(open_pictures(files, 2), whole(files, 2))
    assert [p.name.endswith(".partial") for p in folders(cache)] == [False]


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=4))
def test_any_sizes(sizes: list[tuple[int, int]]) -> None:
    rng = np.random.default_rng(len(sizes))
    made = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    with pytest.MonkeyPatch.context() as patch:
        folder = Path(os.environ["SRDEPLOY_CACHE"]) / "any" / str(hash(tuple(sizes)))
        patch.setenv("SRDEPLOY_CACHE", str(folder))
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"{index}.png" for index in range(len(made))]
        for path, pixels in zip(files, made, strict=True):
            Image.fromarray(pixels).save(path)
        opened = open_pictures(files, 2)
    large = [path for path, pixels in zip(files, made, strict=True) if min(pixels.shape[:2]) > 1]
    assert opened.names == [str(path) for path in large]
    assert equal(opened, whole(large, 2))
    assert len(opened.skipped) == len(files) - len(large)
