"""`python -m tests.torture.properties`: the promises of `docs/reliability.md`, and their cases."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs/reliability.md"


def promises() -> list[tuple[str, list[str]]]:
    """Return each promise and the tests that it names."""
    rows = re.findall(r"^\| (.+?) \| (`tests/.+?`) \|$", DOCUMENT.read_text(), re.MULTILINE)
    return [(promise, re.findall(r"`([^`]+)`", named)) for promise, named in rows]


def collected(names: list[str]) -> list[str]:
    """Return the cases that pytest finds under these names; a name without any is an error."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, *names], capture_output=True, text=True, check=False)
    if done.returncode:
        raise LookupError(f"{names}: {done.stdout[-500:]}{done.stderr[-500:]}")
    return [line for line in done.stdout.splitlines() if "::" in line]


def main() -> None:
    """Print the table."""
    found = promises()
    cases = collected(sorted({name for _, names in found for name in names}))
    for promise, names in found:
        count = sum(any(case.startswith(name) for name in names) for case in cases)
        print(f"{count:5d}  {promise}")
    print(f"{len(cases):5d}  in all")


if __name__ == "__main__":
    main()
