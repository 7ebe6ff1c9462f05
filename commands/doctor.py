"""``srdeploy doctor``: what this machine can do, and what would let it do more."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator
from typing import Any

from ..errors import SrDeployError
from ..runtime.doctor.examine import examine
from ..runtime.doctor.findings import Report, Section, State
from . import Say

LINE = 110
_MARKS = {State.OK: "ok", State.MISSING: "missing", State.BROKEN: "broken"}


def doctor(say: Say) -> Report:
    """Look at this machine.

    Args:
        say: Takes lines for the user.
    """
    return examine(say)


def format_report(report: Report) -> Iterator[str]:
    """The report for people, a line for each finding and one for what mends it."""
    sections = (report.base, *report.sections)
    width = max(len(f.name) for section in sections for f in section.findings)
    margin = len("  missing  ") + width + 2
    for section in sections:
        yield ""
        yield section.title
        for finding in section.findings:
            first, *rest = textwrap.wrap(finding.detail, LINE - margin) or [""]
            yield f"  {_MARKS[finding.state]:<8} {finding.name:<{width}}  {first}"
            yield from (" " * margin + line for line in rest)
            yield from (" " * margin + f"fix: {line}" for line in finding.fixes)  # to be copied
    counts = {state: sum(_count(s, state) for s in sections) for state in State}
    yield ""
    yield ", ".join(f"{count} {_MARKS[state]}" for state, count in counts.items() if count)


def _count(section: Section, state: State) -> int:
    return sum(finding.state is state for finding in section.findings)


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
