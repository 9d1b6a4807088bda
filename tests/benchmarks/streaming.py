"""Streaming a store of default settings into a consumer, as training does.

Batches of 4 samples of 7 windows: counts of 32x128x128 and two frames of 128x128, at random
places, from one worker process, warm.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from spikedeblur.pipeline.sequences import open_store
from spikedeblur.pipeline.sequences.light import LightSequence
from spikedeblur.pipeline.train.data.order import ClipIndex, StepPlan
from spikedeblur.pipeline.train.data.samples import ClipSamples
from spikedeblur.pipeline.train.data.workers import batch_bytes, stack, start_fork_server

from .figures import Figure

BATCH, CLIP, CROP = 4, 7, 128
CONSUMER = 2.5
"""Time to consume a batch, of the time to read and copy it here."""
ALL_SAMPLES = 5_000
FIRST_BATCHES = 5


def figures(store: Path) -> list[Figure]:
    """Measure with a store of 360x640 windows; a minute where nothing else runs."""
    # Not above: other figures are measured without torch.
    from spikedeblur.pipeline.train.data.loader import collate, open_loader

    sequences = open_store(store)
    index = ClipIndex.every_start([s.length for s in sequences], CLIP)
    samples = ClipSamples(sequences, index, crop_size=CROP, augment=True)
    plan = StepPlan(index, BATCH)
    read, copy = _read_and_copy(samples)
    seen = [LightSequence(sequence) for sequence in sequences]
    as_light, _ = _read_and_copy(ClipSamples(seen, index, crop_size=CROP, augment=True))
    start_fork_server()
    first, first_forked = [], []
    for _ in range(FIRST_BATCHES):
        started = time.perf_counter()
        with open_loader(samples, plan, 0, 10, workers=1, pin=False) as steps:
            next(steps)
            first.append(time.perf_counter() - started)
        first_forked.append(_first_of_forked(samples, collate))
    with open_loader(samples, plan, 0, 120, workers=1, pin=False) as steps:
        next(steps)
        consumer = CONSUMER * (read + copy)
        wait, consumed = _consume(steps, consumer)
        worker = max(psutil.Process().children(recursive=True), key=lambda p: p.create_time())
        private = _own_memory(worker.pid)
    total = ALL_SAMPLES // BATCH * plan.steps_an_epoch // -(-len(index) // BATCH)
    with open_loader(samples, plan, 0, total, workers=1, pin=False) as steps:
        memory, taken, began = [], 0, 0.0
        for number, batches in enumerate(steps):
            if number == total // 10:
                taken, began = 0, time.perf_counter()
            taken += len(batches[0]["seq"])
            if number in (total // 10, total - 1):
                own = psutil.Process()
                family = (own, *own.children(recursive=True))
                memory.append(sum(process.memory_info().rss for process in family))
        rate = taken / (time.perf_counter() - began)
    return [
        Figure(
            f"data wait, one worker, a batch taking {CONSUMER} of its reading",
            100 * wait / (wait + consumed),
            "% of the time",
            5,
            f"{1e3 * read / BATCH:.1f} ms to read a sample, {1e3 * consumer:.0f} to use a batch",
            at_most=True,
        ),
        Figure(
            "a sample of light, from the spikes' instants",
            as_light / read,
            "x the time to read one of counts",
            detail=f"{1e3 * as_light / BATCH:.0f} ms, {1e9 * as_light / _pixels():.0f} ns a pixel",
        ),
        Figure(
            "first batch, worker's start included",
            float(np.median(np.divide(first, first_forked))),
            "x that of a forked DataLoader",
            2,
            f"{np.median(first):.2f} s",
            at_most=True,
        ),
        Figure(
            "private memory of a worker",
            private / 1e6,
            "MB, beside the batches that it shares",
            250,
            at_most=True,
        ),
        Figure(
            "streaming without a consumer, one worker",
            rate * (read + copy) / BATCH,
            "of one over read and copy time",
            0.7,
            f"{rate:.0f} samples/s; a batch: {1e3 * read:.1f} ms to read, {1e3 * copy:.1f} to copy",
        ),
        Figure(
            f"memory after {ALL_SAMPLES} samples",
            memory[1] / memory[0],
            "of that after a tenth of them",
            1.05,
            f"{memory[1] / 2**20:.0f} MiB in all processes",
            at_most=True,
        ),
    ]


def _own_memory(pid: int) -> int:
    """Return a process's bytes beside mapped files and the batches that it shares."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith("Anonymous:"))
    return 1024 * int(kilobytes)


def _read_and_copy(samples: ClipSamples) -> tuple[float, float]:
    """Return seconds a batch for cutting samples here, and for copying them to a batch."""
    clips = np.arange(BATCH)
    memory = np.zeros(batch_bytes(samples, BATCH), np.uint8)
    reads, copies = [], []
    for epoch in range(12):
        began = time.perf_counter()
        found = [samples.sample(epoch, int(clip)) for clip in clips]
        read = time.perf_counter()
        stack(found, memory)
        copies.append(time.perf_counter() - read)
        reads.append(read - began)
    return float(np.median(reads)), float(np.median(copies))


def _first_of_forked(samples: ClipSamples, collate: Callable[..., object]) -> float:
    """Return seconds until the first batch of PyTorch's loader with one forked worker."""
    from torch.utils.data import DataLoader

    class Epoch:
        def __len__(self) -> int:
            return len(samples.index)

        def __getitem__(self, clip: int) -> dict[str, object]:
            return samples.sample(0, clip)

    began = time.perf_counter()
    loader = DataLoader(
        Epoch(),  # type: ignore[arg-type]
        BATCH,
        shuffle=True,
        num_workers=1,
        collate_fn=collate,
        multiprocessing_context="fork",
    )
    batches = iter(loader)  # held: letting go of it waits for the worker's end
    next(batches)
    return time.perf_counter() - began


def _pixels() -> int:
    """Pixels of spikes in a batch."""
    return BATCH * CLIP * CROP**2


def _consume(steps: object, seconds: float) -> tuple[float, float]:
    """Return seconds spent waiting for data, and consuming it."""
    wait = consumed = 0.0
    while True:
        began = time.perf_counter()
        if next(steps, None) is None:  # type: ignore[call-overload]
            return wait, consumed
        got = time.perf_counter()
        time.sleep(seconds)
        wait, consumed = wait + got - began, consumed + time.perf_counter() - got
