"""A session that remembers what it computed: one reference serves many engines."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

from ..runtime.session import Frames, Session


class ReferenceCache(Session):
    """Wraps a session and keeps its latest outputs in memory, found by their input pixels.

    The outputs are read-only. Closing gives back the memory and closes the wrapped session.

    Args:
        session: What computes; may be slow.
        limit_bytes: Most memory that the kept outputs take together; what was not used for
            longest goes first, and an output larger than this is not kept.
    """

    def __init__(self, session: Session, limit_bytes: int = 1 << 30) -> None:
        self.scale, self.target = session.scale, session.target
        self.parallel = session.parallel
        self._session, self._limit = session, limit_bytes
        self._kept: OrderedDict[bytes, Frames] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def _upscale(self, frames: Frames) -> Frames:
        key = hashlib.sha256(repr(frames.shape).encode() + frames.tobytes()).digest()
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        # Outside the lock: a second thread may compute the same, but none has to wait.
        upscaled = self._session.upscale(frames)
        upscaled.setflags(write=False)
        self._keep(key, upscaled)
        return upscaled

    def _keep(self, key: bytes, upscaled: Frames) -> None:
        with self._lock:
            if key in self._kept or upscaled.nbytes > self._limit:
                return
            self._kept[key] = upscaled
            self._bytes += upscaled.nbytes
            while self._bytes > self._limit:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= oldest.nbytes

    def close(self) -> None:
        """Forget everything and close the wrapped session."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0
        self._session.close()
