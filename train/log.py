"""The log of a run: a CSV file of losses, rates and PSNR that follows its checkpoint."""

from __future__ import annotations

import csv
import io
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from ..errors import OutputError, TrainingError
from ..files import write_bytes


@dataclass(frozen=True)
class Row:
    """What a run did since the row before.

    Attributes:
        step: Steps done.
        loss: Mean of the steps since the last row.
        rate: Learning rate of the last of them.
        psnr: Mean over the validation pictures, dB; None between two validations.
        speed: Patches a second.
        seconds: Since the run began, its pauses left out.
    """

    step: int
    loss: float
    rate: float
    psnr: float | None
    speed: float
    seconds: float


HEADS = [f.name for f in fields(Row)]


class Log:
    """Rows in a file; what is written stays when the process is killed.

    Args:
        path: CSV file; its folder is made with the first row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def go_on_from(self, step: int) -> None:
        """Forget the rows after ``step``: they are done again.

        Raises:
            OutputError: The file cannot be written.
        """
        if self.path.exists():
            kept = [row for row in self.rows() if row.step <= step]
            write_bytes(self.path, _text([HEADS, *map(_cells, kept)]).encode())

    def add(self, row: Row) -> None:
        """Write one row at the end.

        Raises:
            OutputError: The disk is full, or the folder read-only.
        """
        lines = [_cells(row)] if self.path.exists() else [HEADS, _cells(row)]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(_text(lines))  # one write: a row is there or not
        except OSError as exc:
            raise OutputError(f"{self.path} could not be written: {exc.strerror or exc}") from exc

    def rows(self) -> list[Row]:
        """All rows; one that was cut off while it was written is left out.

        Raises:
            TrainingError: The file is not such a log.
        """
        if not self.path.exists():
            return []
        try:
            table = list(csv.reader(io.StringIO(self.path.read_text("utf-8"))))
        except (OSError, UnicodeDecodeError, csv.Error) as exc:
            raise _foreign(self.path) from exc
        if table[:1] != [HEADS]:
            raise _foreign(self.path)
        found = []
        for cells in table[1:]:
            try:
                step, loss, rate, psnr, speed, seconds = cells
                row = Row(
                    int(step),
                    float(loss),
                    float(rate),
                    float(psnr) if psnr else None,
                    float(speed),
                    float(seconds),
                )
            except ValueError:
                continue
            found.append(row)
        return found


def _foreign(path: Path) -> TrainingError:
    return TrainingError(
        f"{path} is not the log of a training", "move it away; the run goes on without its past"
    )


def _cells(row: Row) -> list[str]:
    step, loss, rate, psnr, speed, seconds = astuple(row)
    shown = "" if psnr is None else f"{psnr:.4f}"
    return [str(step), f"{loss:.6g}", f"{rate:.6g}", shown, f"{speed:.2f}", f"{seconds:.1f}"]


def _text(lines: list[list[str]]) -> str:
    made = io.StringIO()
    csv.writer(made, lineterminator="\n").writerows(lines)
    return made.getvalue()
