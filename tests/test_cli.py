"""The command line as a user meets it: whole processes, real files, real exit codes."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner
from srdeploy import data
from srdeploy.calib.observers import OBSERVERS
from srdeploy.cli import main
from srdeploy.commands.build_engine import BuildOptions, build_engine
from srdeploy.data.demo_clip import make_demo_clip
from srdeploy.errors import DriftExceeded
from srdeploy.models import architecture
from srdeploy.models.vapsr import VapSRConfig
from srdeploy.runtime.engine import read_manifest
from srdeploy.spec import Budget, Precision
from srdeploy.usage import Command

REPOSITORY = Path(__file__).resolve().parent.parent


def srdeploy(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in ``folder``, with an empty cache of its own."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPOSITORY / ".src"),
        "SRDEPLOY_CACHE": str(folder / ".cache"),
        "HOME": str(folder),
        **variables,
    }
    return subprocess.run(
        [sys.executable, "-m", "srdeploy", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
    )


@pytest.fixture(scope="module")
def tiny_weights(tmp_path_factory) -> Path:
    """A small VapSR whose skip path repeats pixels, with a little of its body on top."""
    torch.manual_seed(0)
    network = architecture("vapsr").build(VapSRConfig(4, 8, 3, 8))
    with torch.no_grad():
        for conv in (network.conv_first, network.upsampler[0], network.upsampler[3]):
            conv.weight.zero_()
            conv.bias.zero_()
        for channel in range(3):
            network.conv_first.weight[channel, channel, 1, 1] = 1
            for step in range(4):
                network.upsampler[0].weight[4 * channel + step, channel, 1, 1] = 1
                network.upsampler[3].weight[4 * channel + step, channel, 1, 1] = 1
        network.conv_body.weight.mul_(0.1)
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save({"params_ema": network.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def job(tmp_path_factory, tiny_weights: Path) -> Path:
    """A folder in which the three commands were run."""
    folder = tmp_path_factory.mktemp("job")
    make_demo_clip(folder / "video.mp4", width=64, height=64, frames=12)
    for words in (
        ["export", "--weights", str(tiny_weights), "--json", "export.json"],
        ["build-engine", "--int8", "--json", "engine.json"],
        ["run", "video.mp4", "--json", "run.json"],
    ):
        done = srdeploy(folder, *words)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_three_commands(job: Path) -> None:
    export, engine, run = (
        json.loads((job / f"{name}.json").read_text()) for name in ("export", "engine", "run")
    )
    assert max(export["errors"].values()) <= 1e-4
    assert len(export["errors"]) >= 6
    assert engine["build"]["precision"] == "int8"
    assert engine["drift"][0]["reference_runtime"] == "torch"
    assert engine["int8_mac_share"] >= 0.8
    assert (run["frames"], run["width"], run["height"]) == (12, 256, 256)
    assert (job / "video_x4.mp4").is_file()
    assert not [p for p in job.iterdir() if "partial" in p.name]


def test_validate_json(job: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for picture in data.pictures("proof")[:1]:
        (folder / picture.file).write_bytes(picture.path.read_bytes())
    done = srdeploy(
        job,
        "validate",
        "--data",
        str(folder),
        "--json",
        "-",
        "--quiet",
        "--report",
        str(tmp_path / "r.html"),
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["engine_executed"] is True
    assert document["executed_on"] == document["target"]
    (dataset,) = document["datasets"]
    assert dataset["drift"] == pytest.approx(
        dataset["psnr_engine"] - dataset["psnr_reference"], abs=2e-6
    )
    assert (tmp_path / "r.html").read_text().startswith("<!")
    onnx = next(p for p in job.glob("*.onnx") if not p.with_name(p.name + ".json").exists())
    done = srdeploy(
        job, "validate", "--onnx", onnx.name, "--data", str(folder), "--json", "-", "--quiet"
    )
    assert json.loads(done.stdout)["worst_drift"] == pytest.approx(0, abs=1e-3)


def test_budget(job: Path, tmp_path: Path) -> None:
    """Every layer in int8 loses something: over a budget of 0, within one of 30 dB."""
    onnx = next(p for p in job.glob("*.onnx") if not p.with_name(p.name + ".json").exists())
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    proof = data.pictures("proof")[0]
    (pictures / proof.file).write_bytes(proof.path.read_bytes())
    (tmp_path / onnx.name).write_bytes(onnx.read_bytes())
    engine = tmp_path / "all.engine"
    options = BuildOptions("onnxruntime", Precision.INT8, budget=Budget(0.0, 0.0), min_int8=1.0)
    with pytest.raises(DriftExceeded, match="bundled photographs drifts -"):
        build_engine(onnx, options, engine, lambda _: None)
    assert not engine.exists()
    built = build_engine(onnx, replace(options, budget=Budget(30.0, 60.0)), engine, lambda _: None)
    assert built.manifest.int8_mac_share == 1.0
    assert built.manifest.drift[0].drift < 0
    assert read_manifest(engine).budget == Budget(30.0, 60.0)
    words = ["validate", "--engine", engine.name, "--data", str(pictures), "--max-drift"]
    check_error(srdeploy(tmp_path, *words, "0"), "pictures drifts -", code=3)
    assert srdeploy(tmp_path, *words, "30").returncode == 0


def test_an_engine_knows_what_it_was_calibrated_on(job: Path, tmp_path: Path) -> None:
    document = json.loads((job / "engine.json").read_text())
    assert len(document["calibration_pictures"]) == 17
    assert document["calibration"]["sha256"] == document["build"]["calibration_sha256"]
    assert len(document["calibration"]["crops"]) == 100
    seen = data.pictures("calibration")[0]
    (tmp_path / seen.file).write_bytes(seen.path.read_bytes())
    engine = document["path"]
    done = srdeploy(job, "validate", "--engine", engine, "--data", str(tmp_path))
    check_error(done, f"calibrated on 1 of these pictures: {tmp_path.name}/{seen.name}")


def test_calibration_sets_are_checked(job: Path, tmp_path: Path) -> None:
    onnx = next(p for p in job.glob("*.onnx") if not p.with_name(p.name + ".json").exists())
    proof = data.pictures("proof")[0]
    (tmp_path / proof.file).write_bytes(proof.path.read_bytes())
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    words = ["build-engine", str(onnx), "--int8", "--calib", str(tmp_path)]
    check_error(srdeploy(tmp_path, *words), f"{proof.file} is {proof.name}")
    check_error(srdeploy(tmp_path, *words, "--strict"), "broken.png")


def test_engine_that_was_changed_is_refused(job: Path, tmp_path: Path) -> None:
    manifest = next(job.glob("*.engine.json"), None) or next(job.glob("*int8*.json"))
    engine = manifest.with_suffix("")
    copy = tmp_path / engine.name
    copy.write_bytes(engine.read_bytes()[:-1] + b"!")
    (tmp_path / manifest.name).write_bytes(manifest.read_bytes())
    done = srdeploy(tmp_path, "run", str(job / "video.mp4"), "--engine", str(copy))
    check_error(done, "not the file that its manifest describes")
    (tmp_path / manifest.name).write_text("{}")
    check_error(srdeploy(tmp_path, "run", str(job / "video.mp4"), "--engine", str(copy)), "damaged")
    (tmp_path / manifest.name).unlink()
    check_error(
        srdeploy(tmp_path, "run", str(job / "video.mp4"), "--engine", str(copy)), "no manifest"
    )


def check_error(done: subprocess.CompletedProcess[str], words: str, code: int = 1) -> None:
    """One error, one hint, no traceback, the right exit code."""
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stderr.count("error: ") == 1, done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert words in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("words", "content", "says"),
    [
        (["run", "absent.mp4"], None, "no file or folder"),
        (["run", "input.mp4"], b"this is a text file, not a video\n", "input.mp4"),
        (["run", "input.mp4"], b"", "input.mp4"),
        (["run", "input.png"], b"\x89PNG\r\n\x1a\n cut", "input.png"),
        (["export", "--weights", "input.pth"], b"a text file named .pth\n", "input.pth"),
        (["export", "--weights", "absent.pth"], None, "absent.pth"),
        (["export", "--model", "nonsense"], None, "nonsense"),
        (["export", "--model", "vapsr", "--scale", "9"], None, "scale 9"),
        (["export", "--model", "vapsr", "--opset", "3"], None, "opset 3"),
        (["export", "--model", "hat"], None, "no weights of hat x4"),
        (["export", "--model", "hat-tiny", "--static", "4x40"], None, "at least 5 pixels"),
        (["build-engine", "input.onnx"], b"not an onnx", "input.onnx"),
        (["build-engine", "absent.onnx"], None, "absent.onnx"),
        (["validate", "--data", "absent"], None, "no engine"),
        (["fetch", "nonsense"], None, "nonsense"),
        (["train", "--model", "vapsr-s", "--data", "absent"], None, "absent"),
    ],
)
def test_bad_input(
    words: list[str], content: bytes | None, says: str, tmp_path: Path, job: Path
) -> None:
    if content is not None:
        (tmp_path / words[-1]).write_bytes(content)
    if words[0] == "run":
        for made in job.iterdir():
            if "int8" in made.name:
                (tmp_path / made.name).write_bytes(made.read_bytes())
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    check_error(srdeploy(tmp_path, *words), says)
    after = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    assert after == before, "something was written"


@pytest.mark.parametrize(
    "words",
    [
        ["run"],
        ["nonsense"],
        ["build-engine", "--shapes", "1x1,2x2"],
        ["export", "--static", "x"],
        ["export", "--set", "x"],
        ["export", "--model", "hat-tiny", "--set", "conv_scale=1"],
    ],
)
def test_usage_errors_exit_2(words: list[str], tmp_path: Path) -> None:
    done = srdeploy(tmp_path, *words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("build-engine --fp32 --int8", "--fp32 and --int8 contradict each other"),
        ("build-engine --bf16 --fp16 --int8", "--fp16 and --bf16 and --int8 contradict"),
        ("run a.mp4 --scale 2", "srdeploy export --model vapsr --scale 2"),
        ("run a.mp4 --int8", "srdeploy build-engine --int8"),
        ("run a.mp4 --target openvino", "srdeploy build-engine --target NAME"),
        ("validate --data a --fp16", "srdeploy build-engine --fp16"),
        ("export --int8", "build-engine NETWORK.onnx --int8"),
        ("build-engine --model vapsr", "srdeploy export --model NAME"),
        ("engines ls --scale 2", "engines ls has no option --scale"),
        ("run a.mp4 --json ''", "a file without a name"),
        ("run ''", "a file without a name"),
        ("run a.mp4 b.mp4", 'for f in *.mp4; do srdeploy run "$f"; done'),
        ("run a.mp4 --tiles 8", "--tile"),
        ("build-engine a.onnx b.onnx", "run the command once for each"),
        ("run https://example.org/a.mp4", "curl -LO 'https://example.org/a.mp4'"),
        ("run a.mp4 -o rtmp://example.org/live", "'rtmp://example.org/live' is an address"),
        ("export --weights https://example.org/a.pth", "is an address"),
        ("build-engine s3://bucket/a.onnx", "is an address"),
        ("build-engine --calib https://example.org/", "is an address"),
        ("validate --data https://example.org/Set5.zip", "is an address"),
        ("train --model vapsr --data http://example.org", "is an address"),
    ],
)
def test_usage_errors_say_what_to_do(typed: str, said: str) -> None:
    done = CliRunner().invoke(main, shlex.split(typed))
    assert done.exit_code == 2
    assert said in " ".join(done.output.split()), done.output


def leaves(group: click.Group) -> list[click.Command]:
    found = []
    for command in group.commands.values():
        found += leaves(command) if isinstance(command, click.Group) else [command]
    return found


@pytest.mark.parametrize("command", leaves(main), ids=lambda c: c.name)
def test_help_ends_with_examples_that_parse(command: Command) -> None:
    """Two or more, each a line of at most 80 columns that the parser takes."""
    context = click.Context(command, terminal_width=80)
    lines = command.get_help(context).splitlines()
    shown = lines[lines.index("Examples:") + 1 :]
    assert len(command.examples) >= 2
    assert [line.strip() for line in shown[1::2]] == [line for line, _ in command.examples]
    assert max(map(len, lines)) <= 80
    for line, _ in command.examples:
        part = next(part for part in line.split("|") if "srdeploy" in part)
        words = shlex.split(part.split(";")[0])[1:]
        group = main
        while isinstance(found := group.commands[words.pop(0)], click.Group):
            group = found
        assert found is command
        command.make_context(command.name, words)


def test_help_fits_a_terminal() -> None:
    for group in (main, main.commands["engines"]):
        lines = group.get_help(click.Context(group, terminal_width=80)).splitlines()
        assert max(map(len, lines)) <= 80
        assert not [line for line in lines if line.endswith("...") and "COMMAND" not in line]


def test_any_encoding_of_the_output_will_do(tmp_path: Path) -> None:
    for words in (["models"], ["--help"], ["run", "--help"]):
        done = srdeploy(tmp_path, *words, PYTHONIOENCODING="ascii")
        assert done.returncode == 0, done.stderr
    assert "1280?720" in srdeploy(tmp_path, "models", PYTHONIOENCODING="ascii").stdout


@pytest.mark.parametrize(
    ("typed", "code", "said"),
    [
        ("models >&-", 0, ""),
        ("models 2>&-", 0, "vapsr-s-x4"),
        ("models --json - >&-", 1, "standard output is closed"),
        ("run - >&- < /dev/null", 1, "standard output is closed"),
        ("run absent.mp4 >&- 2>&-", 1, ""),
        ("build-engine absent.onnx <&-", 1, "absent.onnx"),
    ],
)
def test_closed_streams(typed: str, code: int, said: str, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / ".src")}
    line = f"{shlex.quote(sys.executable)} -m srdeploy {typed}"
    done = subprocess.run(
        ["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stdout + done.stderr
    assert "fault in srdeploy" not in done.stderr


def test_a_reader_that_has_enough_is_no_fault(tmp_path: Path) -> None:
    """As in ``srdeploy models | head -1``."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "srdeploy", "models"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / ".src")}
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=environment)
    os.close(writing)
    assert b"fault" not in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_checkpoint_is_what_its_tensors_say(tmp_path: Path) -> None:
    weights = str(data.bundled_weights("enlcn-tiny-x4"))
    for words, says in (
        (["--scale", "2"], "not a network of scale 2"),
        (["--model", "han"], "holds enlcn-tiny-x4, not han"),
        (["--set", "n_feats=3"], "'n_feats' of enlcn cannot be set"),
    ):
        check_error(srdeploy(tmp_path, "export", "--weights", weights, *words), says)
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == []
    words = ["export", "--weights", weights, "--model", "enlcn", "--set", "res_scale=0.2"]
    done = srdeploy(tmp_path, *words, "--json", "x.json", "-o", "x.onnx")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "x.json").read_text())["variant"] == "enlcn-custom-x4"


def test_models_tells_what_each_costs(tmp_path: Path) -> None:
    done = srdeploy(tmp_path, "models", "--json", "models.json")
    assert done.returncode == 0, done.stderr
    rows = {r["variant"]: r for r in json.loads((tmp_path / "models.json").read_text())["models"]}
    assert rows["vapsr-x4"]["macs"] == pytest.approx(19.52e9, rel=1e-3)
    assert rows["vapsr-s-x4"]["here"] == "bundled"
    assert rows["hat-l-x2"]["parameters"] == 40_698_863
    assert rows["han-x4"]["psnr"] == {"Set5": 32.64, "Set14": 28.90, "BSD100": 27.80}
    for name, row in rows.items():
        line = next(line for line in done.stdout.splitlines() if line.startswith(name + " "))
        assert f"{row['parameters']:,}" in line
        assert (row["psnr"] is None) == (row["psnr_source"] is None)
        assert row["psnr_source"] is None or row["psnr_source"] in done.stdout


def test_onnx_of_others_is_refused(tmp_path: Path) -> None:
    import onnx

    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [value("x", 1, [1, 3, 8, 8])],
        [value("y", 1, [1, 3, 8, 8])],
    )
    onnx.save(onnx.helper.make_model(graph), tmp_path / "theirs.onnx")
    check_error(srdeploy(tmp_path, "build-engine", "theirs.onnx"), "not made by srdeploy")
    check_error(srdeploy(tmp_path, "build-engine"), "no exported ONNX")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("export --weights absent.pth -o absent/m.onnx", "mkdir -p absent"),
        ("build-engine absent.onnx --json absent/a.json", "mkdir -p absent"),
        ("build-engine absent.onnx -o .", ". is a folder"),
        ("validate --data absent --report 'no such/a.html'", "mkdir -p 'no such'"),
        ("run absent.mp4 -o absent/a.mp4", "mkdir -p absent"),
        ("engines import absent.srbundle -o absent/a.engine", "mkdir -p absent"),
    ],
)
def test_where_to_write_is_looked_at_first(typed: str, said: str, tmp_path: Path) -> None:
    check_error(srdeploy(tmp_path, *shlex.split(typed)), said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_is_no_fault(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "srdeploy", "models"]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY / ".src")}
        done = subprocess.run(
            command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, env=environment
        )
    check_error(done, "No space left")
    assert "fault in srdeploy" not in done.stderr


def test_output_is_input(job: Path, tmp_path: Path) -> None:
    before = (job / "video.mp4").read_bytes()
    check_error(srdeploy(job, "run", "video.mp4", "-o", "video.mp4"), "video.mp4")
    check_error(srdeploy(job, "run", "video.mp4", "-o", "absent/v.mp4"), "absent")
    assert (job / "video.mp4").read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(
    "signals",
    [
        [signal.SIGINT],
        [signal.SIGTERM],
        [signal.SIGINT] * 3,
        [signal.SIGTERM, signal.SIGINT],
    ],
)
def test_interrupt_leaves_nothing(signals: list[int], job: Path, tmp_path: Path) -> None:
    for made in job.iterdir():
        if "int8" in made.name:
            (tmp_path / made.name).write_bytes(made.read_bytes())
    make_demo_clip(tmp_path / "long.mp4", width=320, height=240, frames=600)
    before = {p.name for p in tmp_path.iterdir()}
    process = subprocess.Popen(
        [sys.executable, "-m", "srdeploy", "run", "long.mp4"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / ".src")},
    )
    deadline = time.monotonic() + 60
    while not any("partial" in p.name for p in tmp_path.iterdir()):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    for number in signals:
        process.send_signal(number)
        time.sleep(0.05)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors == "error: interrupted; nothing half-written was left\n"
    assert {p.name for p in tmp_path.iterdir()} == before


def test_pipe(job: Path, tmp_path: Path) -> None:
    """YUV4MPEG2 in and out: nothing but the video goes to standard output."""
    header = b"YUV4MPEG2 W16 H8 F25:1 Ip A1:1 C420jpeg\n"
    frame = b"FRAME\n" + bytes(range(128)) + bytes([128]) * 64
    for made in job.iterdir():
        if "int8" in made.name:
            (tmp_path / made.name).write_bytes(made.read_bytes())
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / ".src")}
    command = [sys.executable, "-m", "srdeploy", "run", "-"]
    done = subprocess.run(
        command, input=header + 3 * frame, capture_output=True, cwd=tmp_path, env=environment,
        timeout=120, check=True,
    )  # fmt: skip
    head, body = done.stdout.split(b"\n", 1)
    assert head.startswith(b"YUV4MPEG2 W64 H32 F25:1")
    assert len(body) == 3 * (len(b"FRAME\n") + 64 * 32 * 3 // 2)
    assert b"3 frames of 64" in done.stderr
    broken = subprocess.run(
        command, input=b"not a video", capture_output=True, cwd=tmp_path, env=environment,
        timeout=120,
    )  # fmt: skip
    assert broken.returncode == 1
    assert b"hint: " in broken.stderr
    assert broken.stdout == b""
    assert srdeploy(tmp_path, "run", "-", "--json", "-").returncode == 2


def test_without_torch(tmp_path: Path) -> None:
    """``run`` starts from the bundled ONNX, drift refers to it, and export says what it needs."""
    make_demo_clip(tmp_path / "video.mp4", width=64, height=64, frames=6)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from srdeploy.cli import main\n"
        "main(sys.argv[1:], prog_name='srdeploy')\n"
    )

    def without_torch(*words: str, folder: str = ".") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=tmp_path / folder,
            capture_output=True,
            text=True,
            timeout=300,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY / ".src")},
        )

    done = without_torch("run", "video.mp4", "--json", "run.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "taking vapsr-s-x4.onnx, which comes with srdeploy" in done.stdout
    assert json.loads((tmp_path / "run.json").read_text())["width"] == 256
    manifest = json.loads(next(tmp_path.glob("vapsr*.json")).read_text())
    assert manifest["drift"][0]["reference_runtime"] == "onnxruntime"
    check_error(without_torch("export", "--model", "vapsr"), "torch is not installed")
    (tmp_path / "empty").mkdir()
    done = without_torch("build-engine", "--fp32", "--target", "onnxruntime", folder="empty")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "taking vapsr-s-x4.onnx, which comes with srdeploy" in done.stdout
    assert (tmp_path / "empty/vapsr-s-x4_fp32.onnxruntime.onnx").is_file()


def test_observers_are_those_of_the_library() -> None:
    option = next(p for p in main.commands["build-engine"].params if p.name == "observer")
    assert set(option.type.choices) == set(OBSERVERS)


def test_help_names_every_command() -> None:
    done = srdeploy(REPOSITORY, "--help")
    for name in ("export", "build-engine", "run", "validate", "models", "fetch", "train"):
        assert name in done.stdout
    for name in ("export", "build-engine", "run", "validate", "train"):
        assert srdeploy(REPOSITORY, name, "--help").returncode == 0
