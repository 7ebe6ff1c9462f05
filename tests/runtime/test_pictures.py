from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from srdeploy.errors import EngineError, Interrupted, MediaError
from srdeploy.runtime.pictures import default_output, is_picture, upscale_folder, upscale_picture
from srdeploy.runtime.session import Frames, Session

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
QUALITY: dict[str, dict[str, int]] = {".jpg": {"quality": 98}}


class Repeat(Session):
    scale, target, parallel = 2, "test", 2

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def _upscale(self, frames: Frames) -> Frames:
        self.shapes.append(frames.shape)
        return frames.repeat(2, 1).repeat(2, 2)


def smooth(height: int = 20, width: int = 30) -> Frames:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 8, y * 10, 255 - x * 4], -1).astype(np.uint8)


def grown(pixels: Any) -> Any:
    return np.asarray(pixels).repeat(2, 0).repeat(2, 1)


def run(path: Path, ending: str = ".png", **options: Any) -> tuple[Image.Image, tuple[str, ...]]:
    output = path.with_name(f"out{ending}")
    result = upscale_picture(path, output, Repeat(), **options)
    image = Image.open(output)
    image.load()
    assert image.size == (result.width, result.height)
    return image, result.notes


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif", ".TIFF"])
def test_lossless_kinds_keep_every_pixel(tmp_path: Path, ending: str) -> None:
    source = tmp_path / f"in{ending}"
    Image.fromarray(smooth()).save(source)
    image, notes = run(source, ending)
    np.testing.assert_array_equal(np.asarray(image), grown(smooth()))
    assert notes == ()


@pytest.mark.parametrize("ending", [".jpg", ".jpeg", ".webp"])
def test_lossy_kinds_stay_close(tmp_path: Path, ending: str) -> None:
    source = tmp_path / f"in{ending}"
    Image.fromarray(smooth()).save(source, quality=98)
    image, _ = run(source, ending)
    difference = np.asarray(image).astype(int) - grown(Image.open(source).convert("RGB"))
    assert np.abs(difference).mean() < 4


def test_orientation_is_applied_and_the_rest_of_exif_kept(tmp_path: Path) -> None:
    source = tmp_path / "in.jpg"
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    exif.get_ifd(0x8769)[0xA002], exif.get_ifd(0x8769)[0xA003] = 30, 20
    exif.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    Image.fromarray(smooth()).save(source, exif=exif, quality=98, icc_profile=SRGB)
    for ending in (".jpg", ".png", ".webp", ".tif"):
        image, notes = run(source, ending)
        assert image.size == (40, 60)  # turned
        turned = np.rot90(smooth(), -1)
        assert np.abs(np.asarray(image.convert("RGB")).astype(int) - grown(turned)).mean() < 4
        kept = image.getexif()
        assert kept.get(0x0112, 1) == 1
        assert kept[0x010F] == "Maker"
        camera = kept.get_ifd(0x8769)
        assert (camera[0xA002], camera[0xA003]) == (40, 60)
        assert camera[0x9003] == "2020:01:02 03:04:05"
        assert image.info["icc_profile"] == SRGB
        assert notes == ()
    _, notes = run(source, ".bmp")
    assert len(notes) == 2  # BMP holds neither


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", [".png", ".tif", ".jpg"])
def test_every_orientation_is_applied_once(tmp_path: Path, orientation: int, ending: str) -> None:
    source = tmp_path / f"in{ending}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(smooth()).save(source, exif=exif.tobytes(), **QUALITY.get(ending, {}))
    image, notes = run(source)
    turns = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a),
    }
    expected = grown(turns[orientation](smooth()))
    assert np.abs(np.asarray(image).astype(int) - expected).mean() < 4
    assert image.getexif().get(0x0112, 1) == 1
    assert notes == ()


def test_transparency_is_upscaled_beside_the_colours(tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    alpha = np.tile(np.linspace(0, 255, 30).astype(np.uint8), (20, 1))
    Image.fromarray(np.dstack([smooth(), alpha])).save(source)
    for ending in (".png", ".tif"):
        image, notes = run(source, ending)
        assert image.mode == "RGBA"
        # the colours under full transparency are the picture's own, not black
        np.testing.assert_array_equal(np.asarray(image)[..., :3], grown(smooth()))
        assert np.abs(np.asarray(image)[..., 3].astype(int) - grown(alpha)).max() <= 6
        assert notes == ()
    image, _ = run(source, ".webp")
    assert image.mode == "RGBA"
    image, notes = run(source, ".jpg")
    assert image.mode == "RGB"
    assert any("transparency" in note for note in notes)


def test_palette_and_greyscale_become_rgb(tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    grey = smooth()[..., 0]
    Image.fromarray(grey).save(source)
    image, notes = run(source)
    np.testing.assert_array_equal(np.asarray(image), np.stack([grown(grey)] * 3, -1))
    assert notes == ("greyscale was converted to RGB",)
    palette = Image.fromarray(smooth()).quantize(16)
    palette.save(source, transparency=3)
    image, notes = run(source)
    assert image.mode == "RGBA"
    np.testing.assert_array_equal(np.asarray(image)[..., :3], grown(palette.convert("RGB")))
    clear = grown(np.asarray(palette) == 3)
    assert np.asarray(image)[..., 3][clear].mean() < 90 < np.asarray(image)[..., 3][~clear].mean()
    assert "palette was converted to RGB" in notes
    Image.fromarray(grey > 100).save(source)
    image, notes = run(source)
    assert set(np.unique(np.asarray(image))) == {0, 255}


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    deep = np.tile(np.linspace(0, 65535, 30).astype(np.uint16), (20, 1))
    Image.fromarray(deep).save(source)
    image, notes = run(source)
    expected = grown(np.round(deep / 257))
    assert np.abs(np.asarray(image)[..., 0] - expected).max() <= 1
    assert any("16 bits" in note for note in notes)
    tiff = tmp_path / "in.tif"
    Image.fromarray(deep).save(tiff)
    image, _ = run(tiff)
    assert np.abs(np.asarray(image)[..., 0] - expected).max() <= 1


def test_sixteen_bit_colour_is_noted(tmp_path: Path) -> None:
    """Pillow opens it as 8 bits without a word."""
    source = tmp_path / "in.png"
    rows = b"".join(b"\0" + (smooth()[y].astype(">u2") * 257).tobytes() for y in range(20))

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 30, 20, 16, 2, 0, 0, 0)
    source.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    image, notes = run(source)
    np.testing.assert_array_equal(np.asarray(image), grown(smooth()))
    assert notes == ("the source has 16 bits, the output 8",)


def test_cmyk_becomes_rgb_and_its_profile_is_not_kept(tmp_path: Path) -> None:
    source = tmp_path / "in.jpg"
    inks = Image.fromarray(smooth()).convert("CMYK")
    inks.save(source, quality=98, icc_profile=b"not a profile at all" * 10)
    image, notes = run(source)
    assert np.abs(np.asarray(image).astype(int) - grown(smooth())).mean() < 4
    assert "icc_profile" not in image.info
    assert "CMYK was converted to RGB" in notes
    assert any("damaged" in note for note in notes)


def test_a_profile_for_grey_is_not_put_on_rgb(tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    grey_profile = bytearray(SRGB)
    grey_profile[16:20] = b"GRAY"
    Image.fromarray(smooth()[..., 0]).save(source, icc_profile=bytes(grey_profile))
    image, notes = run(source)
    assert "icc_profile" not in image.info
    assert any("not for RGB" in note for note in notes)


def test_only_the_first_picture_of_several_is_taken_and_that_is_said(tmp_path: Path) -> None:
    source = tmp_path / "in.tif"
    first, second = Image.fromarray(smooth()), Image.fromarray(255 - smooth())
    first.save(source, save_all=True, append_images=[second])
    image, notes = run(source)
    np.testing.assert_array_equal(np.asarray(image), grown(smooth()))
    assert notes == ("only the first of 2 pictures in the file was taken",)


def test_tiles_change_no_pixel(tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    Image.fromarray(smooth(50, 70)).save(source)
    session = Repeat()
    upscale_picture(source, tmp_path / "out.png", session, tile=24, halo=4)
    assert set(session.shapes) == {(1, 24, 24, 3)}
    np.testing.assert_array_equal(
        np.asarray(Image.open(tmp_path / "out.png")), grown(smooth(50, 70))
    )


def broken_files(folder: Path) -> dict[str, Path]:
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(
        data, "PNG"
    )
    whole = data.getvalue()
    jpeg = io.BytesIO()
    Image.fromarray(smooth(200, 200)).save(jpeg, "JPEG")
    cut = jpeg.getvalue()[: len(jpeg.getvalue()) // 2]
    flipped = bytearray(whole)
    flipped[100] ^= 0xFF
    contents = {
        "empty.png": b"",
        "text.png": b"hello " * 100,
        "truncated.png": whole[: len(whole) // 2],
        "flipped.png": bytes(flipped),
        "truncated.jpg": cut,
        "header.tif": b"II*\0\x08\0\0\0\xff\xff",
        "header.webp": b"RIFF\x10\0\0\0WEBPVP8 ",
        "header.bmp": b"BM\0\0",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


def test_damaged_pictures_are_errors_and_leave_nothing(tmp_path: Path) -> None:
    for path in broken_files(tmp_path).values():
        with pytest.raises(MediaError, match=r"damaged|not a picture") as caught:
            upscale_picture(path, tmp_path / "out.png", Repeat())
        assert str(path) in caught.value.message
        assert caught.value.hint
        assert not (tmp_path / "out.png").exists()


def test_sources_and_outputs_that_cannot_be(tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    Image.fromarray(smooth()).save(source)
    cases = [
        (tmp_path / "none.png", tmp_path / "out.png", "does not exist"),
        (tmp_path, tmp_path / "out.png", "is not a file"),
        (source, source, "is the source itself"),
        (source, tmp_path / "out.gif", "cannot be written as '.gif'"),
        (source, tmp_path / "no" / "out.png", "there is no folder"),
        (source, tmp_path / "out.mp4", "cannot be written as '.mp4'"),
        (source, tmp_path, "is a folder"),
    ]
    for given, output, match in cases:
        with pytest.raises(MediaError, match=match):
            upscale_picture(given, output, Repeat())
    np.testing.assert_array_equal(np.asarray(Image.open(source)), smooth())


def test_floating_point_values_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.tif"
    Image.fromarray(np.zeros((8, 8), np.float32)).save(source)
    with pytest.raises(MediaError, match="floating-point"):
        upscale_picture(source, tmp_path / "out.png", Repeat())


def test_a_failing_write_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = tmp_path / "in.png", tmp_path / "out.png"
    Image.fromarray(smooth()).save(source)
    output.write_bytes(b"before")

    def full(self: Path, data: Any) -> int:
        with self.open("wb") as file:
            file.write(bytes(data)[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(MediaError, match="No space left"):
        upscale_picture(source, output, Repeat())
    assert output.read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_picture_too_large_for_its_kind_is_an_error(tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    Image.fromarray(smooth(4, 9000)).save(source)
    with pytest.raises(MediaError, match="WEBP cannot hold"):
        upscale_picture(source, tmp_path / "out.webp", Repeat())
    assert not (tmp_path / "out.webp").exists()


def test_a_folder_is_done_whole_and_its_failures_named(tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("b.png", "a.jpg", "c.WEBP"):
        Image.fromarray(smooth()).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    (folder / "sub").mkdir()
    seen: list[tuple[int, int]] = []
    results = upscale_folder(folder, output, Repeat(), progress=lambda *s: seen.append(s))
    assert [r.output.name for r in results] == ["a.jpg", "b.png", "c.WEBP"]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert sorted(p.name for p in output.iterdir()) == ["a.jpg", "b.png", "c.WEBP"]
    broken = broken_files(folder)
    with pytest.raises(MediaError, match="8 of 11 pictures failed") as caught:
        upscale_folder(folder, tmp_path / "again", Repeat())
    assert all(name in caught.value.message for name in broken)
    assert sorted(p.name for p in (tmp_path / "again").iterdir()) == ["a.jpg", "b.png", "c.WEBP"]


def test_a_failing_engine_ends_a_folder_at_once(tmp_path: Path) -> None:
    class Broken(Repeat):
        def _upscale(self, frames: Frames) -> Frames:
            raise EngineError("device lost")

    Image.fromarray(smooth()).save(tmp_path / "a.png")
    with pytest.raises(EngineError):
        upscale_folder(tmp_path, tmp_path / "out", Broken())
    assert list((tmp_path / "out").iterdir()) == []


def test_folders_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="holds no picture"):
        upscale_folder(tmp_path, tmp_path / "out", Repeat())
    with pytest.raises(MediaError, match="is not a folder"):
        upscale_folder(tmp_path / "none", tmp_path / "out", Repeat())
    Image.fromarray(smooth()).save(tmp_path / "a.png")
    with pytest.raises(MediaError, match="is the source itself"):
        upscale_folder(tmp_path, tmp_path, Repeat())
    with pytest.raises(MediaError, match="could not be made"):
        upscale_folder(tmp_path, tmp_path / "x" / "y", Repeat())


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.png", "OUT.JPG"])
def test_a_folder_gets_no_name_of_a_file(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(smooth()).save(folder / "a.png")
    with pytest.raises(MediaError, match=r"the name of a file.*gives a folder") as caught:
        upscale_folder(folder, tmp_path / name, Repeat())
    assert "name a folder" in caught.value.hint
    assert not (tmp_path / name).exists()
    (tmp_path / name).mkdir()  # whoever made it means it
    assert len(upscale_folder(folder, tmp_path / name, Repeat())) == 1
    (tmp_path / "photos.2024").mkdir()
    assert len(upscale_folder(folder, tmp_path / "photos.2024", Repeat())) == 1


def test_a_file_is_in_the_place_of_the_folder(tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    Image.fromarray(smooth()).save(folder / "a.png")
    output.write_bytes(b"before")
    with pytest.raises(MediaError, match=r"out is a file.*gives a folder") as caught:
        upscale_folder(folder, output, Repeat())
    assert "name a folder" in caught.value.hint
    assert output.read_bytes() == b"before"


def test_an_interruption_says_which_pictures_are_there(tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in "abc":
        Image.fromarray(smooth()).save(folder / f"{name}.png")

    def interrupt(done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="interrupted; 2 of 3 pictures are in") as caught:
        upscale_folder(folder, output, Repeat(), progress=interrupt)
    assert str(output) in caught.value.message
    assert sorted(p.name for p in output.iterdir()) == ["a.png", "b.png"]


def test_names(tmp_path: Path) -> None:
    assert default_output(Path("a/b.c.JPG"), 4) == Path("a/b.c_x4.JPG")
    assert default_output(tmp_path, 2) == tmp_path.with_name(f"{tmp_path.name}_x2")
    assert is_picture(Path("a.PNG"))
    assert not is_picture(Path("a.mp4"))
