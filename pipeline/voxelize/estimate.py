"""Estimated time and disk space of voxelizing, from a part that is done in a temporary folder.

    seconds with W workers = the larger of   what workers do, over W
                                             what one process does for all of them

The one process plans sequences, marks them complete and sends tasks out. It takes longer where the
workers share a disk or network that can't carry `bytes_in` and `bytes_out` in these seconds.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from ...errors import SpikeDeblurError
from ..align.manifest import AlignedSequence
from ..storage.locate import open_storage
from ..store.records import begin_sequence, mark_complete
from .compare import Seen, VoxelizeJob
from .plan import ShardTask
from .task import Failure, SequenceProgress, write_shard
from .workers import GROUP_BYTES

SECONDS = 3.0
"""Time spent on measuring, about."""

MOST_SEQUENCES = 64
"""Most sequences that are measured."""

SECONDS_A_GROUP = 0.005
"""Time of scheduler and client for a group of tasks; `make bench` measures 3 to 6 ms."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """Estimated time and disk space, from a measured sample of the work."""

    bytes_in: int
    """Bytes of the files that are read, spikes and frames."""
    bytes_out: int
    """Bytes of the store."""
    worker_seconds: float
    """Time of the work that workers share, on one core of this machine."""
    own_seconds: float
    """Time of the work that one process does meanwhile for all of them."""
    measured: float
    """Share of the work that was done to find out."""

    def seconds(self, workers: int) -> float:
        """Return the time with so many workers, if disks and network keep up."""
        return max(self.worker_seconds / workers, self.own_seconds)

    def less(self, nbytes: int) -> Estimate:
        """Return what is left once so many bytes of the store are there."""
        left = max(0.0, 1 - nbytes / self.bytes_out) if self.bytes_out else 0.0
        return replace(
            self,
            bytes_in=round(left * self.bytes_in),
            bytes_out=max(0, self.bytes_out - nbytes),
            worker_seconds=left * self.worker_seconds,
        )

    def as_dict(self) -> dict[str, object]:
        """Return all figures, for JSON."""
        return asdict(self) | {"seconds": {str(n): self.seconds(n) for n in (1, 8, 64)}}


@dataclass(slots=True)
class _Measured:
    """Measurement of the tasks that write the same arrays; sizes in bytes before compression."""

    nbytes: int = 0
    """Size of all tasks of the sequences that were measured."""
    done: int = 0
    """Size of the tasks that were done."""
    seconds: float = 0.0
    written: int = 0
    """Bytes in the files written."""

    def scaled(self, measured: float) -> float:
        """Return what all tasks come to if those that were done came to `measured`."""
        return measured * self.nbytes / self.done if self.done else 0.0


def estimate(
    job: VoxelizeJob, todo: Sequence[tuple[AlignedSequence, Seen]]
) -> tuple[Estimate | None, list[Failure]]:
    """Make parts of sequences that lie evenly in `todo`, for about `SECONDS`, and scale up.

    Returns:
        the estimate, None if none could be made, and the sequences that failed on the way.
    """
    failures: list[Failure] = []
    kinds: dict[tuple[str, ...], _Measured] = defaultdict(_Measured)
    windows = sequences = 0
    planner_seconds = 0.0
    step = max(len(todo) // MOST_SEQUENCES, 1)
    with tempfile.TemporaryDirectory() as folder:
        aside = replace(job, store=open_storage(folder))
        began = 0.0
        for sequence, seen in todo[::step]:
            if sequences and time.perf_counter() - began > SECONDS:
                break
            try:
                if not sequences:
                    aside.plan(sequence, seen)  # imports what planning needs
                    began = time.perf_counter()
                start = time.perf_counter()
                plan = aside.plan(sequence, seen)
                begin_sequence(aside.store, plan.record)
                planner_seconds += time.perf_counter() - start
                progress = SequenceProgress(plan)
                for task in _some(plan.tasks):
                    _measure(task, progress, kinds[_kind(task)])
            except SpikeDeblurError as error:
                failures.append(Failure(seq=sequence.seq, error=str(error)))
                continue
            start = time.perf_counter()
            mark_complete(aside.store, plan.record, progress.completion(job.manifest_sha256))
            planner_seconds += time.perf_counter() - start
            sequences += 1
            windows += plan.record.windows
            for task in plan.tasks:
                kinds[_kind(task)].nbytes += task.nbytes
    if not sequences:
        return None, failures
    scale = sum(len(sequence.windows) for sequence, _ in todo) / windows
    nbytes = sum(kind.nbytes for kind in kinds.values())
    sending = SECONDS_A_GROUP * scale * nbytes / GROUP_BYTES
    figures = Estimate(
        bytes_in=sum(record.size for _, seen in todo for record in seen.values()),
        bytes_out=round(scale * sum(kind.scaled(kind.written) for kind in kinds.values())),
        worker_seconds=scale * sum(kind.scaled(kind.seconds) for kind in kinds.values()),
        own_seconds=planner_seconds * len(todo) / sequences + sending,
        measured=sum(kind.done for kind in kinds.values()) / (scale * nbytes),
    )
    return figures, failures


def _measure(task: ShardTask, progress: SequenceProgress, kind: _Measured) -> None:
    start = time.perf_counter()
    result = write_shard(task)
    kind.seconds += time.perf_counter() - start
    kind.done += task.nbytes
    kind.written += sum(result.files.values())
    progress.add(result)


def _kind(task: ShardTask) -> tuple[str, ...]:
    return tuple(spec.name for spec in task.arrays)


def _some(tasks: Sequence[ShardTask]) -> list[ShardTask]:
    """Return the first and the middle task of each kind: the last one may be a short shard."""
    kinds: dict[tuple[str, ...], list[ShardTask]] = defaultdict(list)
    for task in tasks:
        kinds[_kind(task)].append(task)
    return [kind[i] for kind in kinds.values() for i in sorted({0, len(kind) // 2})]
