"""Mapping one function over tasks: in this process, on local processes, or on a Dask scheduler.

Results come in the order in which they are ready. At most `IN_FLIGHT` tasks a worker thread
are with the scheduler at a time, so that it stays quick and memory stays flat however many
tasks there are. What this does not do: order tasks, keep results, or retry user errors.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, TypeVar

from .schema import StoreError

if TYPE_CHECKING:
    from distributed import Client

Task = TypeVar("Task")
Result = TypeVar("Result")

IN_FLIGHT = 4
"""Enough that no worker waits for the next task."""

CONNECT_SECONDS = 20

_MALLOC_BYTES = str(256 * 2**20)


def run_tasks(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    describe: Callable[[Task], str] = repr,
) -> Iterator[Result]:
    """Yield `function(task)` for every task, as they get ready.

    Args:
        function: importable by name, so that workers find it.
        tasks: read as they are needed.
        workers: processes; None: one a core; 1: this process, without a cluster.
        scheduler: address of a running Dask scheduler; `workers` is then its own affair.
        describe: a task's name for messages.

    Raises:
        StoreError: a worker died too often on one task, or the scheduler can't be reached.
        Exception: whatever `function` raised first; tasks not begun are dropped.
    """
    workers = workers if workers is not None else available_cores()
    if scheduler is None and workers == 1:
        yield from map(function, tasks)
        return
    from distributed import KilledWorker, as_completed

    with _connect(workers, scheduler) as client:
        threads = sum(client.nthreads().values()) or workers
        names: dict[object, str] = {}
        waiting = iter(tasks)
        ready = as_completed()

        def submit(count: int) -> None:
            for task in itertools.islice(waiting, count):
                future = client.submit(function, task, pure=False)
                names[future.key] = describe(task)
                ready.add(future)

        submit(IN_FLIGHT * threads)
        try:
            for future in ready:
                try:
                    result = future.result()
                except KilledWorker as error:
                    raise StoreError(
                        f"{names[future.key]}: workers died on it again and again, most likely "
                        "for lack of memory; give fewer --workers"
                    ) from error
                del names[future.key]
                future.release()
                submit(1)
                yield result
        finally:
            ready.clear()


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _connect(workers: int, scheduler: str | None) -> Iterator[Client]:
    import dask
    from distributed import Client, LocalCluster

    with ExitStack() as stack:
        if scheduler is not None:
            try:
                client = Client(scheduler, timeout=CONNECT_SECONDS)
                stack.enter_context(client)
                client.wait_for_workers(1, timeout=60)
            except (OSError, TimeoutError, ValueError) as error:
                raise StoreError(
                    f"{scheduler}: can't reach a Dask scheduler with workers there ({error}); "
                    "start `dask scheduler` and `dask worker`, or leave --scheduler out"
                ) from error
            yield client
            return
        # The nanny's own settings give every freed buffer back to the system at once; faulting
        # it in again cost a quarter of the rate (Dask 2026.8, 2 cores).
        environment = dict(dask.config.get("distributed.nanny.pre-spawn-environ", {}))
        environment["MALLOC_TRIM_THRESHOLD_"] = _MALLOC_BYTES
        environment["MALLOC_MMAP_THRESHOLD_"] = _MALLOC_BYTES
        stack.enter_context(
            dask.config.set(
                {
                    "distributed.nanny.pre-spawn-environ": environment,
                    "distributed.worker.multiprocessing-method": "spawn",
                }
            )
        )
        scratch = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        try:
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address=":0",
                local_directory=scratch,
            )
        except RuntimeError as error:
            raise StoreError(
                f"can't start {workers} worker processes ({error}); from a script of your own, "
                'call this under `if __name__ == "__main__":`, or give workers=1'
            ) from error
        stack.enter_context(cluster)
        client = Client(cluster)
        yield stack.enter_context(client)
