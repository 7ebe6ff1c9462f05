"""Engines on disk: the file, its manifest beside it, and the checks before one is opened."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ..errors import EngineError, StaleEngine
from ..files import write_files
from ..plugins import plugin_versions
from ..spec import MANIFEST_FORMAT, BuildConfig, Manifest, dump, load
from .fitting import FittingSession
from .session import Session
from .targets import open_target

LARGEST_MANIFEST = 4 << 20


def manifest_path(engine: Path) -> Path:
    """``F.json`` beside the engine ``F``."""
    return engine.with_name(engine.name + ".json")


def page_path(engine: Path) -> Path:
    """``F.html`` beside the engine ``F``: the page of its build."""
    return engine.with_name(engine.name + ".html")


def log_path(engine: Path) -> Path:
    """``F.log`` beside the engine ``F``: what the builder said."""
    return engine.with_name(engine.name + ".log")


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
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_MANIFEST + 1)
    except OSError as exc:
        raise EngineError(f"{engine} has no manifest: {path}: {exc.strerror}") from exc
    return parse_manifest(content, str(path))


def parse_manifest(content: bytes, name: str) -> Manifest:
    """Read a manifest that nobody vouches for.

    Args:
        content: JSON in UTF-8.
        name: What errors call it.

    Raises:
        EngineError: It is too large, damaged, of another format, or names a file elsewhere.
    """
    if len(content) > LARGEST_MANIFEST:
        raise EngineError(f"{name} is too large for a manifest")
    try:
        text = content.decode()
        _check_format(text, name)
        manifest = load(Manifest, text)
        dump(manifest)  # what is nested too deeply to be written again
    except (ValueError, RecursionError) as exc:
        raise EngineError(f"{name} is damaged: {exc}") from exc
    file = manifest.engine_file
    if not file.isprintable() or file in ("", ".", "..") or set(file) & set("/\\:"):
        raise EngineError(f"{name} is damaged: {file!r} is not the name of an engine file")
    return manifest


def _check_format(text: str, name: str) -> None:
    """Say of a manifest of another format that it is one, not which field is unknown."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return  # who reads it says so
    found = document.get("format", MANIFEST_FORMAT) if isinstance(document, dict) else None
    if type(found) is int and found != MANIFEST_FORMAT:
        raise EngineError(f"{name} is of format {found}, expected {MANIFEST_FORMAT}")


def open_engine(engine: Path, parallel: int = 1, device: int = 0) -> tuple[Session, Manifest]:
    """Open an engine after checking it against its manifest and this machine.

    Frames that its profiles do not hold are made to fit (:class:`.FittingSession`).

    Args:
        engine: The engine file, its manifest beside it.
        parallel: Frames to keep in flight, see :meth:`Target.open`.
        device: Index of the GPU, for targets that run on one.

    Raises:
        EngineError: The engine is missing or damaged.
        StaleEngine: It was built for another machine, version or plugin.
        TargetUnavailable: Its target cannot run here.
    """
    content, manifest = read_engine(engine)
    if reason := why_stale(manifest.build, device):
        raise StaleEngine(f"{engine} {reason}")
    return open_checked(content, manifest, parallel, device), manifest


def open_checked(
    content: bytes, manifest: Manifest, parallel: int = 1, device: int = 0
) -> FittingSession:
    """Open an engine that was checked against its manifest and this machine.

    Raises:
        EngineError: Its target refuses it.
        TargetUnavailable: Its target cannot run here.
    """
    target = open_target(manifest.build.target)
    session = target.open(content, manifest, parallel, device)
    return FittingSession(session, manifest, target.uses_profiles)


def read_engine(engine: Path) -> tuple[bytes, Manifest]:
    """Read an engine that is what its manifest says, whether or not it fits this machine.

    Raises:
        EngineError: The engine is missing or damaged.
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
    return content, manifest


def why_stale(build: BuildConfig, device: int = 0) -> str | None:
    """What keeps an engine from running here, or None: what it was built for, what is here.

    Raises:
        TargetUnavailable: Its target is not installed.
    """
    target = open_target(build.target)
    return target.mismatch(build, device) or _plugin_mismatch(build)


def _plugin_mismatch(build: BuildConfig) -> str | None:
    """The plugin that an engine calls and that is not here, or is of another version."""
    here = plugin_versions()
    for plugin in build.plugins:
        name, _, version = plugin.rpartition(" ")
        if here.get(name) != version:
            found = f"has version {here[name]}" if name in here else "has no such plugin"
            return f"calls the plugin {name} of version {version}, this srdeploy {found}"
    return None
