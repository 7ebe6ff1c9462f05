"""Ctrl-C, or SIGTERM of another program, interrupts what runs: once, and never in silence.

A library may turn a ``KeyboardInterrupt`` into an error of its own or drop it. Keys repeat,
supervisors send several signals, and one process of several gets a terminal's and that of the
process above: the clean-up that the first one starts must survive the rest.
"""

from __future__ import annotations

import _thread
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ONE_WISH_SECONDS = 1.0
"""Signals that follow each other within that time are one wish to end."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)

_signals: list[float] = []
_postponing = 0


def is_new_wish(signals: list[float]) -> bool:
    """Add a signal to the times of those before; whether it is more than one of those repeated."""
    signals.append(time.monotonic())
    return len(signals) == 1 or signals[-1] - signals[-2] > ONE_WISH_SECONDS


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT and SIGTERM end what is inside.

    Raises:
        KeyboardInterrupt: A signal came and the inside failed, whatever error a library made
            of it.
    """
    _signals.clear()
    with handling_signals(_interrupt):
        try:
            yield
        except Exception as exc:
            if _signals:
                raise KeyboardInterrupt from exc
            raise


@contextmanager
def postponed() -> Iterator[None]:
    """Let a signal wait until the inside is through: what it makes then has an owner to remove it.

    For short work that does not wait for others, in the main thread, inside of
    :func:`interruptible`; elsewhere nothing changes.

    Raises:
        KeyboardInterrupt: At the end, where a signal came.
    """
    global _postponing
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = len(_signals)
    _postponing += 1
    try:
        yield
    finally:
        _postponing -= 1
    if len(_signals) > before and not _postponing:
        raise KeyboardInterrupt


def _interrupt(_number: int, _frame: object) -> None:
    if is_new_wish(_signals) and not _postponing:
        raise KeyboardInterrupt


def interrupt_again() -> None:
    """Interrupt the main thread once more, soon: for a callback whose caller drops errors."""
    _signals.clear()
    threading.Timer(0.01, _thread.interrupt_main).start()


@contextmanager
def handling_signals(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Let ``handler`` take SIGINT and SIGTERM, in the main thread; elsewhere nothing changes.

    A signal that the process was started to ignore, as with ``nohup``, stays ignored.
    """
    here = threading.current_thread() is threading.main_thread()
    taken = [n for n in SIGNALS if here and signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in taken}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def ignore_signals() -> None:
    """Let nothing interrupt the little that is left to do before the process ends."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
