"""A session whose engine can be exchanged while frames go through it."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from ..errors import EngineError
from .session import Frames, Session


@dataclass(eq=False)
class _Engine:
    """A session, and how many calls are inside it."""

    session: Session
    calls: int = 0
    retired: bool = False


class SwitchingSession(Session):
    """Starts with one engine and changes over to others between two calls.

    A call is answered by one engine from beginning to end: those in flight at a change finish
    on the old one, which is closed when the last of them has.

    Args:
        session: The first engine; it is closed by this session, as those after it.
        parallel: Calls to keep in flight, whatever the engine; None for those of the first.
    """

    def __init__(self, session: Session, parallel: int | None = None) -> None:
        self.scale, self.target = session.scale, session.target
        self.minimum_size = session.minimum_size
        self.parallel = session.parallel if parallel is None else parallel
        self._current = _Engine(session)
        self._closed = False
        self._started = 0
        self._notes: tuple[str, ...] = ()
        self._lock = threading.Lock()

    @property
    def notes(self) -> tuple[str, ...]:
        """Of all engines so far, and those of :meth:`note`."""
        with self._lock:
            return tuple(dict.fromkeys((*self._notes, *self._current.session.notes)))

    def note(self, sentence: str) -> None:
        """Add to the notes."""
        with self._lock:
            self._notes += (sentence,)

    def replace(self, session: Session) -> int:
        """Send the calls from now on to another engine.

        Returns:
            How many calls went to the engines before. With several threads the calls of
            neighbouring frames may begin in another order than the frames have.

        Raises:
            EngineError: It upscales by another factor, or this session is closed; the engine
                is closed then.
        """
        with self._lock:
            wrong = self._refusal(session)
            if not wrong:
                old, self._current = self._current, _Engine(session)
                self.target, self.minimum_size = session.target, session.minimum_size
                self._notes += old.session.notes
                started = self._started
        if wrong:
            session.close()
            raise EngineError(wrong)
        self._retire(old)
        return started

    def close(self) -> None:
        """Close the engine, once the calls in flight have ended."""
        with self._lock:
            self._closed = True
            current = self._current
        self._retire(current)

    def _refusal(self, session: Session) -> str:
        if self._closed:
            return "the run that was to change its engine has ended"
        if session.scale != self.scale:
            return (
                f"the new engine upscales by {session.scale}, the run began with one that"
                f" upscales by {self.scale}"
            )
        return ""

    def _upscale(self, frames: Frames) -> Frames:
        with self._lock:
            if self._closed:
                raise EngineError("the session is closed")
            engine = self._current
            engine.calls += 1
            self._started += 1
        try:
            return engine.session.upscale(frames)
        finally:
            with self._lock:
                engine.calls -= 1
                last = engine.retired and not engine.calls
            if last:
                engine.session.close()

    def _retire(self, engine: _Engine) -> None:
        """Close an engine now, or let its last call do it."""
        with self._lock:
            idle = not engine.calls and not engine.retired
            engine.retired = True
        if idle:
            engine.session.close()
