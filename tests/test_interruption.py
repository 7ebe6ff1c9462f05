"""Signals end what runs once, whatever libraries make of the interruption."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import pytest
from srdeploy import interruption
from srdeploy.errors import ExportError
from srdeploy.interruption import interrupt_again, interruptible, postponed


@pytest.fixture(autouse=True)
def signals() -> None:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def clean_up_after(number: int, *later: int) -> list[int]:
    """Interrupt, and have ``later`` come while that is cleaned up; those that were survived."""
    survived: list[int] = []

    def work() -> None:
        try:
            signal.raise_signal(number)
        finally:
            for other in later:
                signal.raise_signal(other)
                survived.append(other)

    with pytest.raises(KeyboardInterrupt):
        inside(work)
    return survived


def inside(work: Callable[[], None]) -> None:
    with interruptible():
        work()


@pytest.mark.parametrize("number", interruption.SIGNALS)
def test_an_error_that_a_library_makes_of_it_is_an_interruption(number: signal.Signals) -> None:
    def work() -> None:
        try:
            signal.raise_signal(number)
        except BaseException:
            raise ExportError("PyTorch could not export") from None

    with pytest.raises(KeyboardInterrupt) as caught:
        inside(work)
    assert isinstance(caught.value.__cause__, ExportError)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_an_error_without_a_signal_stays_what_it_is() -> None:
    def fail() -> None:
        raise ExportError("of its own")

    clean_up_after(signal.SIGINT)
    with pytest.raises(ExportError):
        inside(fail)


def test_the_clean_up_survives_repeated_signals() -> None:
    later = (signal.SIGINT, signal.SIGTERM, signal.SIGINT)
    assert clean_up_after(signal.SIGINT, *later) == [*later]


def test_a_later_signal_breaks_the_clean_up_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "ONE_WISH_SECONDS", -1.0)
    assert clean_up_after(signal.SIGINT, signal.SIGINT) == []


def test_a_callback_asks_again() -> None:
    def work() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            interrupt_again()
        threading.Event().wait(10)

    with pytest.raises(KeyboardInterrupt):
        inside(work)


def test_what_is_ignored_stays_ignored() -> None:
    """As in a job that ``nohup`` or a shell put into the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        inside(lambda: signal.raise_signal(signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_is_made_meanwhile_has_an_owner() -> None:
    made: list[str] = []

    def work() -> None:
        with postponed():
            signal.raise_signal(signal.SIGTERM)
            made.append("file")
        made.append("not reached")

    with pytest.raises(KeyboardInterrupt):
        inside(work)
    assert made == ["file"]
    inside(lambda: None)  # nothing of it is left
