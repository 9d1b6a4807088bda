"""Commands one after the other in a process of their own: what each said, and took of memory.

`python measured.py` reads a list of commands (lists of words) as JSON and writes, for each,
[exit code, stderr, bytes that the peak lay above what was resident before].
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOM = 3 * 10**9
"""Bytes of address space beyond the imports: a case that fails must not take the machine along."""

Outcome = tuple[int, str, int]


def measure(commands: Sequence[Sequence[object]], timeout: float = 240) -> list[Outcome]:
    """Run commands of `spikedeblur`; Linux only."""
    words = json.dumps([[str(word) for word in command] for command in commands])
    done = subprocess.run(
        [sys.executable, __file__],
        input=words,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=True,
    )
    return [(code, said, extra) for code, said, extra in json.loads(done.stdout)]


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def _main() -> None:
    import spikedeblur.pipeline.inspect
    import spikedeblur.pipeline.trained
    import spikedeblur.pipeline.weights.checkpoint  # noqa: F401  with torch and the network
    from spikedeblur.cli import main

    limit = _status("VmSize:") + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    outcomes = []
    for command in json.load(sys.stdin):
        ctypes.CDLL(None).malloc_trim(0)  # what was freed must not hide what is taken
        before = _status("VmRSS:")
        Path("/proc/self/clear_refs").write_text("5")
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = main(command)
        outcomes.append((code, said.getvalue(), _status("VmHWM:") - before))
    print(json.dumps(outcomes))


if __name__ == "__main__":
    _main()
