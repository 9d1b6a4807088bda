"""What `check` notes while it reads one sequence."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...frames.listing import shorten
from ...host.reporter import counted
from ..manifest import AlignedSequence


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """One thing that is wrong with a sequence, or worth a note."""

    kind: str
    """missing, unreadable, cut, changed, touched, size, colours, black, frozen, dead, hot, empty,
    exposure, gain, rate or alignment."""
    message: str
    wrong: bool = True
    """False: only a note."""


@dataclass(slots=True)
class Checking:
    """One sequence while it is read, with the findings so far."""

    sequence: AlignedSequence
    paths: dict[str, str]
    """Where each file is, by its path in the manifest."""
    findings: list[CheckFinding] = field(default_factory=list)
    bytes: int = 0
    """Size of all files together."""
    unreadable: set[str] = field(default_factory=set)
    """Files that later checks leave out."""
    luminances: dict[str, float] = field(default_factory=dict)
    """Mean luminance of each blurred frame that is not black, in [0, 1]."""

    def note(self, kind: str, message: str, *, wrong: bool = True) -> None:
        """Add a finding."""
        self.findings.append(CheckFinding(kind, message, wrong))

    def note_files(self, kind: str, names: list[str], what: str) -> None:
        """Add a finding about several of the sequence's files, if there are any."""
        if names:
            of = len(self.sequence.files)
            self.note(kind, f"{len(names)} of {counted(of, 'file')} {what}: {shorten(names)}")
