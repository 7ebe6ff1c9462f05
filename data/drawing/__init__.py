"""The bundled pictures that are made by code: drawings, and pieces of bundled photographs.

A network quantised to int8 loses most on smooth, bright, saturated and drawn content, so every
split holds each kind. Nothing is random: seeds are fixed, and the same libraries give the same
pixels. ``python -m srdeploy.data.drawing`` writes the files and their rows of the manifest.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import (
    dashboard,
    flat,
    gradient,
    grain,
    line_art,
    photographs,
    portrait,
    saturated,
    screen,
    text,
)

QUALITY = 94
"""Of a JPEG, without chroma subsampling; noise would make a PNG three times as large."""


@dataclass(frozen=True)
class Drawing:
    """A picture that code makes.

    Attributes:
        file: Its name in ``data/pictures``; the ending says PNG or JPEG.
        split: One of ``data.SPLITS``.
        content: One of ``data.CONTENT``.
        title: For the attribution.
        draw: Makes the pixels, H×W×3 uint8 RGB.
        photograph: Name of the bundled photograph that it is a piece of, None for a drawing.
    """

    file: str
    split: str
    content: str
    title: str
    draw: Callable[[], NDArray[np.uint8]]
    photograph: str | None = None

    def encode(self) -> bytes:
        """Draw, and give the content of the file."""
        made, image = io.BytesIO(), Image.fromarray(self.draw())
        if self.file.endswith(".png"):
            image.save(made, "PNG", optimize=True)
        else:
            image.save(made, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
        return made.getvalue()

    @property
    def source(self) -> str:
        """The function that draws it."""
        return f"{self.draw.__module__}.{self.draw.__name__}"


DRAWINGS = (
    Drawing(
        "astronaut_bright.jpg",
        "calibration",
        "bright",
        "Eileen Collins, overexposed",
        photographs.bright_astronaut,
        "astronaut",
    ),
    Drawing(
        "coffee_bright.jpg",
        "tuning",
        "bright",
        "Coffee cup, overexposed",
        photographs.bright_coffee,
        "coffee",
    ),
    Drawing(
        "flower_smooth.jpg",
        "tuning",
        "smooth",
        "flower.jpg, its background",
        photographs.smooth_flower,
        "flower",
    ),
    Drawing(
        "chelsea_bright.jpg",
        "proof",
        "bright",
        "Chelsea the cat, overexposed",
        photographs.bright_chelsea,
        "chelsea",
    ),
    Drawing(
        "rocket_smooth.jpg",
        "proof",
        "smooth",
        "Falcon 9, the sky around its tip",
        photographs.smooth_rocket,
        "rocket",
    ),
    Drawing("line_art_house.png", "calibration", "line art", "House on a hill", line_art.house),
    Drawing("text_article.png", "calibration", "text", "Green Ferry", text.article),
    Drawing("screen_files.png", "calibration", "screen", "File manager", screen.files),
    Drawing("saturated_tulips.png", "calibration", "saturated", "Tulips", saturated.tulips),
    Drawing("saturated_chart.png", "calibration", "saturated", "Colour chart", saturated.chart),
    Drawing("saturated_hues.png", "calibration", "saturated", "Hues", saturated.hues),
    Drawing("grain_valley.jpg", "calibration", "grain", "Valley at dusk", grain.valley),
    Drawing("flat_room.png", "calibration", "flat", "Black sofa", flat.room),
    Drawing("gradient_sunset.png", "calibration", "gradient", "Sunset", gradient.sunset),
    Drawing("line_art_robot.png", "tuning", "line art", "Robot", line_art.robot),
    Drawing("text_departures.png", "tuning", "text", "Departures", text.departures),
    Drawing("screen_editor.png", "tuning", "screen", "Code editor", screen.editor),
    Drawing("saturated_neon.png", "tuning", "saturated", "Neon signs", saturated.neon),
    Drawing("saturated_ball.png", "tuning", "saturated", "Beach ball", saturated.ball),
    Drawing("grain_lamp.jpg", "tuning", "grain", "Street lamp", grain.lamp),
    Drawing("flat_snow.png", "tuning", "flat", "Barn in the snow", flat.snow),
    Drawing("gradient_bokeh.png", "tuning", "gradient", "Glass of wine", gradient.bokeh),
    Drawing("line_art_girl.png", "proof", "line art", "Girl with blue hair", portrait.girl),
    Drawing("text_menu.png", "proof", "text", "Menu", text.menu),
    Drawing("screen_dashboard.png", "proof", "screen", "Sales this week", dashboard.dashboard),
    Drawing("saturated_balloons.png", "proof", "saturated", "Balloons", saturated.balloons),
    Drawing("grain_lighthouse.jpg", "proof", "grain", "Lighthouse", grain.lighthouse),
    Drawing("flat_desk.png", "proof", "flat", "Desk", flat.desk),
    Drawing("gradient_balls.png", "proof", "gradient", "Glossy balls", gradient.balls),
)
