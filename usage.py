"""What click does not know of a command line: addresses, contradictions, examples, near misses."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from .console import STANDARD
from .errors import OutputError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
COMMON = {"--scale": "A network has its scale: srdeploy export --model vapsr --scale 2"}
"""Options that people try on commands which do not have them, and what to do instead."""


class FilePath(click.ParamType["Path"]):
    """A path; an address such as https://… is refused, for srdeploy downloads nothing unasked."""

    name = "path"
    advice = "Download it first, for instance with: curl -LO '{}'"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Read a path."""
        if value == "":
            self.fail("a file without a name", param, ctx)
        path = Path(value)
        if isinstance(value, str) and _ADDRESS.match(value) and not path.exists():
            refused = f"'{value}' is an address, and srdeploy works on files"
            self.fail(f"{refused}\n{self.advice.format(value)}", param, ctx)
        return path


class OutputPath(FilePath):
    """A path to write to, looked at by :func:`check_outputs` before the work begins.

    Args:
        folder: Whether a folder may be there already.
        makes_parents: Whether the folders above it are made.
    """

    advice = "Write a file, and upload that."

    def __init__(self, folder: bool = False, makes_parents: bool = False) -> None:
        self._folder = folder
        self._makes_parents = makes_parents

    def check(self, path: Path) -> None:
        """Raise what writing would raise in the end.

        Raises:
            OutputError: The folder is missing or cannot be written to, or a folder is there.
        """
        if path.is_dir() and not self._folder:
            raise OutputError(f"{path} is a folder", "name the file to write")
        parent = path.parent
        if not parent.is_dir() and not self._makes_parents:
            raise OutputError(
                f"{path} cannot be written: there is no folder {parent}",
                f"mkdir -p {shlex.quote(str(parent))}",
            )
        if parent.is_dir() and not os.access(parent, os.W_OK):
            raise OutputError(f"{path} cannot be written: no permission to write in {parent}")


def check_outputs(ctx: click.Context) -> None:
    """Look at all that a command is to write, before it works for minutes.

    Raises:
        OutputError: Something of it could not be written.
    """
    for param in ctx.command.params:
        path = ctx.params.get(param.name or "")
        if isinstance(param.type, OutputPath) and path not in (None, STANDARD):
            param.type.check(path)


class Command(click.Command):
    """A command whose help ends with examples and whose usage errors say what to do.

    Args:
        examples: Lines for the shell, each with what it does.
        instead: Option that the command does not have to what to do instead; ``{}`` is the option.
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
            advice = advice.format(exc.option_name)
            message = f"{ctx.command_path} has no option {exc.option_name}\n{advice}"
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
