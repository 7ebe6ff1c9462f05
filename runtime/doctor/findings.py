"""What the doctor finds: findings in sections."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How something is."""

    OK = "ok"
    MISSING = "missing"
    BROKEN = "broken"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: Of what was looked at.
        state: How it is.
        detail: What was found.
        fixes: What to do about it, where it is missing or broken: mostly lines for the shell.
    """

    name: str
    state: State
    detail: str
    fixes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """Findings that belong together."""

    title: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Report:
    """All that was found.

    Attributes:
        base: The packages without which nothing runs.
        sections: The rest, in the order of the report.
    """

    base: Section
    sections: tuple[Section, ...]

    @property
    def broken_base(self) -> tuple[Finding, ...]:
        """What of the base install has to be repaired first."""
        return tuple(f for f in self.base.findings if f.state is not State.OK)
