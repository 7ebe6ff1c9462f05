"""The main job on a clip that this script makes: export, build-engine, run.

    python examples/main_job.py [FOLDER]

Runs the three commands in FOLDER (by default ``demo-out``), exactly as a user would type them,
the last of them in a terminal, and ends with the path of the video, the measured drift and the
speed.
"""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

from srdeploy.commands.run import speed
from srdeploy.data.demo_clip import make_demo_clip

COMMANDS = (
    "srdeploy export --model vapsr",
    "srdeploy build-engine --int8",
    "srdeploy run video.mp4",
)


ERASED = re.compile(r"[^\n]*\x1b\[2K")
CURSOR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
BAR = "━"
SIZE = (24, 80)  # rows and columns of the terminal


def in_terminal(words: list[str | Path], folder: Path) -> int:
    """Run a command in a terminal of its own, show what stays there, and return its exit code."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, SIZE)  # a new one is 0 columns wide
    process = subprocess.Popen(words, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = bytearray()
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the command has closed its end
            break
        if not part:
            break
        shown += part
        if sys.stdout.isatty():
            os.write(sys.stdout.fileno(), part)
    os.close(ours)
    if not sys.stdout.isatty():
        lines = CURSOR.sub("", ERASED.sub("", shown.decode(errors="replace"))).splitlines()
        print("\n".join(line for line in lines if line and BAR not in line))
    return process.wait()


def run(command: str, folder: Path, terminal: bool) -> dict[str, Any]:
    """Run one command in ``folder``, show what it prints, and return its result."""
    print(f"\n$ {command}", flush=True)
    words = shlex.split(command)
    program = Path(sys.executable).with_name(words[0])
    result = folder / ".result.json"
    line: list[str | Path] = [program, *words[1:], "--json", result.name]
    code = in_terminal(line, folder) if terminal else subprocess.call(line, cwd=folder)
    if code:
        sys.exit(code)
    document: dict[str, Any] = json.loads(result.read_text())
    result.unlink()
    return document


def main() -> None:
    """Make the clip, run the commands, print the summary."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-out").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    make_demo_clip(folder / "video.mp4")
    print(f"made {folder / 'video.mp4'}, a moving camera over bundled photographs, with sound")
    _, engine, video = (run(command, folder, command == COMMANDS[-1]) for command in COMMANDS)
    print()
    for record in engine["drift"]:
        print(
            f"drift:  {record['drift']:+z.3f} dB on {record['dataset']}"
            f" (int8 on {record['executed_on']} against {record['reference_runtime']} fp32)"
        )
    print(f"speed:  {speed(video['fps'])}, {video['width']}×{video['height']}")
    print(f"video:  {folder / video['output']}")


if __name__ == "__main__":
    main()
