"""Which of several engines a run takes, and what it says of the others."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
from srdeploy.commands.choose_engine import find_or_build
from srdeploy.commands.fastest import TIE, fastest, keeps_budget, lost
from srdeploy.commands.newest import engine_to_run
from srdeploy.runtime.engine import write_engine
from srdeploy.spec import (
    Budget,
    BuildConfig,
    DriftRecord,
    Manifest,
    ModelSpec,
    Precision,
    ShapeRange,
)

BUDGET = Budget(0.05, 0.2)
CONTENT = b"an engine"


def record(drift: float, worst: float | None = None, hard: bool = False) -> DriftRecord:
    return DriftRecord("set", 30.0, 30.0 + drift, drift, 50.0, "torch", "", "p", worst, (), hard)


def engine(
    milliseconds: float | None,
    *drift: float | DriftRecord,
    budget: Budget | None = None,
    **build: object,
) -> Manifest:
    records = tuple(d if isinstance(d, DriftRecord) else record(d) for d in drift)
    config = BuildConfig("net", "onnxruntime", "1", Precision.INT8)
    return Manifest(
        replace(config, **build),
        ModelSpec("vapsr", "v", 4, 8),
        hashlib.sha256(CONTENT).hexdigest(),
        "e",
        "CPU",
        milliseconds=milliseconds,
        drift=records,
        budget=budget,
    )


def taken(*engines: Manifest) -> int:
    return engines.index(fastest(engines, lambda manifest: manifest))


def test_the_fastest_is_taken_and_of_a_tie_the_better() -> None:
    assert taken(engine(20, 0.0), engine(10, -0.3), engine(15, 0.0)) == 1
    assert taken(engine(10, -0.3), engine(10 * TIE, -0.1)) == 1
    assert taken(engine(10, -0.1), engine(10 * TIE, -0.3)) == 0
    assert taken(engine(10, -0.3), engine(10.01 * TIE, -0.1)) == 0, "no tie"
    assert taken(engine(10, -0.3), engine(10 * TIE, -0.2), engine(10 * TIE**2, 0.0)) == 1


def test_what_was_not_timed_comes_last() -> None:
    assert taken(engine(None, 0.0), engine(9999, -0.3)) == 1
    assert taken(engine(None, -0.3), engine(None, -0.1)) == 1
    assert taken(engine(10), engine(10, -9.0)) == 1, "of unknown loss"


def test_what_is_lost_is_that_of_the_worst_set_that_is_held() -> None:
    assert lost(engine(1, -0.1, -0.3, 0.2)) == -0.3
    assert lost(engine(1, -0.1, record(-0.3, hard=True))) == -0.1
    assert lost(engine(1, record(-0.3, hard=True))) == -0.3, "there is no other"
    assert lost(engine(1)) == -float("inf")


@pytest.mark.parametrize(
    ("records", "kept"),
    [
        ((record(-0.05, -0.2),), True),
        ((record(-0.051, -0.1),), False),
        ((record(-0.01, -0.21),), False),
        ((record(-0.01, -0.1), record(0.1, -0.21)), False),
        ((record(-0.01), record(0.0)), True),  # of before worst pictures were kept
        ((record(-0.01, -0.1), record(-0.15, -0.2, hard=True)), True),
        ((record(-0.01, -0.1), record(-0.01, -0.21, hard=True)), False),
        ((), True),
    ],
)
def test_keeping_a_budget(records: tuple[DriftRecord, ...], kept: bool) -> None:
    assert keeps_budget(engine(1, *records, budget=BUDGET)) == kept
    assert keeps_budget(engine(1, *records)), "there is none"


def place(folder: Path, *engines: Manifest) -> list[Path]:
    """Write engines, the first of them the oldest."""
    paths = []
    for age, manifest in enumerate(engines):
        path = folder / f"e{age}.onnx"
        write_engine(path, CONTENT, replace(manifest, engine_file=path.name))
        os.utime(path.with_name(f"{path.name}.json"), (age, age))
        paths.append(path)
    return paths


def test_a_run_takes_the_fastest_and_says_what_the_others_take(tmp_path: Path) -> None:
    quick, slow, middle = place(
        tmp_path, engine(10, -0.04), engine(1234.4, -0.0001), engine(20, 0.05, -0.03)
    )
    assert engine_to_run(tmp_path) == (
        quick,
        f"the best here at 10 ms a frame, -0.040 dB; {middle} 20 ms a frame, -0.030 dB,"
        f" {slow} 1234 ms a frame, +0.000 dB",
    )


def test_of_engines_as_fast_as_each_other_a_run_takes_the_better(tmp_path: Path) -> None:
    better, _ = place(tmp_path, engine(10.4, -0.01), engine(10, -0.04))
    assert engine_to_run(tmp_path)[0] == better


def test_an_engine_over_its_own_budget_is_passed_over(tmp_path: Path) -> None:
    over = engine(5, record(-0.01, -0.3), budget=BUDGET)
    kept, newer = place(tmp_path, engine(10, -0.01), over)
    path, why = engine_to_run(tmp_path)
    assert path == kept
    assert why == (
        "the newest engine in this directory that keeps its budget;"
        f" {newer} is newer, but loses more"
    )
    place(tmp_path, over, engine(10, -0.01))
    kept = tmp_path / "e1.onnx"
    assert engine_to_run(tmp_path) == (kept, "the newest engine in this directory")
    place(tmp_path, over, over)
    assert engine_to_run(tmp_path)[0] == kept, "all are: the newest"


def test_drawings_that_lose_more_on_average_keep_an_engine(tmp_path: Path) -> None:
    """As its build did, which holds of hard sets the pictures alone."""
    drawings = record(-0.1, -0.19, hard=True)
    (quick, _) = place(
        tmp_path, engine(5, record(-0.01, -0.1), drawings, budget=BUDGET), engine(10, 0.0)
    )
    path, why = engine_to_run(tmp_path)
    assert path == quick
    assert why.startswith("the best here at 5 ms a frame, -0.010 dB; ")


@pytest.mark.parametrize(
    "other",
    [
        engine(1, 0.0, onnx_sha256="another network"),
        engine(1, 0.0, profiles=(ShapeRange.static(8, 8),)),
        engine(None, 0.0),
    ],
)
def test_what_cannot_be_compared_is_not(other: Manifest, tmp_path: Path) -> None:
    """The newest is taken, whichever of the two it is."""
    for engines in ([other, engine(10, -0.01)], [engine(10, -0.01), other]):
        place(tmp_path, *engines)
        newest = tmp_path / "e1.onnx"
        assert engine_to_run(tmp_path) == (newest, "the newest engine in this directory")


def test_nothing_to_run(tmp_path: Path) -> None:
    assert engine_to_run(tmp_path) == (None, "")
    place(tmp_path, engine(1, 0.0, target="nonsense"))
    assert engine_to_run(tmp_path) == (None, "")
    (tmp_path / "notes.onnx.json").write_text("{}")
    (tmp_path / "notes.onnx").write_text("no engine")
    assert engine_to_run(tmp_path) == (None, "")


def test_a_run_says_which_engine_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place(Path(), engine(10, -0.04), engine(20, 0.0))
    said: list[str] = []
    assert find_or_build(None, said.append) == Path("e0.onnx")
    assert said == [
        "using e0.onnx, the best here at 10 ms a frame, -0.040 dB; e1.onnx 20 ms a frame, +0.000 dB"
    ]
    assert find_or_build(Path("e1.onnx"), said.append) == Path("e1.onnx")
    assert len(said) == 1, "it was named"
