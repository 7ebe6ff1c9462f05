"""``srdeploy doctor``: what this machine can do, and what would let it do more."""

from __future__ import annotations

import dataclasses
import textwrap
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..console import printable
from ..errors import SrDeployError
from ..runtime.doctor.examine import examine
from ..runtime.doctor.findings import Finding, Report, Section, State
from . import Say

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.text import Text

_STYLES = {
    State.OK: "green",
    State.MISSING: "yellow",
    State.BROKEN: "bold red",
    State.NOT_APPLICABLE: "dim",
}
_INDENT = len("  missing  ")


def doctor(say: Say) -> Report:
    """Look at this machine.

    Args:
        say: Takes lines for the user.
    """
    return examine(say)


def format_report(report: Report) -> RenderableType:
    """The report for people, as wide as the console.

    Lines are broken between words. A word longer than the line, and a fix, which is there to
    be copied, stay whole: to be printed with ``crop=False``.
    """
    return _Page(report)


class _Page:
    """A report as rich draws it."""

    def __init__(self, report: Report) -> None:
        self._sections = (report.base, *report.sections)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        from rich.text import Text

        for section in self._sections:
            yield Text()
            yield Text(section.title, style="bold", no_wrap=True, overflow="ignore")
            yield from _lines(section, options.max_width)
        yield Text()
        yield _summary(self._sections)


def _lines(section: Section, width: int) -> Iterator[Text]:
    """What applies to this machine line by line, then the names of the rest."""
    rest: dict[str, list[str]] = {}
    here: list[Finding] = []
    for finding in section.findings:
        if finding.state is State.NOT_APPLICABLE:
            rest.setdefault(finding.detail, []).append(finding.name)
        else:
            here.append(finding)
    yield from _findings(here, width)
    for reason, names in rest.items():
        words = f"{State.NOT_APPLICABLE}, {reason}: {', '.join(names)}"
        for line in _wrapped(words, width - 2):
            yield _whole(f"  {line}", _STYLES[State.NOT_APPLICABLE])


def _findings(findings: list[Finding], width: int) -> Iterator[Text]:
    name_width = max((len(finding.name) for finding in findings), default=0)
    column = _INDENT + name_width + 2
    for finding in findings:
        first, *more = _wrapped(finding.detail, width - column)
        if column + len(first) > width:  # one long word
            first, more = "", [first, *more]
        line = _whole(f"  {finding.state:<7}  {finding.name:<{name_width}}  {first}".rstrip())
        line.stylize(_STYLES[finding.state], 2, 2 + len(finding.state))
        yield line
        for words in more:  # below the first, or as far to the left as a long word needs
            indent = next((i for i in (column, _INDENT) if i + len(words) <= width), 0)
            yield _whole(" " * indent + words)
        yield from map(_fix, finding.fixes)


def _fix(fix: str) -> Text:
    """A line to be copied."""
    line = _whole(f"{' ' * _INDENT}fix: {fix}")
    line.stylize("cyan", _INDENT, _INDENT + len("fix:"))
    return line


def _wrapped(words: str, width: int) -> list[str]:
    """Lines of words that are never broken."""
    lines = textwrap.wrap(words, max(width, 1), break_long_words=False, break_on_hyphens=False)
    return lines or [""]


def _whole(line: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(printable(line), style=style, no_wrap=True, overflow="ignore")


def _summary(sections: tuple[Section, ...]) -> Text:
    from rich.text import Text

    counts = Counter(finding.state for section in sections for finding in section.findings)
    parts = [
        Text(f"{counts[state]} {state}", style=_STYLES[state]) for state in State if counts[state]
    ]
    return Text(", ").join(parts)


def to_json(report: Report) -> dict[str, Any]:
    """The report as plain JSON."""
    sections = [dataclasses.asdict(s) for s in (report.base, *report.sections)]
    return {"ok": not report.broken_base, "sections": sections}


def check_base(report: Report) -> None:
    """Fail where the base install is broken.

    Raises:
        SrDeployError: A package without which nothing runs is missing or does not import.
    """
    if broken := report.broken_base:
        names = ", ".join(finding.name for finding in broken)
        fixes = dict.fromkeys(line for finding in broken for line in finding.fixes)
        raise SrDeployError(f"the base install is broken: {names}", " && ".join(fixes))
