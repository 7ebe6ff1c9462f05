"""Every command in a terminal of 80 and 120 columns, with and without colour, to its end."""

from __future__ import annotations

import hashlib
import http.server
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from screen import Shown, runner
from srdeploy.cli import main

ENGINE = "vapsr-custom-x4_fp32.onnxruntime.onnx"
# what is typed, and words that it shows
CASES: dict[str, str] = {
    "models": "vapsr-s-x4",
    "doctor": "Self-test",
    "train --model vapsr-tiny --data more --steps 2 --batch 1 --patch 8 --validation photos": (
        "wrote runs/vapsr-tiny-x4/vapsr-tiny-x4.safetensors"
    ),
    "export --weights net.pth -o again.onnx": "wrote again.onnx",
    "build-engine net.onnx --fp32 --target onnxruntime": f"wrote {ENGINE}",
    "build-engine net.onnx --int8 --calib more --target onnxruntime": "MACs are int8",
    f"run video.mp4 --engine {ENGINE}": "wrote video_x4.mp4",
    f"run photos --engine {ENGINE}": "wrote photos_x4",
    f"validate --data photos --engine {ENGINE}": "fidelity",
    "engines ls": "vapsr-custom-x4 fp32",
    "engines verify": "whole: ",
    "engines prune": "left: ",
    f"engines export {ENGINE} -o other.srbundle": "wrote other.srbundle",
    "engines import net.srbundle -o new.engine": "wrote new.engine",
}
TERMINALS = [
    pytest.param(columns, variables, id=f"{columns}-{name}")
    for columns in (80, 120)
    for name, variables in (("colour", {}), ("plain", {"NO_COLOR": "1"}))
]
BAR = re.compile("[━╸╺]{3}")
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9;]*m")


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    """A copy of what the commands work on."""
    return Path(shutil.copytree(prepared, tmp_path / "folder"))


def commands(group: click.Group, prefix: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} ")
        else:
            yield prefix + name


def test_every_command_has_a_case() -> None:
    tried = {*CASES, "fetch"}
    assert not [c for c in commands(main) if not any(f"{t} ".startswith(f"{c} ") for t in tried)]


def check(shown: Shown, columns: int, variables: dict[str, str]) -> None:
    """It ended well, nothing of the bar is left, no line was cut, colour was used or not."""
    assert shown.code == 0, shown.text
    assert "Traceback" not in shown.text
    assert not BAR.search(shown.text), shown.text
    assert all(len(line) <= columns for line in shown.lines)
    assert not ("NO_COLOR" in variables and COLOUR.search(shown.raw))
    for moment in shown.moments:
        bars = [number for number, line in enumerate(moment) if BAR.search(line)]
        assert bars in ([], [len(moment) - 1]), "the bar is one line, below all others"
        assert all(set(moment[n][:20]) <= set("━╸╺ ") for n in bars), "a message is in the bar"


@pytest.mark.parametrize(("columns", "variables"), TERMINALS)
@pytest.mark.parametrize("typed", CASES)
def test_command(
    typed: str, columns: int, variables: dict[str, str], folder: Path, repository: Path
) -> None:
    shown = runner(folder, repository, columns, **variables)(*typed.split())
    check(shown, columns, variables)
    assert CASES[typed] in shown.words, shown.text
    if typed.startswith(("run", "validate", "build-engine net.onnx --int8")):
        assert BAR.search(shown.raw), "no bar was drawn"


FETCH = """
import dataclasses, sys
from srdeploy.models import PublishedWeights, vapsr
local = PublishedWeights(sys.argv.pop(1), sys.argv.pop(1), "none")
ours = dataclasses.replace(vapsr.VARIANTS[0], published=local)
vapsr.ARCHITECTURE = dataclasses.replace(vapsr.ARCHITECTURE, variants=(ours,))
from srdeploy.cli import main
main(prog_name="srdeploy")
"""


@pytest.mark.parametrize(("columns", "variables"), TERMINALS)
def test_fetch(columns: int, variables: dict[str, str], tmp_path: Path, repository: Path) -> None:
    """From a server on this machine."""
    content = bytes(range(256)) * 8000

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/net.pth"
        run = runner(tmp_path, repository, columns, **variables)
        digest = hashlib.sha256(content).hexdigest()
        shown = run("fetch", "vapsr-x4", program=("-c", FETCH, url, digest))
    finally:
        server.shutdown()
        server.server_close()
    check(shown, columns, variables)
    assert BAR.search(shown.raw)
    assert "of 2.0 MB" in shown.raw
    assert "licence: none" in shown.words


MESSAGES = """
import sys, time
from srdeploy.console import Output
output = Output()
with output.progress("frames") as update:
    for number in range(12):
        update(number, None if number < 4 else 12, "a word " * number)
        output.say(f"message {number}: " + "between " * (2 * number))
        print(f"note {number} of a library", file=sys.stderr)
        time.sleep(0.12)
output.say("done")
"""


@pytest.mark.parametrize(("columns", "variables"), TERMINALS)
def test_messages_stand_above_the_bar(
    columns: int, variables: dict[str, str], tmp_path: Path, repository: Path
) -> None:
    """Whoever writes them, however long they are, with and without a total."""
    shown = runner(tmp_path, repository, columns, **variables)(program=("-c", MESSAGES))
    check(shown, columns, variables)
    hidden = shown.raw.rfind("\x1b[?25l")
    assert shown.raw.find("\x1b[?25h", hidden) < shown.raw.find("message"), "the cursor is hidden"
    expected = []
    for number in range(12):
        expected += ["message", f"{number}:", *["between"] * (2 * number)]
        expected += f"note {number} of a library".split()
    assert shown.text.split() == [*expected, "done"]
    assert all(f" {number} frames" in shown.raw for number in range(4)), "no total, yet a count"
    assert all(f" {number} of 12 frames" in shown.raw for number in range(4, 12))


SHELL = ("-c", "import os, sys; os.execlp('sh', 'sh', '-c', sys.argv[1])")


def test_a_pipe_back_to_the_terminal(folder: Path, repository: Path) -> None:
    """What reads it prints when it likes: no bar is drawn then, into which it would."""
    line = f"{sys.executable} -m srdeploy run video.mp4 --engine {ENGINE} | cat"
    shown = runner(folder, repository)(line, program=SHELL)
    assert shown.code == 0, shown.text
    assert "wrote video_x4.mp4" in shown.lines
    assert "\x1b" not in shown.raw


def test_words_go_where_they_are_sent(folder: Path, repository: Path) -> None:
    """Standard output in a file takes the messages; the bar stays on the terminal."""
    line = f"{sys.executable} -m srdeploy run video.mp4 --engine {ENGINE} > said.txt"
    shown = runner(folder, repository)(line, program=SHELL)
    assert shown.code == 0, shown.text
    assert shown.lines == []
    assert BAR.search(shown.raw)
    assert "wrote video_x4.mp4" in (folder / "said.txt").read_text()
    assert "\x1b" not in (folder / "said.txt").read_text()


def test_a_terminal_that_cannot_move_its_cursor(folder: Path, repository: Path) -> None:
    run = runner(folder, repository, TERM="dumb")
    shown = run("run", "video.mp4", "--engine", ENGINE)
    assert shown.code == 0
    assert "\x1b" not in shown.raw
    assert "wrote video_x4.mp4" in shown.words


def test_errors_are_coloured_only_where_that_is_wanted(tmp_path: Path, repository: Path) -> None:
    shown = runner(tmp_path, repository)("run", "absent.mp4")
    assert shown.code == 1
    assert shown.lines == [
        "error: there is no file or folder absent.mp4",
        "hint: check the path",
    ]
    assert COLOUR.search(shown.raw)
    shown = runner(tmp_path, repository, NO_COLOR="1")("run", "absent.mp4")
    assert not COLOUR.search(shown.raw)
