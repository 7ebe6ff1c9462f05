"""``srdeploy engines``: what the engine store holds, checked, bounded, moved to other machines."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import hexdigits
from typing import TYPE_CHECKING, Any

from ..console import printable
from ..errors import EngineError
from ..files import write_bytes
from ..runtime.bundle import SUFFIX, bundle_bytes, read_bundle
from ..runtime.engine import read_engine, write_engine
from ..runtime.store import GIB, EngineStore
from ..runtime.store_entry import StoredEngine
from ..runtime.store_rebuild import with_note
from ..runtime.store_shelf import StoreEntry
from ..spec import Manifest
from . import Say
from .fastest import lost
from .listing import Page, aligned, broken, whole
from .opening import fitting

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

SHORT = 12
"""Characters of a digest that are shown."""
LEAST_PREFIX = 4
HEADINGS = ("engine", "ms", "drift, dB", "MiB", "used (UTC)", "what")
FIGURES = frozenset(map(HEADINGS.index, ("ms", "drift, dB", "MiB")))
GAP = 2
LEAST_WHAT = 16
"""Columns below which what an engine is stands under its figures, not beside them."""
MIB = 1 << 20
DAY_SECONDS = 86_400


@dataclass(frozen=True)
class Moved:
    """An engine that was exported or imported.

    Attributes:
        digest: Of its build input.
        path: What was written, None where it only went into the store.
        manifest: Of the engine.
    """

    digest: str
    path: Path | None
    manifest: Manifest

    def document(self) -> dict[str, Any]:
        """All of it as plain JSON."""
        return {
            "digest": self.digest,
            "path": str(self.path) if self.path else None,
            "target": self.manifest.build.target,
            "notes": self.manifest.notes,
        }


def list_engines(store: EngineStore) -> dict[str, Any]:
    """What the store holds as plain JSON, the last used engine first; unchecked."""
    entries = store.entries()
    return {
        "folder": str(store.folder),
        "limit_bytes": store.limit_bytes,
        "bytes": sum(entry.size for entry in entries),
        "engines": [_row(entry) for entry in entries],
    }


def _row(entry: StoreEntry) -> dict[str, Any]:
    used = datetime.datetime.fromtimestamp(entry.used, datetime.UTC)
    row: dict[str, Any] = {
        "digest": entry.digest,
        "bytes": entry.size,
        "used": used.isoformat(timespec="seconds"),
        "variant": None,
    }
    if entry.manifest is None:
        return row
    build = entry.manifest.build
    return row | {
        "variant": entry.manifest.model.variant,
        "target": build.target,
        "target_version": build.target_version,
        "precision": build.precision.value,
        "device": entry.manifest.device,
        "milliseconds": entry.manifest.milliseconds,
        "drift": lost(entry.manifest) if entry.manifest.drift else None,
    }


def summary_of(listed: dict[str, Any]) -> str:
    """What the list holds in a line."""
    size, limit = listed["bytes"] / MIB, listed["limit_bytes"] / GIB
    count = counted(len(listed["engines"]))
    return f"{count}, {size:.1f} MiB of {limit:g} GiB, in {listed['folder']}"


def format_engines(listed: dict[str, Any]) -> RenderableType:
    """The list for people: a table, on a narrow terminal a few lines for each engine."""
    rows = [tuple(map(printable, _cells(row))) for row in listed["engines"]]
    return Page(lambda width: _lines(rows, width))


def _lines(rows: Sequence[tuple[str, ...]], width: int) -> Iterator[Text]:
    figures = aligned([cells[:-1] for cells in (HEADINGS, *rows)], FIGURES, GAP)
    room = width - max(map(len, figures)) - GAP
    if room < max([LEAST_WHAT, *(len(word) for row in rows for word in row[-1].split())]):
        yield from (whole(line) for row in rows for line in _stacked(row, width))
        return
    head, *table = _table(rows, room)
    yield whole(head, "bold")
    yield from map(whole, table)


def _table(rows: Sequence[tuple[str, ...]], room: int) -> list[str]:
    """Heads and rows; what an engine is takes as many lines as it needs."""
    lines: list[Sequence[str]] = [HEADINGS]
    for *figures, what in rows:
        first, *more = broken(what, room)
        lines += [[*figures, first], *([""] * len(figures) + [part] for part in more)]
    return aligned(lines, FIGURES, GAP)


def _stacked(row: tuple[str, ...], width: int) -> Iterator[str]:
    """The cells of an engine below its digest, with the words that are heads of the table."""
    digest, speed, drift, size, used, what = row
    yield digest
    yield from broken(f"  {speed} ms, drift {drift} dB, {size} MiB, used {used} UTC", width)
    yield from broken(f"  {what}", width)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    speed, drift = row.get("milliseconds"), row.get("drift")
    return (
        row["digest"][:SHORT],
        "–" if speed is None else f"{speed:.1f}",
        "–" if drift is None else f"{drift:+z.3f}",
        f"{row['bytes'] / MIB:.1f}",
        row["used"][:16].replace("T", " "),
        _what(row),
    )


def _what(row: dict[str, Any]) -> str:
    if row["variant"] is None:
        return "damaged: its manifest cannot be read"
    version = row["target_version"].partition("-")[0]  # OpenVINO adds its commit
    return f"{row['variant']} {row['precision']}, {row['target']} {version}, {row['device']}"


def counted(number: int) -> str:
    """A number of engines in words."""
    return "1 engine" if number == 1 else f"{number} engines"


def verify_engines(store: EngineStore, repair: bool, say: Say) -> dict[str, str]:
    """Check every byte of the store and say what is damaged, by digest."""
    damaged = store.verify(say, repair)
    for reason in damaged.values():
        say(f"{'removed' if repair else 'damaged'}: {reason}")
    return damaged


def prune_engines(
    store: EngineStore, keep_gib: float | None, older_days: float | None, say: Say
) -> dict[str, Any]:
    """Remove engines and say what that freed.

    Args:
        store: Where from.
        keep_gib: Most that is left; None for the store's limit.
        older_days: Engines that were not used for as long go; None for any age.
        say: Takes lines for the user.
    """
    limit = None if keep_gib is None else int(keep_gib * GIB)
    seconds = None if older_days is None else older_days * DAY_SECONDS
    removed = store.prune(limit, seconds)
    freed, left = sum(entry.size for entry in removed), store.entries()
    say(f"removed {counted(len(removed))}, freed {freed / MIB:.1f} MiB; left: {len(left)}")
    over = sum(entry.size for entry in left) - (store.limit_bytes if limit is None else limit)
    if over > 0:
        say("note: what is beyond the limit is in use by another srdeploy and was left")
    return {"removed": [entry.digest for entry in removed], "freed_bytes": freed}


def export_engine(
    store: EngineStore, which: str, output: Path | None, as_engine: bool, say: Say
) -> Moved:
    """Write a bundle, or an engine with its manifest, of an engine or of an entry of the store.

    Args:
        store: Where entries and graphs are.
        which: An engine file, or the beginning of a digest.
        output: What to write; None for a name made of the engine's, in the current directory.
        as_engine: Whether the engine and its manifest are written in place of a bundle.
        say: Takes lines for the user.

    Raises:
        EngineError: There is no such engine, or it or its graph is damaged or gone.
        OutputError: The file could not be written.
    """
    stored = _from_file(store, Path(which)) if Path(which).is_file() else _from_store(store, which)
    name = Path(stored.manifest.engine_file)
    if as_engine:
        written = output or name
        _write(written, stored)
    else:
        written = output or name.with_name(name.name + SUFFIX)
        write_bytes(written, bundle_bytes(stored))
    say(f"wrote {written}{' and its manifest' if as_engine else ''}")
    return Moved(stored.manifest.build.digest(), written, stored.manifest)


def _from_file(store: EngineStore, path: Path) -> StoredEngine:
    content, manifest = read_engine(path)
    graph = store.graph_of(manifest.build.graph_sha256)
    if graph is None:
        raise EngineError(
            f"the graph that {path} was built from is not in the store {store.folder}",
            "build it again with srdeploy build-engine",
        )
    return StoredEngine(content, manifest, graph)


def _from_store(store: EngineStore, prefix: str) -> StoredEngine:
    _check_prefix(prefix)
    found = [e.digest for e in store.entries() if e.digest.startswith(prefix.lower())]
    if len(found) != 1:
        several = f": {', '.join(digest[:SHORT] for digest in found)}" if found else ""
        raise EngineError(
            f"'{prefix}' is no engine file and names {len(found)} engines of the store{several}",
            "srdeploy engines ls shows the digests",
        )
    stored = store.get(found[0])
    if stored is None:
        raise EngineError(f"the engine {found[0][:SHORT]} was just removed from the store")
    return with_note(stored)


def _check_prefix(which: str) -> None:
    """Tell the beginning of a digest from the name of a file that is not there.

    Raises:
        EngineError: It is such a name, or too short.
    """
    hint = "name an engine file, or an engine of the store as srdeploy engines ls shows it"
    if not set(which) <= set(hexdigits):
        missing = f"there is no engine file {which}"
        raise EngineError(f"{missing}: it is a folder" if Path(which).is_dir() else missing, hint)
    if len(which) < LEAST_PREFIX:
        raise EngineError(
            f"'{which}' is no engine file, and too short for the beginning of a digest: that needs"
            f" at least {LEAST_PREFIX} characters",
            hint,
        )


def import_engine(store: EngineStore, bundle: Path, output: Path | None, say: Say) -> Moved:
    """Put what is in a bundle into the store, and write the engine if an output is named.

    Args:
        store: Where to.
        bundle: Hostile until shown otherwise.
        output: Engine to write, its manifest beside it; None for none.
        say: Takes lines for the user.

    Raises:
        EngineError: It is no bundle, is damaged, or stale and cannot be rebuilt here.
        OutputError: The engine could not be written.
    """
    stored = fitting(bundle, read_bundle(bundle), store, say)
    digest = stored.manifest.build.digest()
    if output is not None:
        _write(output, stored)
        say(f"wrote {output} and its manifest")
    if any(entry.digest == digest for entry in store.entries()):
        say(f"the engine is in the store as {digest[:SHORT]}")
    return Moved(digest, output, stored.manifest)


def _write(path: Path, stored: StoredEngine) -> None:
    manifest = dataclasses.replace(stored.manifest, engine_file=path.name)
    write_engine(path, stored.content, manifest)


def damaged_error(damaged: Sequence[str], count: int) -> EngineError:
    """What ``verify`` ends with where something is damaged."""
    named = ", ".join(digest[:SHORT] for digest in damaged)
    return EngineError(
        f"{len(damaged)} of {counted(count)} damaged: {named}",
        "srdeploy engines verify --repair removes them; what needs one builds it again",
    )
