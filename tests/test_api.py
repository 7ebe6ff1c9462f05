"""The public API: light to import, typed, and no option is ignored."""

from __future__ import annotations

import inspect
import io
import itertools
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
import srdeploy as sr
from click.testing import CliRunner
from PIL import Image
from srdeploy import api
from srdeploy.cli import main
from srdeploy.errors import OptionError
from srdeploy.spec import Precision

FUNCTIONS = ("export_onnx", "build_engine", "open_engine", "upscale", "measure_drift")
COMMANDS = {"export": "export_onnx", "build-engine": "build_engine", "run": "upscale"} | {
    "validate": "measure_drift"
}
OF_THE_CLI = {"json_file", "verbose", "quiet", "path", "report", "max_drift", "for_"}
"""Parameters that the command line has for itself: it prints, names the output, judges."""


def test_importing_it_is_quick() -> None:
    code = (
        "import sys, srdeploy; srdeploy.__version__; print([m for m in"
        " ('numpy', 'onnx', 'torch', 'av', 'click', 'onnxruntime') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_that_is_public_is_there_and_documented() -> None:
    assert sorted(sr.__all__) == sr.__all__
    assert dir(sr) == sr.__all__
    for name in sr.__all__:
        assert name == "__version__" or inspect.getdoc(getattr(sr, name))
    assert set(FUNCTIONS) < set(sr.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = sr.nonsense


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_parameter_is_explained(name: str) -> None:
    function = getattr(sr, name)
    described = inspect.getdoc(function)
    for parameter in inspect.signature(function).parameters:
        assert f"    {parameter}: " in described, parameter


@pytest.mark.parametrize(("command", "function"), COMMANDS.items())
def test_an_option_has_one_name_from_the_command_line_to_the_api(
    command: str, function: str
) -> None:
    taken = set(inspect.signature(getattr(sr, function)).parameters) - {"say", "progress"}
    precisions = {"fp32", "fp16", "bf16", "int8"}
    given = {p.name for p in main.commands[command].params} - OF_THE_CLI
    if command == "build-engine":
        assert precisions < given
        given = given - precisions | {"precision"}
    assert given <= taken
    assert taken - given <= {"output", "max_drift"}


SAMPLES = {
    "calib": ("calib", ["--calib", "."], "."),
    "calib_only": ("calib_only", ["--calib-only"], True),
    "strict": ("strict", ["--strict"], True),
    "min_int8": ("min_int8", ["--min-int8", "0.3"], 0.3),
    "observer": ("observer", ["--observer", "mse"], "mse"),
    "portable": ("portable", ["--portable"], True),
    "finetune": ("finetune", ["--finetune", "."], "."),
    "provider": ("provider", ["--provider", "cpu"], "cpu"),
    "cc": ("cc", ["--cc", "8.9"], ("8.9",)),
    "compat": ("compat", ["--compat", "ampere+"], "ampere+"),
    "workspace": ("workspace", ["--workspace", "64"], 64),
    "optimization_level": ("optimization_level", ["--optimization-level", "5"], 5),
    "version_compatible": ("version_compatible", ["--version-compatible"], True),
    "strip_weights": ("strip_weights", ["--strip-weights"], True),
    "tf32": ("tf32", ["--tf32"], True),
}
"""Options of build-engine that something else decides about: typed, and in Python."""

OF_INT8 = {"calib_only", "min_int8", "observer", "portable", "finetune"}
OF_TENSORRT = {"cc", "compat", "workspace", "optimization_level"} | {
    "version_compatible",
    "strip_weights",
    "tf32",
}
CONTEXTS = [
    *itertools.product([None, "fp32", "fp16", "bf16", "int8"], ["auto", "openvino"]),
    ("int8", "onnxruntime"),
    ("int8", "tensorrt-rtx"),
    ("fp16", "tensorrt"),
]


def has_effect(option: str, precision: str | None, target: str) -> bool:
    """What the documentation says of an option that is given alone beside these two."""
    if option == "provider":
        return target == "onnxruntime"
    if option in OF_TENSORRT:
        return target not in ("openvino", "onnxruntime")
    if option in ("calib_only", "strict"):
        return False  # they are about --calib
    if option == "calib":
        return precision not in ("fp32", "bf16")
    if option == "portable":
        return precision == "int8" and not target.startswith("tensorrt")
    return precision == "int8"


@pytest.mark.parametrize("option", SAMPLES)
def test_an_option_of_build_engine_without_effect_is_an_error(option: str, tmp_path: Path) -> None:
    """In Python and on the command line; what has an effect fails at the missing file."""
    name, typed, value = SAMPLES[option]
    absent = tmp_path / "absent.onnx"
    for precision, target in CONTEXTS:
        words = ["build-engine", str(absent), "--target", target, *typed]
        words += [f"--{precision}"] if precision else []
        done = CliRunner().invoke(main, words)
        said = " ".join(done.output.split())
        if has_effect(option, precision, target):
            assert (done.exit_code, "absent.onnx" in said) == (1, True), (words, said)
            continue
        assert done.exit_code == 2, (words, said)
        assert typed[0] in said, (words, said)
        with pytest.raises(OptionError, match=name):
            sr.build_engine(absent, precision=precision, target=target, **{name: value})


VIDEO_ONLY = {
    "codec": ("nonsense", ["--codec", "nonsense"]),
    "crf": (63, ["--crf", "63"]),
    "preset": ("nope", ["--preset", "nope"]),
    "resume": (True, ["--resume"]),
    "allow_truncated": (True, ["--allow-truncated"]),
}


@pytest.mark.parametrize("option", VIDEO_ONLY)
@pytest.mark.parametrize("kind", ["picture", "folder"])
def test_options_of_videos_are_no_options_of_pictures(
    option: str, kind: str, tmp_path: Path
) -> None:
    picture = tmp_path / "p.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(picture)
    source = picture if kind == "picture" else tmp_path
    value, typed = VIDEO_ONLY[option]
    with pytest.raises(OptionError, match=option):
        sr.upscale(source, **{option: value})
    done = CliRunner().invoke(main, ["run", str(source), *typed])
    assert done.exit_code == 2
    assert typed[0] in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]


@pytest.mark.parametrize("option", ["codec", "crf", "preset"])
def test_a_stream_has_no_encoder(option: str) -> None:
    with pytest.raises(OptionError, match=option):
        sr.upscale(io.BytesIO(), io.BytesIO(), **{option: VIDEO_ONLY[option][0]})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"set": {"conv_scale": 1.0}}, "set changes what the tensors"),
        ({"weights": "x.pth", "random_weights": True}, "weights and random_weights contradict"),
    ],
)
def test_options_of_export_that_contradict_each_other(options: dict, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        sr.export_onnx(**options)


@pytest.mark.parametrize("budget", [-1, (0.2, 0.1), float("nan")])
def test_impossible_budgets(budget: float | tuple[float, float]) -> None:
    with pytest.raises(OptionError, match="max_drift"):
        sr.build_engine("absent.onnx", max_drift=budget)


def test_unknown_precisions() -> None:
    with pytest.raises(OptionError, match="no precision 'int9'"):
        sr.build_engine("absent.onnx", precision="int9")


def test_an_error_names_options_as_they_are_written() -> None:
    error = OptionError("[calib_only] needs [target=onnxruntime]", "give [precision=int8] too")
    assert str(error) == "calib_only needs target='onnxruntime'"
    assert error.hint == "give precision='int8' too"
    assert error.as_typed() == "--calib-only needs --target onnxruntime: give --int8 too"


def test_from_a_network_to_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program of the README, with the smallest network."""
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    onnx = sr.export_onnx("vapsr-tiny", say=told.append)
    engine = sr.build_engine(onnx, precision=Precision.FP32, target="onnxruntime", max_drift=0.05)
    assert engine.manifest.drift[0].drift == pytest.approx(0, abs=0.01)
    frames = np.zeros((2, 16, 24, 3), np.uint8)
    with sr.open_engine(engine.path) as session:
        assert session.upscale(frames).shape == (2, 64, 96, 3)
    pictures = tmp_path / "set"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        noise = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((96, 64)).save(pictures / f"{name}.png")
    found = sr.measure_drift(engine, data=pictures)
    assert found.drift == pytest.approx(0, abs=0.01)
    made = sr.upscale(pictures / "a.png", "large.png", engine=engine)
    with Image.open("large.png") as large:
        assert large.size == (384, 256)
    assert made.frames == 1
    assert told


def test_a_script_that_uses_it_is_typed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import srdeploy as sr\n"
        'onnx = sr.export_onnx("vapsr")\n'
        'engine = sr.build_engine(onnx, precision="int8", max_drift=0.05)\n'
        "with sr.open_engine(engine.path) as session:\n"
        "    reveal_type(session.upscale)\n"
        'sr.upscale("in.mp4", "out.mp4", engine=engine.path, crf=18)\n'
        'reveal_type(sr.measure_drift(engine.path, data="Set5").drift)\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "", str(script)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert '"float"' in done.stdout.replace("builtins.", "")


def test_the_command_line_calls_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []

    def note(name: str) -> None:
        def fail(*_: object, **__: object) -> None:
            called.append(name)
            raise click.exceptions.Exit(0)

        monkeypatch.setattr(api, name, fail)

    for command, function in COMMANDS.items():
        note(function)
        words = {"run": ["README.md"], "validate": ["--data", "."]}.get(command, [])
        CliRunner().invoke(main, [command, *words])
    assert called == list(COMMANDS.values())
