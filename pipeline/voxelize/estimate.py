"""What voxelizing would take in time and disk: a part of it is done in a temporary folder.

    seconds with W workers = the larger of   what workers do, over W
                                             what one process does for all of them

The latter plans sequences, marks them complete and sends tasks out. Workers that share a disk or a
network which is slower than all of them together take longer: `bytes_in` and `bytes_out` over the
seconds are what it has to carry.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from ...errors import SpikeDeblurError
from ..align.manifest import AlignedSequence
from ..storage.locate import open_storage
from ..store.records import begin_sequence, mark_complete
from ..store.schema import Completion
from .compare import Failure, Seen, VoxelizeJob
from .plan import SequencePlan, ShardTask
from .task import write_shard
from .workers import GROUP_BYTES

SECONDS = 3.0
"""For measuring, about."""

MOST_SEQUENCES = 64

SECONDS_A_GROUP = 0.005
"""That the scheduler and the client take for a group of tasks; `make bench` measures 3 to 6 ms."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """Time and disk, as far as a part of the work tells."""

    bytes_in: int
    """Of the files that are read, spikes and frames."""
    bytes_out: int
    """Of the store."""
    worker_seconds: float
    """Of work that is divided between workers, on a core of this machine."""
    own_seconds: float
    """Of work for all of them that one process does meanwhile."""
    measured: float
    """Share of the work that was done to find out."""

    def seconds(self, workers: int) -> float:
        """Return how long it takes with so many workers, should disks and network keep up."""
        return max(self.worker_seconds / workers, self.own_seconds)

    def as_dict(self) -> dict[str, object]:
        """Return all figures, for JSON."""
        return asdict(self) | {"seconds": {str(n): self.seconds(n) for n in (1, 8, 64)}}


@dataclass(slots=True)
class _Measured:
    """Of the tasks that write the same arrays, before compression."""

    nbytes: int = 0
    done: int = 0
    seconds: float = 0.0
    written: int = 0


def estimate(
    job: VoxelizeJob,
    todo: Sequence[tuple[AlignedSequence, Seen]],
    plan: Callable[[VoxelizeJob, AlignedSequence, Seen], SequencePlan],
) -> tuple[Estimate | None, list[Failure]]:
    """Make parts of sequences that lie evenly in `todo`, for about `SECONDS`, and scale up.

    Returns:
        the estimate, None if none could be made, and the sequences that failed on the way.
    """
    failures: list[Failure] = []
    kinds: dict[tuple[str, ...], _Measured] = defaultdict(_Measured)
    windows = sequences = 0
    own = 0.0
    step = max(len(todo) // MOST_SEQUENCES, 1)
    with tempfile.TemporaryDirectory() as folder:
        aside = replace(job, store=open_storage(folder))
        began = 0.0
        for sequence, seen in todo[::step]:
            if sequences and time.perf_counter() - began > SECONDS:
                break
            try:
                if not sequences:
                    plan(aside, sequence, seen)  # imports what planning needs
                    began = time.perf_counter()
                start = time.perf_counter()
                planned = plan(aside, sequence, seen)
                begin_sequence(aside.store, planned.record)
                own += time.perf_counter() - start
                chosen = _some(planned.tasks)
                results = []
                for task in chosen:
                    start = time.perf_counter()
                    result = write_shard(task)
                    found = kinds[_kind(task)]
                    found.seconds += time.perf_counter() - start
                    found.done += task.nbytes
                    found.written += sum(result.files.values())
                    results.append(result)
            except SpikeDeblurError as error:
                failures.append(Failure(seq=sequence.seq, error=str(error)))
                continue
            start = time.perf_counter()
            files = {key: size for result in results for key, size in result.files.items()}
            completion = Completion(
                files=files,
                crc32={key: crc for result in results for key, crc in result.crc32.items()},
                sources={},
                manifest_sha256="0" * 64,
            )
            mark_complete(aside.store, planned.record, completion)
            own += time.perf_counter() - start
            sequences += 1
            windows += planned.record.windows
            for task in planned.tasks:
                kinds[_kind(task)].nbytes += task.nbytes
    if not sequences:
        return None, failures
    scale = sum(len(sequence.windows) for sequence, _ in todo) / windows
    nbytes = sum(found.nbytes for found in kinds.values())
    return (
        Estimate(
            bytes_in=sum(record.size for _, seen in todo for record in seen.values()),
            bytes_out=round(
                scale * sum(f.written * f.nbytes / f.done for f in kinds.values() if f.done)
            ),
            worker_seconds=scale
            * sum(f.seconds * f.nbytes / f.done for f in kinds.values() if f.done),
            own_seconds=own * len(todo) / sequences
            + SECONDS_A_GROUP * scale * nbytes / GROUP_BYTES,
            measured=sum(found.done for found in kinds.values()) / (scale * nbytes),
        ),
        failures,
    )


def _kind(task: ShardTask) -> tuple[str, ...]:
    return tuple(spec.name for spec in task.arrays)


def _some(tasks: Sequence[ShardTask]) -> list[ShardTask]:
    """Return the first and the middle task of each kind: the last one may be a short shard."""
    kinds: dict[tuple[str, ...], list[ShardTask]] = defaultdict(list)
    for task in tasks:
        kinds[_kind(task)].append(task)
    return [each for own in kinds.values() for each in (own[:1] + own[1 : len(own) // 2 + 1][-1:])]
