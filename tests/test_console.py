"""What is printed: wrapped between words, without what steers a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from srdeploy.console import printable, wrapped


@given(st.lists(st.text("ab c", min_size=0, max_size=60), max_size=4), st.integers(8, 40))
def test_wrapping_keeps_words_and_lines(lines: list[str], width: int) -> None:
    text = wrapped("\n".join(lines), width)
    assert text.split() == " ".join(lines).split()
    assert all(len(line) <= width or " " not in line.strip() for line in text.split("\n"))
    assert text.count("\n") >= max(0, len(lines) - 1)


def test_each_line_of_a_message_has_its_indent() -> None:
    assert wrapped("one two\n  three four", 8) == "one two\n  three\n  four"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[0;93m2026 [W:onnxruntime]\x1b[m gone", "2026 [W:onnxruntime] gone"),
        ("\x1b[2J\x1b]0;title\x07", "�[2J�]0;title�"),
        ("a\tb\nc\xa0d×", "a\tb\nc\xa0d×"),
    ],
)
def test_a_terminal_is_not_steered(text: str, shown: str) -> None:
    assert printable(text) == shown
