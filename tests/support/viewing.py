"""`spikedeblur view` as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def view(*words: object) -> Iterator[tuple[subprocess.Popen, str]]:
    """Yield the process and the address that it printed; it is ended at last."""
    process = subprocess.Popen(
        [sys.executable, "-m", "spikedeblur", "view", *map(str, words), "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    assert " at http://127.0.0.1:" in line, line + process.stderr.read()
    yield process, line.rpartition(" at ")[2].split()[0]
    process.kill()
    process.wait()
