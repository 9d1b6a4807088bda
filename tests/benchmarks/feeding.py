"""Which disk cache and which network keep the steps of a training on a store in a bucket fed.

`make bench-io STORE=s3://bucket/x.zarr STEP=0.8`, or a copy of the store in a folder. The order of
clips and the crops are the trainer's; of the store, only indices of shards are read. The cache is a
model of the real one, in its third epoch. A table says what a step takes, for caches that hold a
share of the pixels:

- the least bandwidth, at which a step's bytes come in the time of a step
- the longest round trip at which its requests do, with so many under way
"""

from __future__ import annotations

import argparse
import itertools
import random
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np

from spikedeblur.pipeline.sequences import WindowSequence, open_store
from spikedeblur.pipeline.storage.base import merge_spans
from spikedeblur.pipeline.storage.bucket import COALESCE
from spikedeblur.pipeline.storage.disk_cache import ADMIT
from spikedeblur.pipeline.store import shard as shard_module
from spikedeblur.pipeline.train.data.order import ClipIndex, StepPlan
from spikedeblur.pipeline.train.data.samples import ClipSamples

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Shares of the store's pixels that the caches hold."""

EPOCHS = 3

MOST_WINDOWS = 1000
"""Windows of the sequences that are looked at; of larger stores, evenly spread sequences are."""

Read = list[tuple[str, int, int]]
"""(file, offset, bytes) of each chunk that one read takes of one file."""


class ModelCache:
    """What a disk cache of a size would hold; see `pipeline/storage/disk_cache.py`."""

    def __init__(self, limit: float, seed: int = 0) -> None:
        self._limit, self._random = limit, random.Random(seed)
        self._held: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._bytes = 0

    def fetched(self, read: Read) -> list[tuple[int, int]]:
        """Return the spans that are requested for a read."""
        absent = [chunk for chunk in read if (chunk[0], chunk[1]) not in self._held]
        for file, offset, size in read:
            if (file, offset) in self._held:
                self._held.move_to_end((file, offset))
            else:
                self._take((file, offset), size)
        gap = COALESCE if len(absent) == len(read) else 0
        return merge_spans([(offset, offset + size) for _, offset, size in absent], gap)

    def _take(self, key: tuple[str, int], size: int) -> None:
        if size > self._limit:
            return
        if self._bytes + size > self._limit:
            if self._random.random() * ADMIT >= 1:
                return
            while self._bytes + size > self._limit:
                self._bytes -= self._held.popitem(last=False)[1]
        self._held[key] = size
        self._bytes += size


@contextmanager
def _looking_only() -> Iterator[list[Read]]:
    """Yield a list that gets what each read would take; pixels read as zeros meanwhile."""
    reads: list[Read] = []

    def begin(self: shard_module.StoredArray, spans: shard_module.Spans) -> shard_module.Pending:
        spec = self.spec
        touched = (
            range(start // side, -(-stop // side))
            for (start, stop), side in zip(spans, spec.chunks, strict=True)
        )
        by_file: dict[int, Read] = {}
        for place in itertools.product(*touched):
            file, at = divmod(place[0], spec.grid[0])
            offset, size = self._index(file)[(at, *place[1:])].tolist()
            key = f"{self._storage}/{spec.key(file)}"
            by_file.setdefault(file, []).append((key, offset, size))
        reads.extend(by_file.values())
        return lambda: np.zeros([stop - start for start, stop in spans], spec.dtype)

    with mock.patch.object(shard_module.StoredArray, "begin", begin):
        yield reads


def steps_of(
    sequences: list[WindowSequence], *, clip: int, crop: int, batch: int
) -> list[list[list[Read]]]:
    """Return what each step of each epoch reads."""
    index = ClipIndex.every_start([sequence.length for sequence in sequences], clip)
    samples, plan = ClipSamples(sequences, index, crop_size=crop), StepPlan(index, batch)
    epochs = []
    with _looking_only() as reads:
        for epoch in range(EPOCHS):
            steps = []
            for planned in plan.batches(
                epoch * plan.steps_an_epoch, (epoch + 1) * plan.steps_an_epoch
            ):
                reads.clear()
                samples.samples(planned.epochs.tolist(), planned.clips.tolist())
                steps.append(list(reads))
            epochs.append(steps)
    return epochs


def table(
    epochs: list[list[list[Read]]], seconds: float, under_way: int, scale: float
) -> list[str]:
    """Return the lines of the table.

    Args:
        epochs: see `steps_of`.
        seconds: time of a step.
        under_way: requests that are under way at once.
        scale: bytes of the whole store over those of the sequences looked at.
    """
    chunks = {chunk for steps in epochs for step in steps for read in step for chunk in read}
    whole = sum(size for *_, size in chunks)
    lines = [
        "| cache | fetched / used | MB a step | requests a step | bandwidth | round trip |",
        "|---|---|---|---|---|---|",
    ]
    for share in SHARES:
        cache = ModelCache(share * whole)
        for steps in epochs:
            requests = fetched = used = 0
            for read in itertools.chain.from_iterable(steps):
                spans = cache.fetched(read)
                requests += len(spans)
                fetched += sum(stop - start for start, stop in spans)
                used += sum(size for *_, size in read)
        each, volume = requests / len(steps), fetched / len(steps)
        bandwidth = f"{8 * volume / seconds / 1e6:.0f} Mbit/s"
        trip = f"{seconds * under_way / each * 1e3:.0f} ms" if requests else "any"
        lines.append(
            f"| {share * whole * scale / 1e9:.3g} GB ({share:.0%}) | {fetched / used:.2f} "
            f"| {volume / 1e6:.1f} | {each:.0f} | {bandwidth} | {trip} |"
        )
    return lines


def main() -> None:
    """Look, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.feeding")
    parser.add_argument("store", nargs="?", help="folder or URL; none: a small one is made")
    parser.add_argument("--split", default="train")
    parser.add_argument("--step", type=float, default=1.0, help="seconds of a step")
    parser.add_argument("--clip", type=int, default=5, help="windows of a clip")
    parser.add_argument("--crop", type=int, default=256, help="side of a crop in pixels")
    parser.add_argument("--batch", type=int, default=4, help="clips of a step, in one process")
    parser.add_argument("--under-way", type=int, default=64, help="requests at once")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        store = options.store or str(_made(Path(name)))
        every = open_store(store, options.split if options.store else None)
        windows = sum(sequence.length for sequence in every)
        sequences = every[:: max(1, -(-windows // MOST_WINDOWS))]
        scale = windows / sum(sequence.length for sequence in sequences)
        epochs = steps_of(sequences, clip=options.clip, crop=options.crop, batch=options.batch)
    print(
        f"{store}: steps of {options.step:g} s, {options.batch} clips of {options.clip} windows of "
        f"{options.crop}x{options.crop}; {len(sequences)} of {len(every)} sequences looked at\n"
    )
    print("\n".join(table(epochs, options.step, options.under_way, scale)))


def _made(folder: Path) -> Path:
    from spikedeblur.pipeline.voxelize import Workers, voxelize_manifest

    from .store import record

    voxelize_manifest(record(folder / "recording"), folder / "s.zarr", workers=Workers(count=1))
    return folder / "s.zarr"


if __name__ == "__main__":
    main()
