"""Voxelizing on a Dask scheduler that was started apart."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import make_data_set
from .test_voxelize import files_of


def start(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "dask", *words]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler's address and its two workers, each a process of its own."""
    import json

    found = tmp_path / "scheduler.json"
    processes = [
        start(
            tmp_path,
            *("scheduler", "--host", "127.0.0.1", "--port", "0"),
            *("--dashboard-address", ":0", "--scheduler-file", str(found)),
        )
    ]
    try:
        deadline = time.monotonic() + 60
        while not found.exists():
            assert time.monotonic() < deadline, "the scheduler did not start"
            time.sleep(0.1)
        time.sleep(0.5)
        address = json.loads(found.read_text())["address"]
        workers = [
            start(tmp_path, "worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard")
            for _ in range(2)
        ]
        processes += workers
        yield address, workers
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_store_is_the_same_when_a_worker_is_killed_in_the_middle(
    tmp_path: Path, cluster: tuple[str, list[subprocess.Popen[bytes]]]
) -> None:
    address, workers = cluster
    seqs = tuple(f"train/a/{i:02d}" for i in range(40))
    data = make_data_set(tmp_path, seqs=seqs, frame_shape=(320, 576))
    data.voxelize(tmp_path / "one.zarr")
    killed = threading.Event()

    def kill_one(done: int, total: int, _: str) -> None:
        if 0 < done < total and not killed.is_set():
            workers[0].send_signal(signal.SIGKILL)
            killed.set()

    summary = data.voxelize(
        tmp_path / "two.zarr", workers=None, scheduler=address, on_progress=kill_one
    )
    assert killed.is_set()
    assert workers[0].wait(10) == -signal.SIGKILL
    assert summary.sequences_written == 40
    assert files_of(tmp_path / "two.zarr") == files_of(tmp_path / "one.zarr")
