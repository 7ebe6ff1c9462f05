"""An int8 build: the float engine beside it, how the two compare, and what a second one recalls."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from srdeploy.calib import ranges, rounding, sensitivity
from srdeploy.calib.tuning import Tuning
from srdeploy.commands import int8_search
from srdeploy.commands.build_engine import (
    BuildOptions,
    BuildResult,
    _is_same,
    build_engine,
)
from srdeploy.commands.delivery import compared
from srdeploy.commands.newest import engine_to_run
from srdeploy.commands.one_engine import Built
from srdeploy.runtime.engine import manifest_path, page_path, read_manifest
from srdeploy.spec import Budget, BuildConfig, DriftRecord, Manifest, ModelSpec, Precision, dump
from srdeploy.validate.results import DatasetResult, PictureResult

INT8 = BuildOptions(precision=Precision.INT8, min_int8=1.0)


@pytest.fixture(scope="module")
def first(
    model: bytes, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[BuildResult, list[str]]]:
    """What a build for this machine gave and said; its folder is the current one for the module."""
    here = tmp_path_factory.mktemp("int8")
    (here / "net.onnx").write_bytes(model)
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRDEPLOY_CACHE", str(tmp_path_factory.mktemp("store")))
        patch.chdir(here)
        yield build_engine(Path("net.onnx"), INT8, None, said.append), said


def again(output: Path | None = None, **options: object) -> tuple[BuildResult, list[str]]:
    said: list[str] = []
    made = build_engine(Path("net.onnx"), replace(INT8, **options), output, said.append)
    return made, said


def float_engine(result: BuildResult) -> Path:
    """The only engine here beside that of int8."""
    engines = {path.with_suffix("") for path in Path().glob("*.json")}
    (found,) = engines - {result.path}
    return found


def test_both_engines_are_written_and_compared(first: tuple[BuildResult, list[str]]) -> None:
    result, said = first
    other = float_engine(result)
    ours, theirs = read_manifest(result.path), read_manifest(other)
    assert ours.build.precision is Precision.INT8
    assert theirs.build.precision is theirs.build.rest is not Precision.INT8
    assert theirs.build.float_nodes == theirs.calibration_pictures == ()
    assert theirs.int8_mac_share == 0
    for path in (result.path, other):
        assert path.is_file()
        assert page_path(path).is_file()
    assert f"wrote {other}, to compare with" in said
    # both are timed, and their drift is that of the same pictures
    for manifest in (ours, theirs):
        assert manifest.milliseconds > 0
        assert [record.dataset for record in manifest.drift] == [
            "bundled photographs",
            "bundled drawings",
        ]
        assert [record.hard for record in manifest.drift] == [False, True]
        assert all(record.worst and record.contents for record in manifest.drift)
        name = f"{manifest.build.target} {manifest.build.precision}"
        assert any(line.startswith(f"{name}: ") and "ms for a frame" in line for line in said)
    assert (ours.budget, theirs.budget) == (Budget(0.05, 0.2), None)
    both = [
        rf"{m.build.target} {m.build.precision} \d+ ms a frame at [+]?{m.drift[0].drift:z.3f} dB"
        for m in (ours, theirs)
    ]
    compared = re.compile(f"(note: (float is .*): )?{'; '.join(both)}")
    (line,) = filter(compared.fullmatch, said)
    noted = [note for note in ours.notes if note.startswith("float is ")]
    assert noted == [line.removeprefix("note: ")] * line.startswith("note: ")
    assert not any(note.startswith("float is ") for note in theirs.notes)


def test_a_run_chooses_between_the_two(first: tuple[BuildResult, list[str]]) -> None:
    result, _ = first
    both = {result.path: read_manifest(result.path)}
    both[float_engine(result)] = read_manifest(float_engine(result))
    path, why = engine_to_run(Path())
    assert path in both
    (other,) = set(both) - {path}
    assert why.startswith(f"the best here at {both[path].milliseconds:.0f} ms a frame, ")
    assert f"; {other} {both[other].milliseconds:.0f} ms a frame, " in why


def test_a_second_build_measures_nothing_again(
    first: tuple[BuildResult, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither ranges nor drifts of the search, nor the layers' times."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    for module in (ranges, rounding):
        monkeypatch.setattr(module, "watch", never)
    for module, name in (
        (Tuning, "psnr"),
        (sensitivity, "graph_runner"),
        (int8_search, "measured_costs"),
        (int8_search, "median_times"),
    ):
        monkeypatch.setattr(module, name, never)
    result, said = again()
    assert result.manifest.engine_sha256 == first[0].manifest.engine_sha256
    assert result.int8 is not None
    assert first[0].int8 is not None
    assert result.int8.report == first[0].int8.report
    assert any("measurements are from an earlier search" in line for line in said)
    assert f"wrote {float_engine(result)}, to compare with" in said, "it is the same one"


def test_with_a_name_for_it_only_int8_is_written(
    first: tuple[BuildResult, list[str]],
) -> None:
    Path("below").mkdir()
    shutil.copy("net.onnx", "below")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir("below")
        result, said = again(Path("mine.engine"))
        assert sorted(p.name for p in Path().iterdir()) == sorted(
            ["mine.engine", "mine.engine.html", "mine.engine.json", "net.onnx"]
        )
        assert result.manifest.build.precision is Precision.INT8
        assert any(" ms a frame at " in line for line in said), "they are compared all the same"
        assert not any("to compare with" in line for line in said)
    shutil.rmtree("below")


def test_another_file_of_its_name_is_left_alone(first: tuple[BuildResult, list[str]]) -> None:
    path = float_engine(first[0])
    manifest = path.with_name(f"{path.name}.json")
    engine, passport = path.read_bytes(), manifest.read_bytes()
    path.write_bytes(b"mine")
    manifest.unlink()
    result, said = again()
    assert f"{path} is another engine: the one to compare with was not written" in said
    assert not any("wrote" in line for line in said)
    assert path.read_bytes() == b"mine"
    assert not manifest.exists()
    assert read_manifest(result.path).build.precision is Precision.INT8
    path.write_bytes(engine)
    manifest.write_bytes(passport)


def one(name: str, milliseconds: float | None, drift: float) -> Built:
    precision = Precision.INT8 if name == "int8" else Precision.FP32
    record = DriftRecord("proof", 30.0, 30.0 + drift, drift, 50.0, "torch")
    manifest = Manifest(
        BuildConfig("", "openvino", "1", precision),
        ModelSpec("vapsr", "v", 4, 8),
        "",
        name,
        "",
        milliseconds=milliseconds,
        drift=(record,),
        notes=("a note",),
    )
    picture = PictureResult("p", 30.0, 30.0 + drift, 0.9, 0.9, 50.0)
    return Built(b"", manifest, (DatasetResult("proof", "torch", (picture,)),), (), None)


@pytest.mark.parametrize(
    ("int8", "in_float", "how"),
    [
        ((10.0, -0.04), (20.0, 0.0), ""),
        ((20.0, -0.04), (10.0, 0.0), "float is faster here, and loses less: "),
        ((20.0, 0.02), (10.0, 0.0), "float is faster here: "),
        ((10.0, -0.04), (10.4, 0.0), "float is as fast here, and loses less: "),
        ((10.4, -0.04), (10.0, 0.0), "float is as fast here, and loses less: "),
        ((10.0, 0.02), (10.4, 0.0), ""),  # as fast, and int8 loses less
        ((10.0, -0.04), (10.6, 0.0), ""),
    ],
)
def test_how_an_engine_compares(
    int8: tuple[float, float], in_float: tuple[float, float], how: str
) -> None:
    said: list[str] = []
    ours = one("int8", *int8)
    found = compared(ours, one("float", *in_float), said.append)
    figures = (
        f"openvino int8 {int8[0]:.0f} ms a frame at {int8[1]:+z.3f} dB;"
        f" openvino fp32 {in_float[0]:.0f} ms a frame at {in_float[1]:+z.3f} dB"
    )
    assert said == ([] if how else [figures]), "a note is shown with the others"
    assert found.manifest.notes == (("a note", f"{how}{figures}") if how else ("a note",))
    assert (found is ours) == (not how)


def test_what_is_the_same_engine(tmp_path: Path) -> None:
    path, built = tmp_path / "e", one("float", 1.0, 0.0)
    path.write_bytes(b"mine")
    assert not _is_same(path, built)
    beside = manifest_path(path)
    beside.write_text("{}")
    assert not _is_same(path, built)
    beside.write_text(dump(replace(built.manifest, milliseconds=2.0, drift=())))
    assert _is_same(path, built), "measured at another time"
    other = replace(built.manifest.build, onnx_sha256="of another network")
    beside.write_text(dump(replace(built.manifest, build=other)))
    assert not _is_same(path, built)
