"""SIGKILL inside a sequence: the store's bytes, and how much of the recording was read in all."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from data_sets import make_data_set

KILLS = 5

SMALL = """
import sys, time
from pathlib import Path
from spikedeblur.cli import main
from spikedeblur.pipeline.host import pieces
from spikedeblur.pipeline.spikes.dat import SpikeFile
from spikedeblur.pipeline.store import schema
from spikedeblur.pipeline.voxelize import job, plan, sources, task

log, *words = sys.argv[1:]
schema.SHARD_BYTES = 12_000
pieces.PIECE_BYTES, pieces.PLAIN_BYTES = 500, 4000
schema.shard_windows = plan.shard_windows = lambda n, _: min(4, n)
hashed, packed, written = sources.hash_bytes, SpikeFile.packed, task.write_shard

def read(what, count):
    with open(log, "a") as file:
        file.write(f"{what} {count}\\n")

def hash_bytes(path, start, stop):
    if str(path).endswith(".dat"):
        read("hashed", stop - start)
    return hashed(path, start, stop)

def gather(self, start, stop, out):
    first, end = self.place(start, stop)
    read("stored", end - first)
    packed(self, start, stop, out)

def slowly(one):
    result = written(one)
    time.sleep(0.03)
    return result

sources.hash_bytes, SpikeFile.packed = hash_bytes, gather
job.write_shard = job.try_shard = slowly
sys.exit(main(["--quiet", "voxelize", *words, "--workers=1", "--bins=8"]))
"""
"""A voxelize of small shards, which notes each read of the recording before it begins."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sequence_killed_again_and_again_is_read_little_more_than_once(tmp_path: Path) -> None:
    data = make_data_set(tmp_path, centres=tuple(range(2, 302, 4)), seqs=("train/a",))
    size = (data.root / "raw/train/a/spike.dat").stat().st_size

    def start(store: Path) -> subprocess.Popen[bytes]:
        log = store.with_suffix(".log")
        return subprocess.Popen([sys.executable, "-c", SMALL, log, data.manifest, store])

    def notes(store: Path) -> int:
        return len(list(store.glob("train/a/.work/*.json")))

    assert start(tmp_path / "whole").wait() == 0
    killed, rng = tmp_path / "killed", random.Random(3)
    for _ in range(KILLS):
        process, before = start(killed), notes(killed)
        while process.poll() is None and notes(killed) < before + 2:
            time.sleep(0.005)
        time.sleep(0.1 * rng.random())
        assert process.poll() is None, "done before it could be killed"
        process.kill()
        process.wait()
    assert start(killed).wait() == 0

    def files(store: Path) -> dict[str, bytes]:
        found = (path for path in store.rglob("*") if path.is_file())
        return {path.relative_to(store).as_posix(): path.read_bytes() for path in found}

    assert files(killed) == files(tmp_path / "whole")
    for name, most in (("whole", 1.0), ("killed", 1.3)):
        lines = (tmp_path / f"{name}.log").read_text().split("\n")[:-1]
        for what in ("hashed", "stored"):
            read = sum(int(line.split()[1]) for line in lines if line.startswith(what))
            assert size * 0.99 <= read <= size * most, (name, what, read / size)
