"""The exception tree: drawn, complete, and never without a hint."""

from __future__ import annotations

import inspect
import pickle

import pytest
from srdeploy import errors

KINDS = [
    kind
    for kind in vars(errors).values()
    if inspect.isclass(kind) and issubclass(kind, errors.SrDeployError)
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_is_drawn_and_has_a_hint(kind: type[errors.SrDeployError]) -> None:
    assert errors.__doc__ is not None
    assert kind.__name__ in errors.__doc__
    assert "default_hint" in vars(kind), "a hint of its own kind"
    error = kind("what happened")
    assert (str(error), error.message) == ("what happened", "what happened")
    assert error.hint == kind.default_hint
    assert kind("what happened", "do this").hint == "do this"


def test_an_interruption_says_what_is_kept_in_another_process_too() -> None:
    assert errors.Interrupted().message == "interrupted; nothing half-written was left"
    made = pickle.loads(pickle.dumps(errors.Interrupted("interrupted; 3 are kept", "go on")))
    assert isinstance(made, KeyboardInterrupt), "what catches that catches this"
    assert (made.message, made.hint) == ("interrupted; 3 are kept", "go on")


def test_exit_codes() -> None:
    codes = {kind.__name__: kind.exit_code for kind in KINDS}
    assert codes.pop("DriftExceeded") == 3
    assert codes.pop("OptionError") == 2
    assert set(codes.values()) == {1}
