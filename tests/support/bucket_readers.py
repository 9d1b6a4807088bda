"""Processes that read a store in a bucket through one disk cache. Importable by name."""

from __future__ import annotations

import hashlib
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from spikedeblur.pipeline.sequences import open_store
from spikedeblur.pipeline.train.data.order import ClipIndex, StepPlan
from spikedeblur.pipeline.train.data.samples import ClipSamples
from spikedeblur.pipeline.train.data.workers import cut_batch


def epochs_of(location: str, rank: int = 0, world: int = 1) -> tuple[ClipSamples, StepPlan]:
    """Return samples and a plan in which an epoch reads each window of the store once."""
    sequences = open_store(location, "train")
    index = ClipIndex.every_start([sequence.length for sequence in sequences], 1)
    samples = ClipSamples(sequences, index, crop_size=64)
    return samples, StepPlan(index, 2, rank=rank, world=world)


def digest_of_epoch(samples: ClipSamples, plan: StepPlan, epoch: int) -> str:
    """Read a process's part of an epoch; return a hash of all its pixels."""
    digest = hashlib.sha256()
    first, last = epoch * plan.steps_an_epoch, (epoch + 1) * plan.steps_an_epoch
    for planned in plan.batches(first, last):
        batch = cut_batch(samples, planned)
        for name in ("voxels", "blur", "sharp"):
            digest.update(batch[name].tobytes())
    return digest.hexdigest()


def _read(location: str, rank: int, world: int, link: Connection) -> None:
    samples, plan = epochs_of(location, rank, world)
    while True:
        link.send(digest_of_epoch(samples, plan, link.recv()))


def start_reader(location: str, rank: int, world: int) -> tuple[BaseProcess, Connection]:
    """Start a process that reads its part of each epoch whose number it is sent."""
    spawn = get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_read, args=(location, rank, world, theirs), daemon=True)
    process.start()
    return process, ours
