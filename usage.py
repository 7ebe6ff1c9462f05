"""What click does not know of a command line: addresses, contradictions, examples, near misses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
COMMON = {"--scale": "A network has its scale: srdeploy export --model vapsr --scale 2"}
"""Options that people try on commands which do not have them, and what to do instead."""


class FilePath(click.ParamType["Path"]):
    """A path; an address such as https://… is refused, for srdeploy downloads nothing unasked."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Read a path."""
        path = Path(value)
        if isinstance(value, str) and _ADDRESS.match(value) and not path.exists():
            self.fail(
                f"'{value}' is an address, and srdeploy works on files\n"
                f"Download it first, for instance with: curl -LO '{value}'",
                param,
                ctx,
            )
        return path


class Command(click.Command):
    """A command whose help ends with examples and whose usage errors say what to do.

    Args:
        examples: Lines for the shell, each with what it does.
        instead: Option that the command does not have to what to do instead.
        one_input: What to do where more than one INPUT is given; empty for click's own words.
    """

    def __init__(
        self,
        *args: Any,
        examples: Sequence[tuple[str, str]] = (),
        instead: Mapping[str, str] | None = None,
        one_input: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)
        self._instead = COMMON | dict(instead or {})
        self._one_input = one_input

    def format_epilog(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, each on a line of its own below what it does."""
        if not self.examples:
            return
        with formatter.section("Examples"):
            for line, purpose in self.examples:
                formatter.write(f"{'':{formatter.current_indent}}# {purpose}\n")
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, with better words for what does not parse."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as exc:
            advice = self._instead.get(exc.option_name)
            if advice is None:
                raise
            message = f"{self.name} has no option {exc.option_name}\n{advice}"
            raise click.UsageError(message, ctx) from exc
        except click.UsageError as exc:
            if self._one_input and exc.message.startswith("Got unexpected extra argument"):
                more = exc.message.partition("(")[2].removesuffix(")")
                message = f"{self.name} takes one file or folder; got more: {more}"
                raise click.UsageError(f"{message}\n{self._one_input}", ctx) from exc
            raise


def only_one(flags: Mapping[str, bool]) -> str | None:
    """The flag that was given of those that contradict each other, by its name; None for none.

    Raises:
        click.UsageError: There are several.
    """
    given = [name for name, was_given in flags.items() if was_given]
    if len(given) > 1:
        listed = " and ".join(f"--{name}" for name in given)
        raise click.UsageError(f"{listed} contradict each other: give one")
    return given[0] if given else None
