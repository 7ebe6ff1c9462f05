"""``run --while-building``: the run starts on an engine made at once, a better one follows.

The better one is built in a process of its own: it can be given the cores that the run leaves
idle, and be ended at any moment.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path

from ..errors import SrDeployError
from ..export.pixels import with_pixels
from ..export.sizes import static_size
from ..files import digest_file
from ..interruption import interruptible
from ..runtime.engine import open_engine
from ..runtime.fitting import FittingSession
from ..runtime.model_file import read_model
from ..runtime.processes import end, without_interrupts
from ..runtime.session import Session
from ..runtime.switching import SwitchingSession
from ..runtime.targets import open_target
from ..runtime.worker import Failure, ignore_interrupts
from ..spec import BuildConfig, Manifest, Precision, ShapeRange
from . import Say
from .build_engine import BuildOptions, build_engine

NICENESS = 5
"""Steps by which the build stands back: it gets about a quarter of the cores that the run fills."""

BESIDE_A_RUN = "built while a run was using this machine: its times are longer than on idle cores"

Prepare = Callable[[Session, Manifest], Session]
"""What is put around an engine before frames go to it, such as tiles."""


def quick_engine(source: Path) -> tuple[Session, Manifest]:
    """An engine in memory, neither timed nor measured: fp32 in ONNX Runtime.

    Raises:
        SrDeployError: The model is refused.
    """
    model, spec = read_model(source)
    target = open_target("onnxruntime")
    graph = with_pixels(model).SerializeToString()
    size = static_size(model)
    config = BuildConfig(
        digest_file(source),
        target.name,
        target.version(),
        Precision.FP32,
        profiles=(ShapeRange.static(size[1], size[2], size[0]) if size else ShapeRange(),),
        graph_sha256=hashlib.sha256(graph).hexdigest(),
    )
    built = target.build(graph, config)
    sha256 = hashlib.sha256(built.content).hexdigest()
    manifest = Manifest(config, spec, sha256, f"the quick engine of {source.name}", built.device)
    session = target.open(built.content, manifest)
    return FittingSession(session, manifest, target.uses_profiles), manifest


@contextmanager
def built_meanwhile(
    first: Session,
    model: Path,
    options: BuildOptions,
    parallel: int,
    prepare: Prepare,
    say: Say,
) -> Iterator[SwitchingSession]:
    """A session that starts as ``first`` and changes over to the engine built from ``model``.

    A build that fails is noted, and the run ends as it began. One that is not done when the
    run is, is stopped and nothing of it stays, but for what an int8 search has measured.

    Args:
        first: What the run starts on; it is closed at the end.
        model: Exported ONNX of the same scale.
        options: Of the build; the engine is written as ``build-engine`` writes it.
        parallel: Calls to keep in flight.
        prepare: Put around the new engine.
        say: Takes lines for the user, in other threads too.
    """
    session = SwitchingSession(first, parallel)
    build = _Build(session, model, options, parallel, prepare, say)
    try:
        with session:
            build.start()
            yield session
        build.leave()
    finally:
        build.stop()


class _Build:
    """A build in another process, and the thread that listens to it."""

    def __init__(
        self,
        session: SwitchingSession,
        model: Path,
        options: BuildOptions,
        parallel: int,
        prepare: Prepare,
        say: Say,
    ) -> None:
        self._session, self._model, self._parallel = session, model, parallel
        self._prepare, self._say = prepare, say
        self._stopping = False
        context = multiprocessing.get_context("spawn")
        self._pipe, self._theirs = context.Pipe()
        options = replace(options, notes=(*options.notes, BESIDE_A_RUN))
        self._process = context.Process(
            target=_build, args=(self._theirs, model, options), name="build"
        )
        self._thread = threading.Thread(target=self._listen, name="build", daemon=True)

    def start(self) -> None:
        """Begin to build."""
        with without_interrupts():
            self._process.start()
        self._theirs.close()
        self._thread.start()

    def leave(self) -> None:
        """Say what becomes of a build that is not done when the run is."""
        if self._thread.is_alive():
            self._say(
                f"done before the new engine: its build was stopped; srdeploy build-engine"
                f" {self._model} makes it"
            )

    def stop(self) -> None:
        """End the process and the thread; nothing half-written stays."""
        self._stopping = True
        if self._process.pid is None:
            return
        self._process.terminate()
        end(self._process)
        if self._thread.ident is not None:
            self._thread.join()
        self._pipe.close()
        for leftover in Path().glob(f".*.{self._process.pid}.partial"):
            leftover.unlink(missing_ok=True)  # it had to be killed while it wrote

    def _listen(self) -> None:
        try:
            while isinstance(word := self._pipe.recv(), str):
                self._say(word)
            if isinstance(word, Failure):
                self._give_up(word.message)
            else:
                self._take_over(word)
        except (EOFError, OSError):
            self._give_up("its process ended")
        except SrDeployError as exc:
            self._give_up(exc.message)

    def _take_over(self, path: Path) -> None:
        self._say(f"wrote {path}")
        session, manifest = open_engine(path, self._parallel)
        try:
            prepared = self._prepare(session, manifest)
        except SrDeployError:
            session.close()
            raise
        started = self._session.replace(prepared)
        self._say(f"{path} takes over from frame {started + 1} on")

    def _give_up(self, reason: str) -> None:
        if not self._stopping:
            note = f"the better engine could not be built, the first one did it all: {reason}"
            self._session.note(note)
            self._say(note)


def _build(pipe: Connection, model: Path, options: BuildOptions) -> None:
    """Build in this process; sends lines for the user, then the path or a :class:`.Failure`."""
    ignore_interrupts()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(AttributeError, OSError):  # not on Windows
        os.nice(NICENESS)
    os.dup2(2, 1)  # standard output may take the video
    try:
        with interruptible():
            pipe.send(build_engine(model, options, None, pipe.send).path)
    except KeyboardInterrupt:
        return
    except Exception as exc:  # whatever it is, the run says it
        with suppress(OSError):
            pipe.send(Failure.of(exc))


def _end_with_parent() -> None:
    """Ask this process to end when the run has, however it did."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
