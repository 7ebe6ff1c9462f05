"""``srdeploy doctor``: what this machine can do, and what would let it do more."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import SrDeployError
from ..runtime.doctor.examine import examine
from ..runtime.doctor.findings import Finding, Report, Section, State
from . import Say
from .listing import Page, broken, whole

if TYPE_CHECKING:
    from rich.console import RenderableType
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
    sections = (report.base, *report.sections)
    return Page(lambda width: _page(sections, width))


def _page(sections: tuple[Section, ...], width: int) -> Iterator[Text]:
    for section in sections:
        yield whole("")
        yield whole(section.title, "bold")
        yield from _lines(section, width)
    yield whole("")
    yield _summary(sections)


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
        for line in broken(f"  {words}", width):
            yield whole(line, _STYLES[State.NOT_APPLICABLE])


def _findings(findings: list[Finding], width: int) -> Iterator[Text]:
    name_width = max((len(finding.name) for finding in findings), default=0)
    column = _INDENT + name_width + 2
    for finding in findings:
        first, *more = broken(finding.detail, width - column)
        if column + len(first) > width:  # one long word
            first, more = "", [first, *more]
        line = whole(f"  {finding.state:<7}  {finding.name:<{name_width}}  {first}".rstrip())
        line.stylize(_STYLES[finding.state], 2, 2 + len(finding.state))
        yield line
        for words in more:  # below the first, or as far to the left as a long word needs
            indent = next((i for i in (column, _INDENT) if i + len(words) <= width), 0)
            yield whole(" " * indent + words)
        yield from map(_fix, finding.fixes)


def _fix(fix: str) -> Text:
    """A line to be copied."""
    line = whole(f"{' ' * _INDENT}fix: {fix}")
    line.stylize("cyan", _INDENT, _INDENT + len("fix:"))
    return line


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
