"""The page as `spikedeblur view` serves it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from training_sets import make_store
from viewing import view


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """Yield the process and the address that it printed."""
    with view(store) as opened:
        yield opened
