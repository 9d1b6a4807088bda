"""Dask workers as jobs of SLURM, by dask-jobqueue.

Dask's own configuration says what a job asks for: `jobqueue.yaml`, or variables such as
DASK_JOBQUEUE__SLURM__CORES. This process is scheduler and client, and must live as long as the work
takes; a job's workers end by themselves a minute after it died.

Scheduler, client and workers talk by TLS, with a key made for this run. The key reaches the jobs in
a folder that only this user may open and all nodes see: jobqueue.slurm.shared-temp-directory, or
the home.
"""

from __future__ import annotations

import logging
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..host.allocator import KEEPING
from ..host.extras import from_extra
from ..storage.base import StoreError

if TYPE_CHECKING:
    from dask_jobqueue.slurm import SLURMCluster, SLURMJob
    from distributed import Client
    from distributed.security import Security

SCHEDULER: dict[str, object] = {
    # `run_on` finds out later which task is to blame.
    "distributed.scheduler.allowed-failures": 1,
    # Its HTTP servers, which always listen, show nothing.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}
"""Configuration of Dask for schedulers that are started here."""

RENEW_SECONDS = 30
"""Seconds between searches for jobs that ended before the work did, to submit them again."""

LOOK_SECONDS = 10
"""Seconds between looks into the queue, while no worker is there."""

_WORKER = {
    # Freed memory is kept, which `keep_freed_memory` does for local workers.
    **{f"DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON__{k}": v for k, v in KEEPING.items()},
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": False,
    "DASK_DISTRIBUTED__WORKER__HTTP__ROUTES": [],
}

_LOOPBACK = "127.0.0.1:0"
"""Address of Dask's HTTP servers, whatever is configured: they ask for no certificate."""


def job_script() -> str:
    """Return the script that would be submitted for each job.

    Raises:
        StoreError: dask-jobqueue or its configuration is missing.
    """
    _, job = _import_jobqueue()
    options = _options()
    security = _security("CERTIFICATE", "KEY")
    with _explained():
        script: str = job(
            "tls://SCHEDULER", name="NAME", protocol="tls://", security=security, **options
        ).job_script()
    return script


@contextmanager
def slurm_client(jobs: int) -> Iterator[Client]:
    """Yield a client that has at least one worker; more come as SLURM starts their jobs.

    A job that ends before the work does, such as at its time limit, is submitted again. All jobs
    are cancelled at the end.

    Args:
        jobs: number of jobs; each has a process a core, unless `processes` is configured.

    Raises:
        StoreError: dask-jobqueue or its configuration is missing, SLURM refuses a job, or all
            jobs ended before a worker came.
    """
    import dask
    from distributed import Client
    from distributed.core import Status
    from tornado.ioloop import PeriodicCallback

    cluster_class, job_class = _import_jobqueue()
    refused: list[Exception] = []

    class SlurmJob(job_class):  # type: ignore[misc, valid-type]
        async def start(self) -> None:
            try:
                await super().start()
            except (RuntimeError, OSError, ValueError) as error:
                # The cluster starts jobs in its own thread, where an error would only be logged.
                refused.append(error)
                self.status = Status.running  # of a job without number

        async def close(self) -> None:
            await super().close()
            self.status = Status.closed  # the cluster insists on it where a job is still held

    with _certificates() as security, dask.config.set(SCHEDULER):
        scheduler = dict(dask.config.get("jobqueue.slurm.scheduler-options", None) or {})
        scheduler |= {"dashboard": False, "dashboard_address": _LOOPBACK}
        scheduler |= {"protocol": "tls://", "security": security}
        with _explained():
            cluster = cluster_class(
                job_cls=cast(Any, SlurmJob),  # their annotation means an instance
                scheduler_options=scheduler,
                security=security,
                protocol="tls://",
                silence_logs=logging.CRITICAL,
                **_options(),
            )
        with cluster, Client(cluster) as client:
            cluster.scale(jobs=jobs)
            _wait(client, cluster, refused)

            def submit_lost() -> None:
                for name in [n for n, job in cluster.workers.items() if job.job_id is None]:
                    del cluster.workers[name]
                cluster.scale(jobs=jobs)

            loop = client.loop
            renewing = PeriodicCallback(submit_lost, 1000 * RENEW_SECONDS)
            loop.add_callback(renewing.start)
            try:
                yield client
            finally:
                loop.add_callback(renewing.stop)


def _wait(client: Client, cluster: SLURMCluster, refused: list[Exception]) -> None:
    """Wait for a worker, however long the queue is, as long as there is a job to wait for."""
    look = time.monotonic() + LOOK_SECONDS
    while not client.nthreads():
        if refused:
            raise _refusal(refused[0])
        time.sleep(0.2)
        if time.monotonic() < look:
            continue
        look = time.monotonic() + LOOK_SECONDS
        numbers = [job.job_id for job in cluster.workers.values() if job.job_id]
        if numbers and not _queued(numbers) and not client.nthreads():
            raise StoreError(
                f"SLURM: jobs {', '.join(numbers[:5])} ended before a worker of theirs answered; "
                "look into their output (slurm-*.out, or jobqueue.slurm.log-directory): nodes "
                "need this Python, your home (or jobqueue.slurm.shared-temp-directory), and a "
                "network to this machine (jobqueue.slurm.interface)"
            )


def _queued(numbers: list[str]) -> bool:
    """Whether SLURM has any of these jobs waiting or running."""
    # Not by --jobs: it fails where one of them is forgotten already.
    command = ["squeue", "--noheader", "--me", "--format=%A"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return True  # a busy controller says nothing about the jobs
    return not set(numbers).isdisjoint(done.stdout.split())


@contextmanager
def _certificates() -> Iterator[Security]:
    """Yield a new key and its certificate, in files for this user alone that are gone at the end.

    Raises:
        StoreError: nodes and this machine share no folder, or others can read what is in it.
    """
    import dask
    from distributed.security import Security

    shared = dask.config.get("jobqueue.slurm.shared-temp-directory", None) or "~"
    shared = Path(os.path.expandvars(shared)).expanduser().absolute()
    try:
        folder = tempfile.TemporaryDirectory(
            prefix=".spikedeblur-", dir=shared, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise StoreError(
            f"{shared}: expected a folder for the jobs' certificates that can be written, found "
            f"none ({error.strerror}); name one that all nodes share in "
            "jobqueue.slurm.shared-temp-directory"
        ) from error
    with folder as name:
        mode = Path(name).stat().st_mode & 0o777
        if mode != 0o700:
            raise StoreError(
                f"{shared}: expected a disk where a folder can be this user's alone, found that "
                f"its mode becomes {mode:o}; name another one that all nodes share in "
                "jobqueue.slurm.shared-temp-directory"
            )
        made = Security.temporary()
        certificate, key = Path(name, "certificate.pem"), Path(name, "key.pem")
        for path, text in ((certificate, made.tls_ca_file), (key, made.tls_worker_key)):
            path.touch(0o600)
            path.write_text(text)
        yield _security(str(certificate), str(key))


def _security(certificate: str, key: str) -> Security:
    """Return the security settings that admit the holders of one key, whose files are given."""
    from distributed.security import Security

    files = {f"tls_{role}_cert": certificate for role in ("client", "scheduler", "worker")}
    files |= {f"tls_{role}_key": key for role in ("client", "scheduler", "worker")}
    return Security(require_encryption=True, tls_ca_file=certificate, **files)


def _options() -> dict[str, Any]:
    """Return the options of a job that are not left to dask's configuration."""
    import dask

    processes = dask.config.get("jobqueue.slurm.processes", None)
    cores = dask.config.get("jobqueue.slurm.cores", None)
    prologue = dask.config.get("jobqueue.slurm.job-script-prologue", None) or []
    extra = dask.config.get("jobqueue.slurm.worker-extra-args", None) or []
    return {
        # Counting and packing hold the GIL: one thread a process.
        "processes": processes or cores or 1,
        "job_script_prologue": [f"export {key}={value}" for key, value in _WORKER.items()]
        + list(prologue),
        "worker_extra_args": [*extra, "--no-dashboard", "--dashboard-address", _LOOPBACK],
    }


def _import_jobqueue() -> tuple[type[SLURMCluster], type[SLURMJob]]:
    with from_extra("slurm", "--cluster slurm needs the package dask-jobqueue", StoreError):
        from dask_jobqueue.slurm import SLURMCluster, SLURMJob
    return SLURMCluster, SLURMJob


@contextmanager
def _explained() -> Iterator[None]:
    """Turn dask-jobqueue's errors into messages that say what is missing from the configuration."""
    try:
        yield
    except ValueError as error:
        if "how much cores and memory" not in str(error):
            raise StoreError(
                f"dask's configuration of jobqueue.slurm: {error}; correct it"
            ) from error
        raise StoreError(
            "expected jobqueue.slurm.cores and jobqueue.slurm.memory in dask's configuration, "
            "found one or none; write them to ~/.config/dask/jobqueue.yaml, or set "
            "DASK_JOBQUEUE__SLURM__CORES=8 and DASK_JOBQUEUE__SLURM__MEMORY=16GB"
        ) from error


def _refusal(error: Exception) -> StoreError:
    if isinstance(error, FileNotFoundError):
        return StoreError("SLURM: expected the command sbatch, found none; run on a login node")
    said = str(error).partition("stderr:\n")[2] or str(error)
    reason = " ".join(said.split())[:300].rstrip(".;")
    return StoreError(
        f"SLURM refused a job: {reason}; correct jobqueue.slurm in dask's configuration "
        "(`voxelize --cluster slurm --dry-run` prints the script)"
    )
