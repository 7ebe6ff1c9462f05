"""Finds the newest fitting file that srdeploy made in a folder."""

from __future__ import annotations

from pathlib import Path

from ..errors import SrDeployError
from ..runtime.engine import manifest_path, read_manifest, why_stale
from ..runtime.model_file import read_model
from ..runtime.targets import open_target
from ..spec import Manifest


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
        return engine
    return None


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
