"""Write the drawn pictures into ``data/pictures``, and their rows into ``data/pictures.json``."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

from PIL import Image

from . import DRAWINGS, Drawing

Row = dict[str, str | int]
_FOLDER = Path(__file__).resolve().parents[1]
_OURS: Row = {
    "author": "srdeploy",
    "licence": "MIT",
    "licence_address": "https://opensource.org/license/mit",
}


def main() -> None:
    """Draw all; rows of other pictures stay as they are, and first."""
    manifest = _FOLDER / "pictures.json"
    made = {drawing.file for drawing in DRAWINGS}
    rows: list[Row] = json.loads(manifest.read_text(encoding="utf-8"))["pictures"]
    rows = [row for row in rows if row["file"] not in made]
    photographs = {Path(str(row["file"])).stem: row for row in rows}
    rows += [_write(drawing, photographs) for drawing in DRAWINGS]
    listed = json.dumps({"pictures": rows}, indent=2, ensure_ascii=False)
    manifest.write_text(listed + "\n", encoding="utf-8")


def _write(drawing: Drawing, photographs: dict[str, Row]) -> Row:
    """Write one file, and give its row; a piece keeps its photograph's author and licence."""
    content = drawing.encode()
    (_FOLDER / "pictures" / drawing.file).write_bytes(content)
    origin: Row = {**_OURS, "source": drawing.source}
    if drawing.photograph is not None:
        origin = photographs[drawing.photograph]
    with Image.open(io.BytesIO(content)) as opened:
        width, height = opened.size
    return {
        "file": drawing.file,
        "title": drawing.title,
        "sha256": hashlib.sha256(content).hexdigest(),
        "width": width,
        "height": height,
        "source": origin["source"],
        "author": origin["author"],
        "licence": origin["licence"],
        "licence_address": origin["licence_address"],
        "split": drawing.split,
        "content": drawing.content,
    }


if __name__ == "__main__":
    main()
