"""Before and after: a bundled photograph shrunk by 4, upscaled by bicubic and by srdeploy.

    python examples/before_after.py OUTPUT.png [PICTURE]

PICTURE is the name of a bundled proof picture, which neither calibration nor tuning has seen.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import srdeploy as sr
from PIL import Image, ImageDraw
from srdeploy import data
from srdeploy.validate.metrics import cut_border, luma, psnr
from srdeploy.validate.resize import resize, shrink

SCALE = 4
EDGE = 240  # of the window that is shown, in output pixels
ZOOM = 2


def upscaled(low: np.ndarray) -> np.ndarray:
    """What the engine that ``build-engine`` takes by default makes of it."""
    with tempfile.TemporaryDirectory() as folder:
        onnx = sr.export_onnx("vapsr", Path(folder) / "net.onnx", say=print)
        engine = sr.build_engine(onnx, Path(folder) / "net.engine", say=print)
        with sr.open_engine(engine) as session:
            large: np.ndarray = session.upscale(low[None])[0]
            return large


def busiest(picture: np.ndarray) -> tuple[int, int]:
    """Top left corner of the window with the most fine structure."""
    plane = luma(picture)
    detail = np.abs(np.diff(plane, axis=0))[:, :-1] + np.abs(np.diff(plane, axis=1))[:-1]
    corners = [
        (y, x)
        for y in range(0, detail.shape[0] - EDGE, 24)
        for x in range(0, detail.shape[1] - EDGE, 24)
    ]
    return max(corners, key=lambda c: detail[c[0] : c[0] + EDGE, c[1] : c[1] + EDGE].sum())


def main() -> None:
    """Write the comparison."""
    output, name = Path(sys.argv[1]), (sys.argv[2:] or ["china"])[0]
    high = next(p for p in data.pictures("proof") if p.name == name).read()
    low = shrink(high, SCALE)
    made = {"bicubic": resize(low, *high.shape[:2]), "srdeploy": upscaled(low), "original": high}
    y, x = busiest(high)
    side = EDGE * ZOOM
    sheet = Image.new("RGB", (3 * side + 16, side + 28), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (label, picture) in enumerate(made.items()):
        window = Image.fromarray(picture[y : y + EDGE, x : x + EDGE])
        sheet.paste(window.resize((side, side), Image.Resampling.NEAREST), (i * (side + 8), 28))
        if label != "original":
            quality = psnr(cut_border(luma(picture), SCALE), cut_border(luma(high), SCALE))
            label = f"{label}, {quality:.2f} dB on the whole picture"
        draw.text((i * (side + 8) + 4, 6), label, fill="black", font_size=16)
    sheet.save(output)


if __name__ == "__main__":
    main()
