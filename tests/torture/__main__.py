"""`make torture`: break everything on purpose for 20 minutes, and say what held.

Kills at random moments, rivals for one product, full disks, damaged files by the thousand, a long
soak of the loader. Exit code 1 if anything was not as `docs/reliability.md` promises.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
os.environ.setdefault("OMP_NUM_THREADS", "1")

from . import hostile, kills
from .soak import soak

SLOPE = 10**6
"""Bytes a thousand samples by which the loader's memory may grow."""


def main() -> int:
    """Run all; prints a line a part as it is done."""
    from training_sets import make_store

    faults = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("kills", "hostile", "soak"):
            (folder / part).mkdir()
        seed = int(time.time())
        print(f"seed of the kills: {seed}", flush=True)
        for outcome in kills.run_all(folder / "kills", kills.FULL, seed):
            faults += len(outcome.faults)
            print(f"killed {outcome.kills} times: {outcome.stage}: {len(outcome.faults)} faults")
            print(*(f"  {fault}\n" for fault in outcome.faults), sep="", end="", flush=True)
        disks = [
            str(Path(__file__).with_name(f"test_{name}.py"))
            for name in ("disks", "last_part", "claims")
        ]
        faults += pytest.main(["-q", "-m", "slow", *disks]) != 0
        faults += hostile.run_all(folder / "hostile", share=1.0, processes=10)
        soaked = soak(make_store(folder / "soak", size=(64, 96)), 20_000)
        bad = soaked.slope > SLOPE or soaked.descriptors > 0 or soaked.processes > 0
        faults += bad
        print(
            f"loaded {soaked.samples} samples: {soaked.slope / 1e6:+.3f} MB a thousand, "
            f"{soaked.descriptors} descriptors and {soaked.processes} processes left"
        )
    print(f"{faults} faults")
    return min(faults, 1)


if __name__ == "__main__":
    sys.exit(main())
