"""The commands as functions: what each takes, makes, and finds by itself.

The layer above all folders that chains them; ``cli.py`` parses and prints. Torch is imported
only by what needs it: building and running engines do not.
"""

from __future__ import annotations

from collections.abc import Callable

Say = Callable[[str], None]
"""Takes one line for the user."""

DEFAULT_MODEL = "vapsr"
DEFAULT_SCALE = 4
