"""The loader for a long time: memory flat, no descriptor and no process left behind."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from spikedeblur.pipeline.sequences import open_store
from spikedeblur.pipeline.train.data.loader import open_loader
from spikedeblur.pipeline.train.data.order import ClipIndex, StepPlan
from spikedeblur.pipeline.train.data.samples import ClipSamples
from spikedeblur.pipeline.train.data.workers import start_fork_server


@dataclass(frozen=True)
class Soaked:
    """What loading many samples left."""

    samples: int
    seconds: float
    slope: float
    """Growth of the resident memory of all processes, in bytes a thousand samples."""
    descriptors: int
    """More open than before."""
    processes: int
    """Children that live on."""


def soak(store: Path, samples: int, workers: int = 2) -> Soaked:
    """Load so many samples; the first quarter, in which caches fill, is left out of the slope."""
    sequences = open_store(store, "train")
    index = ClipIndex.every_start([s.length for s in sequences], 2)
    cut = ClipSamples(sequences, index, crop_size=32, augment=True, seed=0)
    plan = StepPlan(index, batch_size=4, accumulation=1, seed=0)
    own = psutil.Process()
    start_fork_server()
    with open_loader(cut, plan, 0, 20, workers=workers, pin=False) as batches:
        next(batches)  # what is opened once a process is no leak
    gc.collect()
    before, children = own.num_fds(), {child.pid for child in own.children(recursive=True)}
    begun = time.monotonic()
    at: list[tuple[int, int]] = []
    done = step = 0
    steps = samples // 2
    with open_loader(cut, plan, 0, steps, workers=workers, pin=False) as batches:
        for batch in batches:
            done += sum(len(part["seq"]) for part in batch)
            step += 1
            if step % 50 == 0:
                family = [own, *own.children(recursive=True)]
                at.append((done, sum(process.memory_info().rss for process in family)))
            if done >= samples:
                break
    seconds = time.monotonic() - begun
    deadline = time.monotonic() + 10
    while _left(own, children) and time.monotonic() < deadline:
        time.sleep(0.05)
    gc.collect()
    late = np.array(at[len(at) // 4 :], np.float64)
    slope = float(np.polyfit(late[:, 0] / 1000, late[:, 1], 1)[0])
    return Soaked(done, seconds, slope, own.num_fds() - before, _left(own, children))


def _left(own: psutil.Process, before: set[int]) -> int:
    """Count children that came; multiprocessing's tracker and fork server stay."""
    found = [child for child in own.children(recursive=True) if child.pid not in before]
    return sum("resource_tracker" not in " ".join(child.cmdline()) for child in found)


def main() -> None:
    """Load 20,000 samples, or as many as the argument says."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from training_sets import make_store

    with tempfile.TemporaryDirectory() as name:
        store = make_store(Path(name), size=(64, 96))
        found = soak(store, int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
    print(
        f"loader: {found.samples} samples in {found.seconds:.0f} s, memory grows by "
        f"{found.slope / 1e6:.3f} MB a thousand, {found.descriptors} descriptors and "
        f"{found.processes} processes left"
    )


if __name__ == "__main__":
    main()
