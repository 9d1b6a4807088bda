"""A few kills of every stage; `make torture` does thirty."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .kills import run_all

FEW = {"simulate": 1, "voxelize": 1, "voxelize here": 1, "restore": 1, "train": 2}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform == "win32", reason="kills groups of processes")
def test_killed_stages_end_in_what_undisturbed_ones_give(tmp_path: Path) -> None:
    for outcome in run_all(tmp_path, FEW, seed=1):
        assert outcome.faults == (), outcome.stage
