"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from small_disks import mounted

from spikedeblur.cli.output import chosen_log_format, is_quiet

REPOSITORY = Path(__file__).resolve().parents[1]

# pytest-xdist gives its workers a width of 80 columns, which tables in pipes would follow.
for variable in ("COLUMNS", "LINES"):
    os.environ.pop(variable, None)

# Timings are never tests: a busy machine would fail what is right.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout that is tested."""
    return REPOSITORY


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Real recordings, which are not part of the project; the test is skipped without them."""
    folder = REPOSITORY.parent / "shared" / "realdata"
    if not folder.is_dir():
        pytest.skip("no real recordings beside the checkout (shared/realdata)")
    return folder


@pytest.fixture(autouse=True)
def not_quiet() -> None:
    """What an earlier test asked of the command line holds for a process: begin without it."""
    is_quiet.set(False)
    chosen_log_format.set("text")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte, of which tests may change the size."""
    with mounted(tmp_path / "disk") as disk:
        yield disk


LONGEST = (
    "torture/test_hostile.py",
    "tests/test_docs.py",
    "trained/test_program.py",
    "train/test_slurm_script.py",
    "torture/test_kills.py",
    "tests/test_rig.py",
)
"""Files whose slow tests take minutes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that no worker is left with one while the other waits."""

    def rank(item: pytest.Item) -> int:
        return next((i for i, name in enumerate(LONGEST) if str(item.path).endswith(name)), 99)

    items.sort(key=rank)
