"""What was computed, kept in a file as it comes, so that an interrupted search goes on.

A measurement is known by a digest of everything that it depends on, never by a name, so an old
one cannot be taken for another.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ..errors import OutputError
from ..files import write_bytes

METHOD = "2"
"""Part of every key: another one where the same inputs are measured otherwise than before."""


def digest_model(model: onnx.ModelProto) -> str:
    """SHA-256 of a graph and its weights, hexadecimal."""
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


class Journal:
    """Values by digest, one JSON object a line.

    Args:
        path: File to go on from and to write to; None keeps them in memory alone. A line that
            was cut off by an interruption is left out, and a file that cannot be written
            costs the resuming, not the search.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.recalled = 0
        self._known: dict[str, Any] = {}
        with contextlib.suppress(OSError, UnicodeDecodeError):
            for line in path.read_text(encoding="utf-8").splitlines() if path else ():
                self._read(line)

    def _read(self, line: str) -> None:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            entry = json.loads(line, parse_constant=_refuse)
            self._known[str(entry["key"])] = entry["value"]

    def kept(self, compute: Callable[[], Any], *parts: object) -> Any:
        """The value for ``parts``, plain JSON, computed and written down if it is not known."""
        key = _key(parts)
        if key in self._known:
            self.recalled += 1
            return self._known[key]
        value = compute()
        self._known[key] = value
        if self.path:
            with contextlib.suppress(OSError):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, "value": value}) + "\n")
        return value

    def arrays(
        self, compute: Callable[[], dict[str, NDArray[Any]]], *parts: object
    ) -> dict[str, NDArray[Any]]:
        """The same of arrays by name, in a file of their own beside the journal's."""
        file = self.path.with_suffix("") / f"{_key(parts)[:32]}.npz" if self.path else None
        if file:
            # whatever a damaged file raises, it is computed again
            with contextlib.suppress(Exception), file.open("rb") as held:
                found = dict(np.load(held, allow_pickle=False))
                self.recalled += 1
                return found
        made = compute()
        if file:
            packed = io.BytesIO()
            np.savez(packed, **made)  # type: ignore[arg-type]
            with contextlib.suppress(OSError, OutputError):
                file.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(file, packed.getvalue())
        return made


def _key(parts: Sequence[object]) -> str:
    return hashlib.sha256("\n".join(map(str, (METHOD, *parts))).encode()).hexdigest()


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} was never measured")
