"""The main job on a clip that this script makes: export, build-engine, run.

    python examples/main_job.py [FOLDER]

Runs the three commands in FOLDER (by default ``demo-out``), exactly as a user would type them,
and ends with the path of the video, the measured drift and the frames per second.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from srdeploy.data.demo_clip import make_demo_clip

COMMANDS = (
    "srdeploy export --model vapsr",
    "srdeploy build-engine --int8",
    "srdeploy run video.mp4",
)


def run(command: str, folder: Path) -> dict[str, Any]:
    """Run one command in ``folder``, show what it prints, and return its result."""
    print(f"\n$ {command}", flush=True)
    words = shlex.split(command)
    program = Path(sys.executable).with_name(words[0])
    result = folder / ".result.json"
    done = subprocess.run([program, *words[1:], "--json", result.name], cwd=folder, check=False)
    if done.returncode:
        sys.exit(done.returncode)
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
    _, engine, video = (run(command, folder) for command in COMMANDS)
    print()
    for record in engine["drift"]:
        print(
            f"drift:  {record['drift']:+.3f} dB on {record['dataset']}"
            f" (int8 on {record['executed_on']} against {record['reference_runtime']} fp32)"
        )
    print(f"speed:  {video['fps']:.1f} frames/s, {video['width']}×{video['height']}")
    print(f"video:  {folder / video['output']}")


if __name__ == "__main__":
    main()
