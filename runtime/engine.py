"""Engines on disk: the file, its manifest beside it, and the checks before one is opened."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..errors import EngineError
from ..files import write_files
from ..plugins import plugin_versions
from ..spec import Manifest, dump, load
from .session import Session
from .targets import open_target

LARGEST_MANIFEST = 4 << 20


def manifest_path(engine: Path) -> Path:
    """``F.json`` beside the engine ``F``."""
    return engine.with_name(engine.name + ".json")


def page_path(engine: Path) -> Path:
    """``F.html`` beside the engine ``F``: the page of its build."""
    return engine.with_name(engine.name + ".html")


def write_engine(engine: Path, content: bytes, manifest: Manifest) -> None:
    """Write an engine and its manifest, both whole or neither, the manifest last.

    Were the machine to stop between the two, the new engine would not open: beside it were
    no manifest or an older one.

    Raises:
        OutputError: A file could not be written.
    """
    if hashlib.sha256(content).hexdigest() != manifest.engine_sha256:
        raise EngineError("the manifest describes another engine than the one to write")
    passport = dump(manifest, indent=1).encode()
    write_files({engine: content, manifest_path(engine): passport})


def read_manifest(engine: Path) -> Manifest:
    """Read the manifest of an engine, believing nothing.

    Raises:
        EngineError: It is missing, too large, damaged, or of another engine.
    """
    path = manifest_path(engine)
    hint = "build the engine again with srdeploy build-engine"
    try:
        if path.stat().st_size > LARGEST_MANIFEST:
            raise EngineError(f"{path} is too large for a manifest", hint)
        manifest = load(Manifest, path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise EngineError(f"{engine} has no manifest: {path}: {exc.strerror}", hint) from exc
    except ValueError as exc:
        raise EngineError(f"{path} is damaged: {exc}", hint) from exc
    if manifest.format != 1:
        raise EngineError(f"{path} is of format {manifest.format}, expected 1", hint)
    return manifest


def open_engine(engine: Path, parallel: int = 1) -> tuple[Session, Manifest]:
    """Open an engine after checking it against its manifest and this machine.

    Args:
        engine: The engine file, its manifest beside it.
        parallel: Frames to keep in flight, see :meth:`Target.open`.

    Raises:
        EngineError: The engine is missing, damaged or stale.
        TargetUnavailable: Its target cannot run here.
    """
    if not engine.is_file():
        raise EngineError(f"there is no engine {engine}", "srdeploy build-engine makes one")
    manifest = read_manifest(engine)
    content = engine.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != manifest.engine_sha256:
        raise EngineError(
            f"{engine} is not the file that its manifest describes"
            f" (SHA-256 {found[:12]}…, expected {manifest.engine_sha256[:12]}…)",
            "it was changed or cut short; build it again",
        )
    target = open_target(manifest.build.target)
    if target.version() != manifest.build.target_version:
        raise EngineError(
            f"{engine} was built for {target.name} {manifest.build.target_version},"
            f" here is {target.version()}",
            "build it again on this machine",
        )
    _check_plugins(engine, manifest)
    return target.open(content, manifest, parallel), manifest


def _check_plugins(engine: Path, manifest: Manifest) -> None:
    """Refuse an engine that calls a plugin which is not here, or is of another version.

    Raises:
        EngineError: There is one; it is named.
    """
    here = plugin_versions()
    for plugin in manifest.build.plugins:
        name, _, version = plugin.rpartition(" ")
        if here.get(name) != version:
            found = f"has version {here[name]}" if name in here else "has no such plugin"
            raise EngineError(
                f"{engine} calls the plugin {name} of version {version}, this srdeploy {found}",
                "build it again, or use the srdeploy that built it",
            )
