"""The page as `spikedeblur view` serves it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from training_sets import make_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """Yield the process and the address that it printed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "spikedeblur", "view", str(store), "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    assert "4 sequences at http://127.0.0.1:" in line, line
    yield process, line.split(" at ")[1].split()[0]
    process.kill()
    process.wait()
