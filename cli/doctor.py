"""`spikedeblur doctor`."""

from __future__ import annotations

import typer

from .options import Json
from .output import print_json, say


def doctor(json: Json = False) -> None:
    """Check this machine's libraries, cores, memory, disk and GPU.

    Exit code 1: something is to be mended.

    Example: spikedeblur doctor
    """
    from ..pipeline.doctor import examine

    findings = examine()
    if json:
        print_json(findings)
    else:
        for finding in findings:
            advice = f"  -> {finding.advice}" if finding.advice else ""
            mark = "ok " if finding.ok else "BAD"
            say(f"{mark} {finding.what:18} {finding.found}{advice}")
        bad = sum(not finding.ok for finding in findings)
        better = sum(finding.ok and bool(finding.advice) for finding in findings)
        say(f"{bad} to mend, {better} that could be better")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)
