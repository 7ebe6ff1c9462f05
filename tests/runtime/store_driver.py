"""A process of its own that takes an engine from a store; test_store.py starts and kills it."""

from __future__ import annotations

import hashlib
import os
import resource
import sys
import time
from pathlib import Path

from srdeploy.runtime.store import EngineStore
from srdeploy.runtime.targets import BuiltEngine
from srdeploy.runtime.targets.onnxruntime import OnnxRuntimeTarget
from srdeploy.spec import BuildConfig, ModelSpec, load

SECONDS = 60


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.01)


class Watched(OnnxRuntimeTarget):
    """The real target; says when it builds, and waits for a word if it is to."""

    def __init__(self, folder: Path, waits: bool) -> None:
        self.folder, self.waits = folder, waits

    def build(self, graph: bytes, config: BuildConfig) -> BuiltEngine:
        with (self.folder / "builds").open("a") as file:
            file.write(f"{os.getpid()}\n")
        if self.waits:
            wait_for(self.folder / "go")
        return super().build(graph, config)


def halt_while_writing(folder: Path) -> None:
    """From here on the graph is written by half, and no further."""
    write = Path.write_bytes

    def half(path: Path, content: bytes) -> int:
        if path.name != "graph.onnx":
            return write(path, content)
        written = write(path, content[: len(content) // 2])
        (folder / "writing").touch()
        wait_for(folder / "go")
        return written

    Path.write_bytes = half


def main(folder: Path, store: Path, job: Path, mode: str) -> None:
    if mode == "halt":
        halt_while_writing(folder)
    if mode == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    config = load(BuildConfig, (job / "config.json").read_text())
    spec = load(ModelSpec, (job / "spec.json").read_text())
    graph = (job / "graph").read_bytes()
    target = Watched(folder, mode == "wait")
    built = EngineStore(store).obtain(target, graph, config, spec, say)
    say(hashlib.sha256(built.content).hexdigest())


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), sys.argv[4])
