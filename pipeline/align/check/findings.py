"""What `check` collects while it reads one sequence."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..manifest import AlignedSequence


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """One thing that was found."""

    kind: str
    """missing, unreadable, cut, changed, touched, size, black, frozen, dead, hot, empty, exposure,
    gain or rate."""
    message: str
    wrong: bool = True
    """False: a note, which makes nothing wrong."""


@dataclass(slots=True)
class Checking:
    """What is known while a sequence is read."""

    sequence: AlignedSequence
    paths: dict[str, str]
    findings: list[CheckFinding] = field(default_factory=list)
    bytes: int = 0
    unreadable: set[str] = field(default_factory=set)
    luminances: dict[str, float] = field(default_factory=dict)
    """Mean of each blurred frame that is not black, in [0, 1]."""

    def tell(self, kind: str, message: str, wrong: bool = True) -> None:
        """Note a finding."""
        self.findings.append(CheckFinding(kind, message, wrong))
