"""Finds the fitting file that srdeploy made in a folder: the newest, or the fastest engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..errors import SrDeployError
from ..runtime.engine import manifest_path, read_manifest, why_stale
from ..runtime.model_file import read_model
from ..runtime.targets import open_target
from ..spec import Manifest
from .fastest import fastest, keeps_budget, lost


def newest_model(folder: Path) -> Path | None:
    """The newest exported ONNX of ``folder``; engines and foreign files are passed over."""
    for path in _newest_first(folder, "*.onnx"):
        if manifest_path(path).exists():
            continue  # an engine of the target onnxruntime
        try:
            read_model(path)
        except SrDeployError:
            continue
        return path
    return None


def newest_engine(folder: Path, runnable: bool = True) -> Path | None:
    """The newest engine of ``folder``, by default of those that this machine can run."""
    return next((path for path, _ in _engines(folder, runnable)), None)


def _engines(folder: Path, runnable: bool = True) -> Iterator[tuple[Path, Manifest]]:
    """Engines of ``folder`` and their manifests, the newest first."""
    for path in _newest_first(folder, "*.json"):
        engine = path.with_suffix("")
        if not engine.is_file():
            continue
        try:
            manifest = read_manifest(engine)
            if runnable and not _runs_here(manifest):
                continue
        except SrDeployError:
            continue
        yield engine, manifest


def engine_to_run(folder: Path) -> tuple[Path | None, str]:
    """The engine of ``folder`` that a run takes, and why, in words for the user.

    The fastest that keeps its budget, among those of the newest one's network that were timed on
    the same machine at the same size. None where none can run here.
    """
    newest = newest_engine(folder)
    if newest is None:
        return None, ""
    first = read_manifest(newest)
    rivals = {
        path: manifest
        for path, manifest in _engines(folder)
        if _comparable(first, manifest) and keeps_budget(manifest)
    }
    if not rivals:
        return newest, "the newest engine in this directory"
    taken = fastest(list(rivals), rivals.__getitem__)
    others = [path for path in rivals if path != taken]
    if not others:
        if taken == newest:
            return taken, "the newest engine in this directory"
        why = "the newest engine in this directory that keeps its budget"
        return taken, f"{why}; {newest} is newer, but loses more"
    slower = ", ".join(f"{path} {_figures(rivals[path])}" for path in others)
    return taken, f"the best here at {_figures(rivals[taken])}; {slower}"


def _figures(manifest: Manifest) -> str:
    return f"{manifest.milliseconds:.0f} ms a frame, {lost(manifest):+z.3f} dB"


def _comparable(one: Manifest, other: Manifest) -> bool:
    """Whether the times of two engines tell which is faster."""
    return (
        one.milliseconds is not None
        and other.milliseconds is not None
        and one.timed_on == other.timed_on
        and one.build.onnx_sha256 == other.build.onnx_sha256
        and one.build.profiles == other.build.profiles
    )


def _runs_here(manifest: Manifest) -> bool:
    """Whether this machine has what the engine's target needs; a stale one may be rebuilt.

    Raises:
        TargetUnavailable: The library or the GPU is not here.
    """
    why_stale(manifest.build)
    return open_target(manifest.build.target).runs_here() is None


def _newest_first(folder: Path, pattern: str) -> list[Path]:
    files = [p for p in folder.glob(pattern) if p.is_file() and not p.name.startswith(".")]
    return sorted(files, key=lambda p: (p.stat().st_mtime_ns, p.name), reverse=True)
