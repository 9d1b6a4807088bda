"""`python -m tests.torture.properties`: counts the cases of each promise in `docs/reliability.md`.

Prints the table's counts and writes them into it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs/reliability.md"
ROW = re.compile(r"^\| (.+?) \| (`tests/.+?`) \| (\d*)\s*\|$", re.MULTILINE)


def promises() -> list[tuple[str, list[str]]]:
    """Return each promise and the tests that it names."""
    rows = ROW.findall(DOCUMENT.read_text())
    return [(promise, re.findall(r"`([^`]+)`", named)) for promise, named, _ in rows]


def claims() -> dict[str, int]:
    """Return how many cases the table says that each promise has, at least."""
    return {promise: int(number or 0) for promise, _, number in ROW.findall(DOCUMENT.read_text())}


def counts() -> dict[str, int]:
    """Return how many cases pytest finds of each promise; a test without any is an error."""
    found = promises()
    names = sorted({name for _, named in found for name in named})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, *names], capture_output=True, text=True, check=False)
    if done.returncode:
        raise LookupError(f"{names}: {done.stdout[-500:]}{done.stderr[-500:]}")
    cases = [line for line in done.stdout.splitlines() if "::" in line]
    return {
        promise: sum(any(case.startswith(name) for name in named) for case in cases)
        for promise, named in found
    }


def counted(text: str, cases: dict[str, int]) -> str:
    """Return the document with these counts in its table."""
    return ROW.sub(lambda row: f"| {row[1]} | {row[2]} | {cases[row[1]]} |", text)


def main() -> None:
    """Count, print, write."""
    cases = counts()
    for promise, count in cases.items():
        print(f"{count:5d}  {promise}")
    DOCUMENT.write_text(counted(DOCUMENT.read_text(), cases))


if __name__ == "__main__":
    main()
