"""Processes that cut batches and hand them over in memory which they share with training.

They do without torch, whose import takes each of them two seconds and over 400 MiB; what they need
is imported once, in the fork server that they come from. And memory is mapped once and used again
and again: a fresh shared block for each batch, in which PyTorch's `DataLoader` hands over tensors,
costs page faults that take as long as cutting the samples.
"""

from __future__ import annotations

import itertools
import math
import mmap
import os
import pickle
import signal
import sys
import tempfile
import traceback
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import forkserver, get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from typing import Any, NoReturn

import numpy as np

from ....errors import SpikeDeblurError
from ...host.allocator import keep_freed_memory
from ...storage.traffic import TRAFFIC
from .order import MicroBatch, StepPlan
from .packed import row_bytes, stack_spikes
from .samples import ClipSamples, known_at_most

Batch = dict[str, Any]

MOST_AHEAD = 16
"""Most batches that a worker has under way."""

# Voxels first, and spikes last, which are any number of bytes: types may be wider than a byte.
_LARGE = ("voxels", "blur", "sharp", "spikes")
_PATIENCE = 5.0  # seconds that a worker gets to leave
_NAMED_BY = ("__spec__", "__file__")  # what a new process finds the script by


class WorkerError(SpikeDeblurError):
    """A loading process died; the message says by which signal or exit code."""


def start_fork_server() -> None:
    """Start the process that loading processes are forked from, unless it runs.

    `open_workers` does so too; called before other long imports, the first batch comes sooner by
    what its own take. It is a new program, so threads and CUDA here don't matter, and it ends with
    this process. Signals to the whole process group do not end it.
    """
    forkserver.set_forkserver_preload([f"{__package__}.preloaded"])
    resource_tracker.ensure_running()  # else the server starts it, and it unblocks the signals
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def stack(samples: Sequence[dict[str, Any]], memory: np.ndarray | None = None) -> Batch:
    """Stack samples of one T: arrays get a leading B, everything else becomes a list of B.

    Spikes follow one another, and `spans` (B, T, 3) are where they are.

    Args:
        samples: results of `ClipSamples.sample`.
        memory: (n,) uint8 that large arrays are put into, one after another; None: fresh memory.
    """
    batch: Batch = {name: [sample[name] for sample in samples] for name in samples[0]}
    batch["samples"] = np.stack(batch["samples"])
    batch["gain"] = np.array(batch["gain"], np.float32)
    start = 0

    def make(shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray:
        nonlocal start
        out = np.empty(shape, dtype) if memory is None else _view(memory, start, shape, dtype)
        start += out.nbytes
        return out

    for name in _large(batch):
        parts = batch[name]
        if name == "spikes":
            batch["spikes"], batch["spans"] = stack_spikes(parts, batch["spans"], make)
        else:
            shape = (len(parts), *parts[0].shape)
            batch[name] = np.stack(parts, out=make(shape, np.result_type(*parts)))
    return batch


def _large(batch: Batch) -> list[str]:
    """Return the names of a batch's large arrays, in the order in which they share memory."""
    return [name for name in _LARGE if name in batch]


def batch_bytes(samples: ClipSamples, batch_size: int) -> int:
    """Return the bytes of the large arrays of the largest batch; of packed spikes, at most."""
    assert samples.crop_size is not None
    side, small = samples.crop_size, samples.crop_size // samples.ratio
    windows = batch_size * int(samples.index.length.max(initial=1))
    frames = 6 * side * side * (4 if samples.deep else 1)
    if samples.beside is not None:
        row = small * row_bytes(small)  # of a sample
        known = max(known_at_most(s, samples.beside) for s in samples.sequences)
        return int(windows * (frames + known * row) + row)
    voxels = max(s.bins * np.dtype(s.voxel_dtype).itemsize for s in samples.sequences)
    return int(windows * (frames + voxels * small * small))


def cut_batch(samples: ClipSamples, planned: MicroBatch, memory: np.ndarray | None = None) -> Batch:
    """Return a batch of `stack`, with `cache` (hits, misses), `traffic`, `weight`, `place`,
    `ends_step`.

    The traffic is that of this process since the batch before.
    """
    batch = stack(samples.samples(planned.epochs.tolist(), planned.clips.tolist()), memory)
    batch["cache"] = samples.cache.since_last() if samples.cache else (0, 0)
    batch["traffic"] = TRAFFIC.since_last()
    batch["weight"] = planned.weight
    batch["place"] = planned.place
    batch["ends_step"] = planned.ends_step
    return batch


@contextmanager
def open_workers(
    samples: ClipSamples,
    plan: StepPlan,
    planned: Iterable[MicroBatch],
    *,
    workers: int,
    prefetch_bytes: int,
) -> Iterator[Iterator[Batch]]:
    """Yield an iterator over the planned batches, in their order.

    A batch's large arrays are good until the batches of another step were taken.

    Args:
        samples: cuts a sample.
        plan: clips of a batch and batches of a step.
        planned: batches of the plan, read as they are needed.
        workers: processes; each makes every `workers`-th batch.
        prefetch_bytes: bytes of batches under way; each worker has one batch at least.

    Raises:
        WorkerError: a process died.
        SpikeDeblurError: a sample can't be read.
    """
    size = -(-batch_bytes(samples, plan.batch_size) // 8) * 8  # a type may begin at eights only
    messages = 2**15 // (512 + 16 * plan.batch_size)  # that a pipe takes without blocking
    ahead = max(min(prefetch_bytes // (size * workers), MOST_AHEAD, messages), 1)
    each = ahead + plan.batches_a_step
    memory = _SharedMemory(workers * each * size)
    pickled = pickle.dumps(samples)  # once: thousands of sequences take their time
    with ExitStack() as opened:
        links: list[tuple[BaseProcess, Connection]] = []
        for _ in range(workers):
            links.append(_start_worker(memory, size, pickled))
            opened.callback(_end, *links[-1])
        memory.close()
        yield _in_order(links, planned, memory.view.reshape(-1, size), ahead, each)


def _start_worker(
    memory: _SharedMemory, size: int, pickled: bytes
) -> tuple[BaseProcess, Connection]:
    start_fork_server()
    fork = get_context("forkserver")  # a plain fork would share locks of threads, CUDA and sockets
    near, far = fork.Pipe()
    arguments = (far, memory, size, pickled, dict(os.environ))
    process = fork.Process(target=_serve, args=arguments, daemon=True)
    try:
        with far, _running_no_script(unless=b"__main__" in pickled):
            process.start()
    except (EOFError, ConnectionError) as error:
        near.close()
        raise WorkerError(
            "the process that loading processes are forked from died, most often for lack of "
            "memory; go on with --resume, or train with TRAIN.NUM_WORKERS 0"
        ) from error
    return process, near


@contextmanager
def _running_no_script(*, unless: bool) -> Iterator[None]:
    """Hide this program's script from a process that starts, which would run it once more.

    Args:
        unless: classes of the script are needed there.
    """
    script = sys.modules["__main__"]
    hidden = {} if unless else {n: vars(script)[n] for n in _NAMED_BY if n in vars(script)}
    try:
        for name in hidden:
            setattr(script, name, None)
        yield
    finally:
        vars(script).update(hidden)


def _in_order(
    links: list[tuple[BaseProcess, Connection]],
    planned: Iterable[MicroBatch],
    memory: np.ndarray,
    ahead: int,
    each: int,
) -> Iterator[Batch]:
    turns = enumerate(planned)
    asked: deque[tuple[int, int]] = deque()  # (worker, slot), oldest first

    def ask(count: int) -> None:
        for number, batch in itertools.islice(turns, count):
            turn, worker = divmod(number, len(links))
            slot = worker * each + turn % each
            try:
                links[worker][1].send((slot, batch))
            except OSError:
                raise _died(links[worker][0]) from None
            asked.append((worker, slot))

    ask(ahead * len(links))
    while asked:
        worker, slot = asked.popleft()
        try:
            batch = links[worker][1].recv()
        except (EOFError, OSError):
            raise _died(links[worker][0]) from None
        if isinstance(batch, Exception):
            raise batch
        start = 0
        for name in _large(batch):
            shape, dtype = batch[name]
            batch[name] = _view(memory[slot], start, shape, dtype)
            start += batch[name].nbytes
        ask(1)
        yield batch


def _serve(
    link: Connection,
    memory: _SharedMemory,
    size: int,
    pickled: bytes,
    environment: dict[str, str],
) -> None:
    """Cut what is asked for, until the other side is gone."""
    os.environ.clear()  # the fork server keeps that of its own start
    os.environ.update(environment)
    # Ctrl-C and a scheduler's SIGTERM reach the whole process group; the training process
    # finishes its step and needs its workers for that. They leave when it does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    keep_freed_memory()
    TRAFFIC.is_handed_on = True
    slots = memory.view.reshape(-1, size)
    samples: ClipSamples = pickle.loads(pickled)  # from the process that started this one
    with suppress(EOFError, OSError):
        if samples.is_remote:
            _serve_several(link, samples, slots)
        while True:
            slot, planned = link.recv()
            link.send(_answer(samples, planned, slots[slot]))


def _serve_several(link: Connection, samples: ClipSamples, slots: np.ndarray) -> NoReturn:
    """Cut all batches that were asked for side by side: each waits for answers of a network."""
    cutting: deque[Future[Batch | Exception]] = deque()
    with ThreadPoolExecutor(MOST_AHEAD) as pool:
        while True:
            while not cutting or link.poll():
                slot, planned = link.recv()
                cutting.append(pool.submit(_answer, samples, planned, slots[slot]))
            link.send(cutting.popleft().result())


def _answer(samples: ClipSamples, planned: MicroBatch, memory: np.ndarray) -> Batch | Exception:
    try:
        batch = cut_batch(samples, planned, memory)
    except SpikeDeblurError as error:
        return error
    except Exception:
        return RuntimeError(f"in a loading process:\n{traceback.format_exc()}")
    return batch | {name: (batch[name].shape, batch[name].dtype) for name in _large(batch)}


def _view(memory: np.ndarray, start: int, shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray:
    return memory[start : start + math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)


def _end(process: BaseProcess, link: Connection) -> None:
    link.close()
    process.join(_PATIENCE)
    if process.exitcode is None:
        process.kill()
        process.join()


def _died(process: BaseProcess) -> WorkerError:
    process.join(_PATIENCE)
    code = process.exitcode
    if code == 1:
        return WorkerError(
            "a loading process ended by an error, which is shown above (exit code 1); where its "
            "samples hold a class that a script defines, the script's work must stand under `if "
            '__name__ == "__main__":`, or the class in a module'
        )
    how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    reason = ", most often for lack of memory" if code == -signal.SIGKILL else ""
    return WorkerError(
        f"a loading process was ended from outside ({how}){reason}; go on with --resume, with "
        "a lower TRAIN.NUM_WORKERS, TRAIN.PREFETCH_MB or DATA.CACHE_SIZE_GB"
    )


class _SharedMemory:
    """Bytes that loading processes map too; no name, so nothing is left whoever is killed.

    Not in /dev/shm, of which a container has 64 MB.
    """

    def __init__(self, size: int, descriptor: int | None = None) -> None:
        if descriptor is None:
            if hasattr(os, "memfd_create"):
                descriptor = os.memfd_create("batches")
            else:
                with tempfile.TemporaryFile() as file:
                    descriptor = os.dup(file.fileno())
            os.ftruncate(descriptor, size)
        self._descriptor = descriptor
        self.view = np.frombuffer(mmap.mmap(descriptor, size), np.uint8)

    def __reduce__(self) -> tuple[Any, ...]:
        return _attach, (self.view.size, DupFd(self._descriptor))

    def close(self) -> None:
        """Let go of the file; what is mapped stays."""
        os.close(self._descriptor)


def _attach(size: int, descriptor: Any) -> _SharedMemory:
    memory = _SharedMemory(size, descriptor.detach())
    memory.close()
    return memory
