"""Notes of the shards of a sequence that are written, by which a stopped run goes on inside of it.

    <seq>/.work/7.json    task 7 of the sequence's plan is done: what it was, and its result

Whoever has written a task's files notes it beside them, so that a kill loses only the tasks in
work. A note counts if its task is the same as now: the sequence's record, the samples, the sources
with their sizes and times. The completion mark holds all that notes say, so they are removed then.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace

from pydantic import TypeAdapter

from ..host.documents import DocumentError, parse_json
from ..storage.base import Storage, StoreError
from ..storage.checksum import checksum
from ..store.records import NPY_VOXELS, read_record
from ..store.schema import SequenceRecord
from .plan import SequencePlan, ShardTask

WORK = ".work"
"""Folder of a sequence's notes; hidden, so that no reader takes it for a part of the store."""


@dataclass(frozen=True, slots=True)
class ShardResult:
    """Report of a written shard to the planner: tiny, so that it travels cheaply."""

    seq: str
    windows: int
    """Number of windows whose frames it holds."""
    files: dict[str, int]
    """Size in bytes of each file written, by path relative to the sequence's folder."""
    crc32: dict[str, str]
    """Checksum of each of these files, and of metadata."""
    hashes: dict[str, dict[int, str]]
    """SHA-256 of each piece of a source file that was the task's to hash, by path and number."""
    bytes_in: int
    """Packed spike bytes that were read."""


_RESULT = TypeAdapter(ShardResult)


def note(store: Storage, task: ShardTask, result: ShardResult) -> None:
    """Note that a task's files are written."""
    content = {"task": _digest(task), "result": asdict(result)}
    # Should a power cut tear it, the task is done again.
    key = f"{work_folder(task.record)}/{task.number}.json"
    store.write(key, [json.dumps(content).encode()], durable=False)


def work_folder(record: SequenceRecord) -> str:
    """Return the folder of a sequence's notes, relative to the store."""
    return f"{record.seq}/{NPY_VOXELS}/{WORK}" if record.kind == "npy" else f"{record.seq}/{WORK}"


def is_begun(store: Storage, record: SequenceRecord) -> bool:
    """Whether the store has an unfinished sequence that a run of this record began."""
    try:
        return read_record(store.child(record.seq), record.kind) == record
    except StoreError:
        return False


def noted(store: Storage, plan: SequencePlan, *, check: bool = False) -> dict[int, ShardResult]:
    """Return the results of the plan's tasks that are done, by number.

    Args:
        store: the store.
        plan: what is to be made now.
        check: read the files back and compare their checksums, not only their sizes.
    """
    if len(plan.tasks) < 2 or not is_begun(store, plan.record):
        return {}
    folder, work = store.child(plan.record.seq), work_folder(plan.record)
    there = store.sizes(work)
    done: dict[int, ShardResult] = {}
    for task in plan.tasks:
        key = f"{work}/{task.number}.json"
        result = _read(store, key, task) if key in there else None
        if result is not None:
            done[task.number] = result
    sizes = folder.sizes_of(file for result in done.values() for file in result.files)
    return {n: r for n, r in done.items() if _is_there(folder, sizes, r, check=check)}


def _read(store: Storage, key: str, task: ShardTask) -> ShardResult | None:
    """Return the result of a task by its note; None: it is of another task, or torn."""
    content = store.read(key)
    try:
        noted = parse_json(content or b"")
        if noted["task"] != _digest(task):
            return None
        return _RESULT.validate_python(noted["result"])
    except (DocumentError, LookupError, TypeError, ValueError):
        return None


def _is_there(folder: Storage, sizes: dict[str, int], result: ShardResult, *, check: bool) -> bool:
    """Whether the files of a task are what was written: their sizes, and checksums of metadata."""
    if any(sizes.get(file) != size for file, size in result.files.items()):
        return False
    # Metadata are not waited for when they are written, and have no size in the mark.
    compared = result.crc32 if check else result.crc32.keys() - result.files.keys()
    try:
        return all(checksum(folder.stream(key)) == result.crc32[key] for key in compared)
    except StoreError:
        return False


def _digest(task: ShardTask) -> str:
    """Return what a task is made from and to, in a few bytes; wherever store and data set lie."""
    anywhere = replace(task, target=replace(task.target, store="", root=""), links=())
    return hashlib.sha256(repr(anywhere).encode()).hexdigest()
