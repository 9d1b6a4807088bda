"""One function mapped over tasks: in this process, on local processes, or on a Dask scheduler.

Results come in the order in which they are ready. At most `IN_FLIGHT` groups a worker thread are
with the scheduler at a time, so that it stays quick and memory stays flat however many tasks there
are. Schedulers that are started here take tasks only by TLS, from holders of the key that is made
for this run. Tasks are not ordered, results not kept, and tasks that raise not retried.
"""

from __future__ import annotations

import itertools
import logging
import ssl
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from ..host.allocator import KEEPING
from ..host.machine import workers_that_fit
from ..storage.base import StoreError
from .slurm import SCHEDULER, slurm_client

if TYPE_CHECKING:
    from distributed import Client

Task = TypeVar("Task")
Result = TypeVar("Result")

IN_FLIGHT = 4
"""Groups of tasks a worker thread: enough that none waits for the next."""

WORKER_BYTES = 256 * 2**20
"""Memory of a worker, whatever the size of the data (`make bench`: 210 to 239 MB)."""

GROUP_BYTES = 16 * 2**20
"""Bytes worth sending to a worker: a group costs the scheduler 4 to 6 ms, such a write 60."""

MOST_IN_GROUP = 64

RECOUNT_SECONDS = 1.0
"""Seconds between counts of the workers, which come and go where they are jobs of a cluster."""

ALONE_SECONDS = 5.0
"""CPU time that this process works alone before it starts others of its own accord: about what
starting them takes, so that a job of seconds starts none and a long one loses little."""

ALONE_AT_MOST = 20.0
"""The same by the clock, for work that waits for disks or a network."""

CONNECT_SECONDS = 20

_SET_CERTIFICATES = (
    "set distributed.comm.tls.ca-file, .client.cert and .client.key in dask's configuration, "
    "~/.config/dask/distributed.yaml, or DASK_DISTRIBUTED__COMM__TLS__CA_FILE, "
    "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT and DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY"
)

_IGNORE_CTRL_C = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Workers:
    """Processes that do the tasks, and where they run.

    Raises:
        StoreError: a cluster that is not known, or values that contradict each other.
    """

    count: int | None = None
    """Processes, or jobs of a cluster. None: this process for `ALONE_SECONDS`, then a process for
    each core, if memory holds them; 1: this process."""
    scheduler: str | None = None
    """Address of a running Dask scheduler, whose workers see the same paths; `count` has no effect.
    Its certificates are in dask's configuration, distributed.comm.tls."""
    cluster: str | None = None
    """slurm: `count` jobs are submitted there; None: this machine."""

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise StoreError(f"expected 1 worker or more, found {self.count}; correct --workers")
        if self.cluster not in (None, "slurm"):
            raise StoreError(f"cluster {self.cluster!r} is not known; give slurm")
        if self.cluster is not None and (self.count is None or self.scheduler is not None):
            raise StoreError(
                f"cluster {self.cluster} needs a number of jobs and no scheduler; give --workers, "
                "and leave --scheduler"
            )


def run_tasks(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    workers: Workers = Workers(),
    *,
    describe: Callable[[Task], str] = repr,
    size: Callable[[Task], int] = lambda task: GROUP_BYTES,
    on_lost: Callable[[Task, str], Result] | None = None,
) -> Iterator[Result]:
    """Yield `function(task)` for every task, as they get ready.

    A worker that dies is replaced. Tasks on which workers died are done at the end, each alone, so
    that a task which kills its worker again is known.

    Args:
        function: importable by name, so that workers find it.
        tasks: read as they are needed.
        workers: processes that do the tasks.
        describe: a task's name for messages.
        size: bytes that a task is about; small ones go to a worker several at a time.
        on_lost: makes the result of a task that kills its workers, from the task and the reason;
            None: that is an error.

    Raises:
        StoreError: a task kills its workers, the scheduler can't be reached, or the cluster
            refuses.
        Exception: whatever `function` raised first; tasks not begun are dropped.
    """
    tasks = iter(tasks)
    if workers == Workers():
        end, clock_end = time.process_time() + ALONE_SECONDS, time.monotonic() + ALONE_AT_MOST
        for task in tasks:
            yield function(task)
            if time.process_time() > end or time.monotonic() > clock_end:
                break
        else:
            return
    if workers.count is None:
        workers = replace(workers, count=workers_that_fit(WORKER_BYTES))
    if workers == Workers(count=1):
        yield from map(function, tasks)
        return
    with connect(workers) as client:
        yield from run_on(client, function, tasks, describe, size, on_lost)


def run_on(
    client: Client,
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    describe: Callable[[Task], str] = repr,
    size: Callable[[Task], int] = lambda task: GROUP_BYTES,
    on_lost: Callable[[Task, str], Result] | None = None,
) -> Iterator[Result]:
    """Yield `function(task)` for every task, as they get ready; see `run_tasks`."""
    from distributed import KilledWorker, as_completed

    threads, counted = max(sum(client.nthreads().values()), 1), time.monotonic()
    submitted: dict[object, list[Task]] = {}
    suspects: list[Task] = []
    groups = _grouped(tasks, size)
    ready = as_completed(loop=client.loop, with_results=True, raise_errors=False)

    def submit(count: int) -> None:
        chosen = list(itertools.islice(groups, count))
        futures = client.map(partial(_each, function), chosen, pure=False, batch_size=count)
        for future, group in zip(futures, chosen, strict=True):
            submitted[future.key] = group
        ready.update(futures)

    submit(IN_FLIGHT * threads)
    try:
        for batch in ready.batches():
            if time.monotonic() - counted > RECOUNT_SECONDS:
                threads, counted = max(sum(client.nthreads().values()), 1), time.monotonic()
            submit(max(IN_FLIGHT * threads - len(submitted) + len(batch), 0))
            for future, outcome in batch:
                group = submitted.pop(future.key)
                if future.status == "error":
                    _, error, _ = outcome
                    if isinstance(error, KilledWorker):
                        suspects += group
                        continue
                    raise error
                future.release()
                yield from outcome
    finally:
        ready.clear()
    for task in suspects:
        try:
            yield client.submit(function, task, pure=False).result()
        except KilledWorker as error:
            why = (
                f"{describe(task)}: workers died on it again and again, most likely for lack of "
                "memory; give fewer --workers"
            )
            if on_lost is None:
                raise StoreError(why) from error
            yield on_lost(task, why)


def _each(function: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
    return [function(task) for task in tasks]


def _grouped(tasks: Iterable[Task], size: Callable[[Task], int]) -> Iterator[list[Task]]:
    """Yield tasks in groups of about `GROUP_BYTES`, in order."""
    group: list[Task] = []
    held = 0
    for task in tasks:
        group.append(task)
        held += size(task)
        if held >= GROUP_BYTES or len(group) == MOST_IN_GROUP:
            yield group
            group, held = [], 0
    if group:
        yield group


def connect(workers: Workers) -> AbstractContextManager[Client]:
    """Return a client of local worker processes, of a scheduler that runs, or of a cluster's jobs.

    Raises:
        StoreError: the scheduler can't be reached, processes can't be started, or the cluster
            refuses; says why.
    """
    if workers.scheduler is not None:
        return _client_of(workers.scheduler)
    assert workers.count is not None
    if workers.cluster is not None:
        return slurm_client(workers.count)
    return _local_client(workers.count)


@contextmanager
def _local_client(workers: int) -> Iterator[Client]:
    """Yield a client of worker processes that are started here."""
    import dask
    from distributed import Client, LocalCluster
    from distributed.security import Security

    # The nanny's own settings would undo what `keep_freed_memory` does.
    environment = dask.config.get("distributed.nanny.pre-spawn-environ", {})
    settings = SCHEDULER | {
        "distributed.nanny.pre-spawn-environ": environment | KEEPING,
        "distributed.worker.multiprocessing-method": "spawn",
        # Ctrl-C reaches the whole group of processes; this one ends its workers.
        "distributed.worker.preload": [_IGNORE_CTRL_C],
        # Looking at the stack every 10 ms takes the GIL from the task.
        "distributed.worker.profile.enabled": False,
        "distributed.admin.system-monitor.interval": "5s",
    }
    with (
        dask.config.set(settings),
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch,
        ExitStack() as stack,
    ):
        try:
            processes = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                security=Security.temporary(),
                dashboard_address="127.0.0.1:0",
                scheduler_kwargs={"dashboard": False},
                local_directory=scratch,
                silence_logs=logging.CRITICAL,  # what matters is reported here
            )
        except RuntimeError as error:
            raise StoreError(
                f"can't start {workers} worker processes ({error}); from a script of your own, "
                'call this under `if __name__ == "__main__":`, or give Workers(count=1)'
            ) from error
        stack.enter_context(processes)
        yield stack.enter_context(Client(processes))


@contextmanager
def _client_of(scheduler: str) -> Iterator[Client]:
    """Yield a client of a scheduler that runs, with the certificates of dask's configuration."""
    from distributed import Client
    from distributed.comm.core import CommClosedError

    with ExitStack() as stack:
        try:
            client = stack.enter_context(Client(scheduler, timeout=CONNECT_SECONDS))
            client.wait_for_workers(1, timeout=60)
        except (OSError, TimeoutError, ValueError, TypeError, RuntimeError) as error:
            by_tls = scheduler.startswith("tls://")
            unfit = (CommClosedError, ssl.SSLError, FileNotFoundError, PermissionError)
            if by_tls and isinstance(error, TypeError):
                why = f"expected certificates for it, found none; {_SET_CERTIFICATES}"
            elif by_tls and isinstance(error, unfit):
                why = (
                    f"expected certificates that this scheduler takes, found {_certificates()} "
                    f"({error}); {_SET_CERTIFICATES}"
                )
            else:
                why = (
                    f"can't reach a Dask scheduler with workers there ({error}); start "
                    "`dask scheduler` and `dask worker`, give an address that begins with tls:// "
                    "where they have certificates, or leave --scheduler out"
                )
            raise StoreError(f"{scheduler}: {why}") from error
        yield client


def _certificates() -> str:
    """Return the names of the client's files in dask's configuration."""
    from distributed.security import Security

    client = Security().get_tls_config_for_role("client")
    return ", ".join(f"{name} {client[name]}" for name in ("ca_file", "cert", "key"))
