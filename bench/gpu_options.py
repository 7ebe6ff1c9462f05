"""The command line of :mod:`.gpu_engines`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..commands.options import words
from ..spec import Precision
from .gpu_rivals import RIVALS


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line; sizes are (width, height)."""

    targets: tuple[str, ...]
    models: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    precisions: tuple[Precision, ...]
    seconds: float
    rounds: int
    rivals: tuple[str, ...]
    golden: Path | None
    data: Path | None
    json: Path


def read_options(arguments: Sequence[str] | None) -> Options:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description="Engines on an NVIDIA GPU against what a user would run instead"
    )
    parser.add_argument("--target", action="append", dest="targets", metavar="TARGET")
    parser.add_argument("--models", type=words, default="vapsr-s,vapsr,hat-s")
    parser.add_argument("--sizes", type=sizes, default="320x180,640x360", metavar="WxH,...")
    parser.add_argument("--precisions", type=precisions, default="fp16,int8,fp32")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each contestant")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rivals", type=words, default=",".join(RIVALS))
    parser.add_argument("--golden", type=Path, metavar="DIR")
    parser.add_argument("--data", type=Path, metavar="DIR")
    parser.add_argument("--json", type=Path, default=Path("gpu_engines.json"))
    found = vars(parser.parse_args(arguments))
    found["targets"] = tuple(found["targets"] or ("tensorrt",))
    return Options(**found)


def sizes(text: str) -> tuple[tuple[int, int], ...]:
    """``WIDTHxHEIGHT,…``."""
    pairs = [tuple(map(int, word.split("x"))) for word in words(text)]
    if not pairs or any(len(pair) != 2 or min(pair) < 1 for pair in pairs):
        raise ValueError(f"expected WIDTHxHEIGHT, got '{text}'")
    return tuple((width, height) for width, height in pairs)


def precisions(text: str) -> tuple[Precision, ...]:
    """Names of precisions with commas between them."""
    return tuple(map(Precision, words(text)))
