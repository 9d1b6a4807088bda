"""Voxelizing on a Dask scheduler that was started apart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from data_sets import DataSet, make_data_set
from distributed.security import Security
from files_of import files_of

from spikedeblur.pipeline.storage.base import StoreError
from spikedeblur.pipeline.voxelize.workers import Workers, run_tasks


def start(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "dask", *words]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@contextmanager
def scheduler_and_workers(
    folder: Path, *words: str
) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Yield a scheduler's address and its two workers, each a process of its own."""
    import json

    found = folder / "scheduler.json"
    processes = [
        start(
            folder,
            *("scheduler", "--host", "127.0.0.1", "--port", "0"),
            *("--dashboard-address", ":0", "--scheduler-file", str(found)),
            *words,
        )
    ]
    try:
        deadline = time.monotonic() + 60
        while not found.exists():
            assert time.monotonic() < deadline, "the scheduler did not start"
            time.sleep(0.1)
        time.sleep(0.5)
        address = json.loads(found.read_text())["address"]
        alone = ("--nthreads", "1", "--no-nanny", "--no-dashboard")
        workers = [start(folder, "worker", address, *alone, *words) for _ in range(2)]
        processes += workers
        yield address, workers
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    with scheduler_and_workers(tmp_path) as found:
        yield found


def certificate(folder: Path) -> tuple[Path, Path]:
    """Write a new certificate, which is its own CA, and its key."""
    made = Security.temporary()
    folder.mkdir()
    (folder / "cert.pem").write_text(made.tls_ca_file)
    (folder / "key.pem").write_text(made.tls_client_key)
    return folder / "cert.pem", folder / "key.pem"


def configuration(ca: Path, cert: Path, key: Path) -> dict[str, str]:
    names = ("ca-file", "client.cert", "client.key")
    return {
        f"distributed.comm.tls.{n}": str(p) for n, p in zip(names, (ca, cert, key), strict=True)
    }


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


@pytest.mark.slow
def test_a_scheduler_with_certificates_takes_those_of_dasks_variables(
    data: DataSet, tmp_path: Path
) -> None:
    cert, key = certificate(tmp_path / "tls")
    files = ("--tls-ca-file", str(cert), "--tls-cert", str(cert), "--tls-key", str(key))
    prefix = "DASK_DISTRIBUTED__COMM__TLS__"
    given = {"CA_FILE": cert, "CLIENT__CERT": cert, "CLIENT__KEY": key}
    with scheduler_and_workers(tmp_path, *files) as (address, _):
        assert address.startswith("tls://")
        command = [sys.executable, "-m", "spikedeblur", "voxelize", str(data.manifest)]
        command += [str(tmp_path / "s.zarr"), "--bins", "8", "--scheduler", address, "--quiet"]
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"error: {address}: expected certificates for it, found")
        assert refused.stderr.count("\n") == 2
        variables = {f"{prefix}{name}": str(path) for name, path in given.items()}
        subprocess.run(command, env=os.environ | variables, check=True)
    data.voxelize(tmp_path / "here.zarr")
    assert files_of(tmp_path / "s.zarr") == files_of(tmp_path / "here.zarr")


def test_certificates_that_do_not_fit_the_scheduler_are_named(tmp_path: Path) -> None:
    import dask
    from distributed import LocalCluster

    own, foreign = certificate(tmp_path / "own"), certificate(tmp_path / "foreign")
    security = Security(
        require_encryption=True,
        tls_ca_file=str(own[0]),
        **{f"tls_{role}_cert": str(own[0]) for role in ("client", "scheduler", "worker")},
        **{f"tls_{role}_key": str(own[1]) for role in ("client", "scheduler", "worker")},
    )
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        protocol="tls://",
        security=security,
        dashboard_address=None,
    ) as running:
        address = running.scheduler_address

        def outcome(settings: dict[str, str], scheduler: str = address) -> list[int]:
            with dask.config.set(settings):
                return list(run_tasks(abs, [-1], Workers(scheduler=scheduler)))

        assert outcome(configuration(own[0], *own)) == [1]
        for ca, cert, key in (
            (foreign[0], *foreign),
            (own[0], *foreign),
            (own[0], own[0], foreign[1]),
            (own[0], own[0], tmp_path / "none.pem"),
            (own[1], *own),
        ):
            with pytest.raises(StoreError) as caught:
                outcome(configuration(ca, cert, key))
            said = str(caught.value)
            assert said.startswith(f"{address}: expected certificates that this scheduler takes")
            assert f"found ca_file {ca}, cert {cert}, key {key} (" in said
            assert "DASK_DISTRIBUTED__COMM__TLS__CA_FILE" in said
            assert "\n" not in said
        with pytest.raises(StoreError, match="expected certificates for it, found none"):
            outcome({})
        with pytest.raises(StoreError, match="an address that begins with tls://"):
            outcome(configuration(own[0], *own), address.replace("tls", "tcp"))
