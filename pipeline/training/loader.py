"""Batches for the training loop, in its exact order, from this process or from workers.

Where the training split fits into the cache it is read once, before the first step, and no
workers are used: cutting a crop from memory is cheaper than copying a batch between processes.
Otherwise the cache's limit is split evenly between the workers, which fill their shares as
they read; a window may then be held by several of them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ...configs.schema import DataConfig
from ..progress import Progress
from ..store.jobs import available_cores
from .cache import WindowCache
from .samples import ClipSamples, MicroBatch, StepPlan, window_bytes

Batch = dict[str, Any]
Note = Callable[[str], None]


def prepare_cache(
    samples: ClipSamples,
    data: DataConfig,
    workers: int,
    *,
    processes: int = 1,
    on_note: Note,
    on_progress: Progress | None = None,
) -> int:
    """Give `samples` its cache as the configuration asks; returns how many workers to use.

    Args:
        samples: the training split; its `cache` is set here.
        data: USE_RAM_CACHE and CACHE_SIZE_GB, in GiB for this process and its workers.
        workers: loading processes wanted, TRAIN.NUM_WORKERS.
        processes: training processes that share this machine's cores.
        on_note: told the estimate, and what was decided for which reason.
        on_progress: told how far the preload is, in windows.
    """
    cores = max(available_cores() // processes, 1)
    if workers > cores:
        on_note(
            f"TRAIN.NUM_WORKERS {workers} is more than the {cores} cores of a training process "
            f"here; using {cores}"
        )
        workers = cores
    limit = int(data.CACHE_SIZE_GB * 2**30) if data.USE_RAM_CACHE else 0
    if not limit:
        samples.cache = None
        return workers
    needed = sum(window_bytes(s) * s.length for s in samples.sequences)
    if needed <= limit:
        on_note(f"reading the training split into memory once: {_gib(needed)}, no workers")
        samples.cache = WindowCache(limit)
        preload(samples, on_progress)
        return 0
    share = f", {_gib(limit // workers)} a worker" if workers else ""
    on_note(
        f"warning: the training split takes {_gib(needed)} in memory, more than "
        f"DATA.CACHE_SIZE_GB {data.CACHE_SIZE_GB:g}; a part of it is kept{share}, the rest is "
        "read again each time"
    )
    samples.cache = WindowCache(limit // max(workers, 1))
    return workers


def preload(samples: ClipSamples, on_progress: Progress | None = None) -> None:
    """Read windows into the cache, in order, while there is room. Statistics start after it."""
    assert samples.cache is not None
    total = sum(sequence.length for sequence in samples.sequences)
    done = 0
    for number, sequence in enumerate(samples.sequences):
        for window in range(sequence.length):
            if not samples.cache.has_room(window_bytes(sequence)):
                return
            span = (window, window + 1)
            arrays = (sequence.blur(*span), sequence.sharp(*span), sequence.voxels(*span))
            samples.cache.put((number, window), arrays)
            done += 1
            if on_progress:
                on_progress(done, total, "reading the training split into memory")


@contextmanager
def open_loader(
    samples: ClipSamples, plan: StepPlan, from_step: int, to_step: int, *, workers: int, pin: bool
) -> Iterator[Iterator[list[Batch]]]:
    """Yield an iterator over steps; each is the list of this process's batches.

    Args:
        samples: what cuts a sample.
        plan: what says which clips, from `from_step` on, across epochs.
        from_step: first step, counted from the run's start.
        to_step: one past the last.
        workers: loading processes; they are started afresh (spawned).
        pin: page-locked memory, for copies to a GPU.
    """
    sampler = _Batches(plan, from_step, to_step)
    loader: DataLoader[Batch] = DataLoader(
        _Clips(samples),
        sampler=sampler,
        batch_size=None,
        collate_fn=_as_is,  # type: ignore[arg-type]
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_start_worker if workers else None,
        pin_memory=pin,
    )
    iterator = iter(loader)

    def steps() -> Generator[list[Batch], None, None]:
        for batches in plan.batches(from_step, to_step):
            yield [next(iterator) for _ in batches]

    try:
        with closing(steps()) as each:
            yield each
    finally:
        if workers:
            # Now rather than at collection, so that no process outlives the run.
            iterator._shutdown_workers()  # type: ignore[attr-defined]


def collate(samples: Sequence[dict[str, Any]]) -> Batch:
    """Stack samples of one T: tensors get a leading B, everything else becomes a list of B."""
    batch: Batch = {name: [sample[name] for sample in samples] for name in samples[0]}
    for name in ("blur", "sharp", "voxels", "samples"):
        # By NumPy: torch can't stack uint8 counts of one sequence with uint16 ones of another.
        batch[name] = torch.from_numpy(np.stack(batch[name]))
    batch["gain"] = torch.tensor(batch["gain"], dtype=torch.float32)
    return batch


class _Clips(Dataset[Batch]):
    """Makes a batch from its plan. Map-style: a batch depends on its plan alone."""

    def __init__(self, samples: ClipSamples) -> None:
        self.samples = samples

    def __getitem__(self, planned: MicroBatch) -> Batch:
        cache = self.samples.cache
        before = (cache.statistics.hits, cache.statistics.misses) if cache else (0, 0)
        batch = collate([self.samples.sample(planned.epoch, int(c)) for c in planned.clips])
        after = (cache.statistics.hits, cache.statistics.misses) if cache else (0, 0)
        batch["cache"] = (after[0] - before[0], after[1] - before[1])
        batch["weight"] = planned.weight
        return batch


class _Batches(Sampler[MicroBatch]):
    def __init__(self, plan: StepPlan, from_step: int, to_step: int) -> None:
        self.plan, self.from_step, self.to_step = plan, from_step, to_step

    def __iter__(self) -> Iterator[MicroBatch]:
        for batches in self.plan.batches(self.from_step, self.to_step):
            yield from batches


def _as_is(batch: Batch) -> Batch:
    return batch


def _start_worker(worker: int) -> None:
    # Ctrl-C and a scheduler's SIGTERM reach the whole process group; the training process
    # finishes its step and needs its workers for that. They leave when it does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
