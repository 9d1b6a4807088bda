"""Continuing inside a sequence: what a stopped run has written is not made again."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from data_sets import DataSet, make_data_set, record

from spikedeblur.pipeline.align.manifest import read_manifest, write_manifest
from spikedeblur.pipeline.host import pieces
from spikedeblur.pipeline.host.pieces import HashForm, PieceHasher, hash_file
from spikedeblur.pipeline.storage.base import StoreError
from spikedeblur.pipeline.storage.locate import open_storage
from spikedeblur.pipeline.store.records import read_record
from spikedeblur.pipeline.voxelize import job as job_module
from spikedeblur.pipeline.voxelize import sources as sources_module
from spikedeblur.pipeline.voxelize.check import check_store
from spikedeblur.pipeline.voxelize.task import write_shard

SEQ = "train/a"
SPIKES = "raw/train/a/spike.dat"
CENTRES = tuple(range(2, 102, 4))


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def long_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataSet:
    """One sequence of 24 shards of spikes, whose recording is hashed in 73 pieces."""
    for name in ("plan", "schema"):
        module = "voxelize.plan" if name == "plan" else "store.schema"
        monkeypatch.setattr(f"spikedeblur.pipeline.{module}.shard_windows", lambda n, _: min(4, n))
    monkeypatch.setattr("spikedeblur.pipeline.store.schema.SHARD_BYTES", 3000)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1000)
    monkeypatch.setattr(pieces, "PLAIN_BYTES", 4000)
    return make_data_set(tmp_path, centres=CENTRES, seqs=(SEQ,))


class Stopped(KeyboardInterrupt):
    """The run's end, as by Ctrl-C."""


class Tasks:
    """Stands for `write_shard`: notes which tasks are done, and stops the run at one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[int] = []
        self.stop_at: int | None = None
        monkeypatch.setattr(job_module, "write_shard", self)

    def __call__(self, task):
        if task.number == self.stop_at:
            raise Stopped
        self.done.append(task.number)
        return write_shard(task)


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> Tasks:
    return Tasks(monkeypatch)


def stopped(data: DataSet, store: Path, tasks: Tasks, at: int, **options: object) -> None:
    tasks.stop_at = at
    with pytest.raises(Stopped):
        data.voxelize(store, **options)
    tasks.stop_at, tasks.done = None, []


@pytest.mark.parametrize("what", ["packed", "counts", "npy"])
def test_shards_that_are_there_are_not_made_again(
    long_one: DataSet, tmp_path: Path, tasks: Tasks, what: str
) -> None:
    options = {"format": "npy"} if what == "npy" else {"kind": what}
    whole = long_one.voxelize(tmp_path / "whole", **options)
    number = len(tasks.done)
    stopped(long_one, tmp_path / "killed", tasks, at=3, **options)
    summary = long_one.voxelize(tmp_path / "killed", **options)
    assert tasks.done == list(range(3, number))
    assert (summary.sequences_continued, summary.shards_kept) == (1, 3)
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")
    assert summary.bytes_out + summary.bytes_kept == whole.bytes_out
    assert summary.windows <= whole.windows == len(CENTRES)


def test_two_processes_continue_to_the_same_bytes(
    long_one: DataSet, tmp_path: Path, tasks: Tasks
) -> None:
    long_one.voxelize(tmp_path / "whole")
    stopped(long_one, tmp_path / "killed", tasks, at=9)
    # Started by spawn, they know nothing of what the fixture changed: what is planned must reach.
    assert long_one.voxelize(tmp_path / "killed", workers=2).shards_kept == 9
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


def test_a_run_stopped_ten_times_reads_each_byte_about_once(
    long_one: DataSet, tmp_path: Path, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_one.voxelize(tmp_path / "whole")
    read: Counter[str] = Counter()
    hashed = sources_module.hash_bytes

    def hash_bytes(path, start, stop):
        read["hashed"] += stop - start if str(path).endswith(".dat") else 0
        return hashed(path, start, stop)

    monkeypatch.setattr(sources_module, "hash_bytes", hash_bytes)
    for at in (1, 2, 2, 5, 9, 9, 10, 15, 20, 22):
        stopped(long_one, tmp_path / "killed", tasks, at)
    long_one.voxelize(tmp_path / "killed")
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")
    size = (long_one.root / SPIKES).stat().st_size
    assert read["hashed"] == size


def test_the_hash_is_that_of_the_pieces_hashes(long_one: DataSet, tmp_path: Path) -> None:
    long_one.voxelize(tmp_path / "s.zarr")
    found = read_record(open_storage(tmp_path / "s.zarr" / SEQ))
    assert found is not None
    assert found.complete is not None
    mark = found.complete.sources[SPIKES]
    content = (long_one.root / SPIKES).read_bytes()
    digests = [hashlib.sha256(content[i : i + 1000]).digest() for i in range(0, len(content), 1000)]
    assert mark.sha256 == hashlib.sha256(b"".join(digests)).hexdigest()
    assert (mark.piece, mark.part) == (1000, None)
    assert check_store(tmp_path / "s.zarr", manifest=long_one.manifest).whole


def test_a_flipped_bit_of_the_recording_is_found_by_its_hash(
    long_one: DataSet, tmp_path: Path
) -> None:
    """The manifest knows the hash in pieces; size and time of the file are kept."""
    path = long_one.root / SPIKES
    manifest = read_manifest(long_one.manifest)
    (sequence,) = manifest.sequences
    form = HashForm.of_bytes(path.stat().st_size)
    known = record(path).model_copy(
        update={"sha256": hash_file(path, path.stat().st_size, form), "piece": form.piece}
    )
    sequence = sequence.model_copy(update={"files": sequence.files | {SPIKES: known}})
    write_manifest(long_one.manifest, manifest.model_copy(update={"sequences": (sequence,)}))
    assert long_one.voxelize(tmp_path / "good.zarr", dry_run=True).estimate is not None
    long_one.voxelize(tmp_path / "good.zarr")
    content = bytearray(path.read_bytes())
    content[4321] ^= 16
    path.write_bytes(content)
    os.utime(path, ns=(known.mtime_ns, known.mtime_ns))
    with pytest.raises(StoreError, match=r"train/a: raw/train/a/spike\.dat changed since"):
        long_one.voxelize(tmp_path / "bad.zarr")
    findings = check_store(tmp_path / "good.zarr", manifest=long_one.manifest).findings
    assert [finding.problem for finding in findings] == ["source-changed"]
    skipped = long_one.voxelize(tmp_path / "skipped.zarr", on_error="skip")
    assert [failure.seq for failure in skipped.failed] == [SEQ]
    assert not (tmp_path / "skipped.zarr" / SEQ).exists()


def test_a_manifest_that_knows_the_plain_hash_of_a_long_recording_is_followed(
    long_one: DataSet, tmp_path: Path
) -> None:
    """Earlier releases hashed every file as a whole."""
    path = long_one.root / SPIKES
    manifest = read_manifest(long_one.manifest)
    (sequence,) = manifest.sequences
    plain = hashlib.sha256(path.read_bytes()).hexdigest()
    known = record(path).model_copy(update={"sha256": plain})
    sequence = sequence.model_copy(update={"files": sequence.files | {SPIKES: known}})
    write_manifest(long_one.manifest, manifest.model_copy(update={"sequences": (sequence,)}))
    long_one.voxelize(tmp_path / "s.zarr")
    found = read_record(open_storage(tmp_path / "s.zarr" / SEQ))
    assert found is not None
    assert found.complete is not None
    assert found.complete.sources[SPIKES].sha256 == plain
    assert found.complete.sources[SPIKES].piece is None


def test_a_dry_run_says_what_would_be_continued(
    long_one: DataSet, tmp_path: Path, tasks: Tasks
) -> None:
    whole = long_one.voxelize(tmp_path / "whole", dry_run=True)
    assert (whole.sequences_continued, whole.shards_kept) == (0, 0)
    stopped(long_one, tmp_path / "killed", tasks, at=7)
    before = files_of(tmp_path / "killed")
    summary = long_one.voxelize(tmp_path / "killed", dry_run=True)
    assert (summary.sequences_continued, summary.shards_kept) == (1, 7)
    assert summary.estimate is not None
    assert whole.estimate is not None
    assert summary.estimate.bytes_out < whole.estimate.bytes_out
    assert files_of(tmp_path / "killed") == before


@pytest.mark.parametrize(
    "what", ["torn", "not of its types", "of another task", "shard lost", "shard cut", "metadata"]
)
def test_what_is_not_as_it_was_noted_is_made_again(
    long_one: DataSet, tmp_path: Path, tasks: Tasks, what: str
) -> None:
    long_one.voxelize(tmp_path / "whole")
    killed = tmp_path / "killed"
    stopped(long_one, killed, tasks, at=6)
    note, shard = killed / SEQ / ".work/2.json", killed / SEQ / "spikes/c/2/0/0"
    again = [2]
    if what == "torn":
        note.write_bytes(note.read_bytes()[:-9])
    elif what == "not of its types":
        content = json.loads(note.read_text())
        note.write_text(json.dumps(content | {"result": content["result"] | {"files": 7}}))
    elif what == "of another task":
        content = json.loads(note.read_text())
        note.write_text(json.dumps(content | {"task": "0" * 64}))
    elif what == "shard lost":
        shard.unlink()
    elif what == "shard cut":
        shard.write_bytes(shard.read_bytes()[:-1])
    else:
        (killed / SEQ / "t0/zarr.json").write_bytes(b"")
        again = [0]
    long_one.voxelize(killed)
    assert [n for n in tasks.done if n < 6] == again
    assert files_of(killed) == files_of(tmp_path / "whole")


def test_check_reads_the_shards_that_would_be_kept(
    long_one: DataSet, tmp_path: Path, tasks: Tasks
) -> None:
    long_one.voxelize(tmp_path / "whole")
    stopped(long_one, tmp_path / "killed", tasks, at=6)
    shard = tmp_path / "killed" / SEQ / "spikes/c/4/0/0"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    assert long_one.voxelize(tmp_path / "killed", check=True).shards_kept == 5
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


def test_another_recording_of_the_same_name_is_begun_anew(
    long_one: DataSet, tmp_path: Path, tasks: Tasks
) -> None:
    stopped(long_one, tmp_path / "s.zarr", tasks, at=5)
    path = long_one.root / SPIKES
    path.write_bytes(bytes(np.random.default_rng(5).bytes(path.stat().st_size)))
    manifest = read_manifest(long_one.manifest)
    (sequence,) = manifest.sequences
    sequence = sequence.model_copy(update={"files": sequence.files | {SPIKES: record(path)}})
    write_manifest(long_one.manifest, manifest.model_copy(update={"sequences": (sequence,)}))
    summary = long_one.voxelize(tmp_path / "s.zarr")
    assert summary.shards_kept == 0
    long_one.voxelize(tmp_path / "whole")
    assert files_of(tmp_path / "s.zarr") == files_of(tmp_path / "whole")


def test_notes_that_outlived_the_mark_are_removed(
    long_one: DataSet, tmp_path: Path, tasks: Tasks
) -> None:
    stopped(long_one, tmp_path / "s.zarr", tasks, at=2)
    note = (tmp_path / "s.zarr" / SEQ / ".work/0.json").read_bytes()
    long_one.voxelize(tmp_path / "s.zarr")
    whole = files_of(tmp_path / "s.zarr")
    (tmp_path / "s.zarr" / SEQ / ".work").mkdir()
    (tmp_path / "s.zarr" / SEQ / ".work/0.json").write_bytes(note)
    assert long_one.voxelize(tmp_path / "s.zarr").sequences_kept == 1
    assert files_of(tmp_path / "s.zarr") == whole


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 4000, 4001, 9999])
@pytest.mark.parametrize("part", [None, (0, 900), (500, 6500)])
def test_a_file_read_at_once_has_the_hash_of_its_pieces(
    size: int, part: tuple[int, int] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1000)
    monkeypatch.setattr(pieces, "PLAIN_BYTES", 4000)
    if part is not None and part[1] > size:
        part = None
    content = np.random.default_rng(size).bytes(size)
    (tmp_path / "file").write_bytes(content)
    form = HashForm.of_bytes(size, part)
    start, stop = part or (0, size)
    assert (form.piece is None) == (stop - start <= 4000)
    hasher = PieceHasher(form)
    for i in range(0, size, 77):
        hasher.update(content[i : i + 77])
    assert hasher.hexdigest() == hash_file(tmp_path / "file", size, form)
    if form.piece is None:
        assert hasher.hexdigest() == hashlib.sha256(content[start:stop]).hexdigest()
