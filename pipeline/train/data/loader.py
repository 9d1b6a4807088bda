"""Batches for the training loop, in its exact order, from this process or from workers.

Where the training split fits into the cache it is read once, before the first step, and no
workers are used: cutting a crop from memory is cheaper than copying a batch between processes.
Otherwise the cache's limit is split evenly between the workers, which fill their shares as
they read; a window may then be held by several of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ....configs.schema import Config
from ....errors import SpikeDeblurError
from ...host.machine import available_cores
from ...host.reporter import SILENT, Reporter, counted
from ...storage.side_by_side import AT_ONCE
from ...storage.traffic import TRAFFIC
from .cache import Arrays, LRUCache
from .order import MicroBatch, StepPlan
from .samples import ClipSamples
from .workers import Batch, cut_batch, open_workers, stack

MOST_WORKERS = 8
"""Most loading processes of `auto`: a store gives each several hundred crops a second."""


def prepare_cache(
    samples: ClipSamples, config: Config, *, processes: int = 1, reporter: Reporter = SILENT
) -> int:
    """Give `samples` its cache as the configuration asks; returns how many workers to use.

    Args:
        samples: the training split; its `cache` is set here.
        config: TRAIN.NUM_WORKERS, DATA.USE_RAM_CACHE and DATA.CACHE_SIZE_GB, the cache's limit in
            GiB for this process and its workers.
        processes: training processes that share this machine's cores.
        reporter: hears the estimate, the decision with its reason, and the windows preloaded.
    """
    data, workers = config.DATA, config.TRAIN.NUM_WORKERS
    cores = max(available_cores() // processes, 1)
    wanted = min(cores - 1, MOST_WORKERS) if workers == "auto" else workers
    chosen = min(wanted, cores)
    if wanted > cores:
        reporter.note(
            f"TRAIN.NUM_WORKERS {wanted} is more than the {counted(cores, 'core')} of a training "
            f"process here; using {cores}"
        )
    limit = int(data.CACHE_SIZE_GB * 2**30) if data.USE_RAM_CACHE else 0
    if not limit:
        samples.cache = None
        return chosen
    needed = sum(samples.window_bytes(i) * s.length for i, s in enumerate(samples.sequences))
    if needed <= limit:
        reporter.note(f"reading the training split into memory once: {_gib(needed)}, no workers")
        samples.cache = LRUCache(data.CACHE_SIZE_GB)
        preload(samples, cores, reporter)
        return 0
    share = f", {_gib(limit // chosen)} a worker" if chosen else ""
    reporter.note(
        f"warning: the training split takes {_gib(needed)} in memory, more than "
        f"DATA.CACHE_SIZE_GB {data.CACHE_SIZE_GB:g}; a part of it is kept{share}, the rest is "
        "read again each time"
    )
    samples.cache = LRUCache(data.CACHE_SIZE_GB / max(chosen, 1))
    return chosen


def preload(samples: ClipSamples, threads: int = 1, reporter: Reporter = SILENT) -> None:
    """Read all windows into the cache, in order. Statistics start after it.

    Args:
        samples: with a cache that has room for them.
        threads: least number of windows read side by side.
        reporter: hears the windows read, and in all.
    """
    assert samples.cache is not None
    windows = [
        (number, window)
        for number, sequence in enumerate(samples.sequences)
        for window in range(sequence.length)
    ]

    def read(key: tuple[int, int]) -> Arrays | None:
        number, window = key
        try:
            return samples.read(number, window, window + 1)
        except SpikeDeblurError:
            if samples.replace_unreadable:
                return None  # it is reported when a step comes to it
            raise

    reporter.counts("windows")
    with ThreadPoolExecutor(max(threads, AT_ONCE // 2) if samples.is_remote else threads) as pool:
        for done, (key, arrays) in enumerate(zip(windows, pool.map(read, windows), strict=True), 1):
            if arrays is not None:
                samples.cache.put(key, arrays)
            reporter.progress(done, len(windows), "reading the training split into memory")
    reporter.counts("steps")


@contextmanager
def open_loader(
    samples: ClipSamples,
    plan: StepPlan,
    from_step: int,
    to_step: int,
    *,
    workers: int,
    pin: bool,
    prefetch_bytes: int = 2**29,
) -> Iterator[Iterator[list[Batch]]]:
    """Yield an iterator over steps; each is the list of this process's batches.

    A step's tensors are good until the next step is asked for.

    Args:
        samples: cuts a sample.
        plan: clips of each step, across epochs.
        from_step: first step, counted from the run's start.
        to_step: one past the last step.
        workers: loading processes; see `start_fork_server` for a first batch that comes sooner.
        pin: copy to page-locked memory, from where copies to a GPU are fastest.
        prefetch_bytes: bytes of batches under way; each worker has one batch at least.

    Raises:
        WorkerError: a loading process died.
        SpikeDeblurError: a sample can't be read.
    """
    planned = plan.batches(from_step, to_step)
    if not workers:
        yield _by_step(_cut_here(samples, planned), pin)
        return
    with open_workers(
        samples, plan, planned, workers=workers, prefetch_bytes=prefetch_bytes
    ) as batches:
        yield _by_step(batches, pin)


def _cut_here(samples: ClipSamples, planned: Iterable[MicroBatch]) -> Iterator[Batch]:
    for each in planned:
        TRAFFIC.since_last()  # a validation's is no batch's
        yield cut_batch(samples, each)


def _by_step(batches: Iterator[dict[str, Any]], pin: bool) -> Iterator[list[Batch]]:
    step: list[Batch] = []
    for batch in batches:
        step.append(_to_tensors(batch, pin=pin))
        if batch["ends_step"]:
            yield step
            step = []


def collate(samples: Sequence[dict[str, Any]]) -> Batch:
    """Stack samples of one T: tensors get a leading B, everything else becomes a list of B."""
    return _to_tensors(stack(samples), pin=False)


def _to_tensors(batch: dict[str, Any], *, pin: bool) -> Batch:
    arrays = {name: value for name, value in batch.items() if isinstance(value, np.ndarray)}
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return batch | {name: t.pin_memory() if pin else t for name, t in tensors.items()}


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
