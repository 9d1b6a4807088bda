"""Reading a whole store back: is every byte what `voxelize` wrote, and are the sources still those?

Opening a store compares names and sizes, which is quick. This reads everything. Every file has a
CRC-32 in its sequence's record, which sees any damage of up to 32 bits in a row, and of any
other damage all but one in four billion. What it can't see: a whole sequence's folder that is
gone, unless a manifest says that it should be there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ...errors import SpikeDeblurError
from ..align.manifest import Manifest
from ..host.files import UnsafePathError
from ..host.reporter import Progress
from ..storage.base import Storage, StoreError
from ..storage.checksum import checksum, content_checksum
from ..storage.locate import open_storage
from ..store.arrays import METADATA, parse_array
from ..store.records import (
    NPY_MARK,
    NPY_ROOT,
    is_plain_group,
    read_attributes,
    read_record,
    record_checksum,
    root_kind,
)
from ..store.schema import FORMAT, SequenceRecord
from ..store.shard import ShardedArray
from .sources import ManifestSources, open_manifest

READERS = 4
"""Sequences read at a time: a disk or bucket is kept busy, and memory stays at a few pieces."""

Problem = Literal[
    "incomplete",  # a run of `voxelize` was stopped
    "metadata",  # zarr.json is not what was written
    "missing",  # a file isn't there
    "size",  # a file is cut or longer
    "damaged",  # a file's checksum is another
    "chunk",  # a shard's index lacks a chunk or points outside
    "unreadable",  # the disk or network failed
    "source-missing",  # what it was made from isn't there
    "source-changed",  # what it was made from is another file now
    "absent",  # the manifest has a sequence that the store lacks
]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreFinding:
    """One thing that is wrong."""

    seq: str
    """The sequence; empty: the store itself."""
    file: str
    """Relative to the sequence; of a source, relative to the data set's folder."""
    problem: Problem
    message: str
    """What was expected and what was found."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreCheck:
    """What reading a store back came to."""

    store: str
    sequences: int
    files: int
    """Read and compared."""
    bytes: int
    """In these."""
    sources: int
    """Source files hashed; 0 without a manifest, which says where they are."""
    without_checksums: int
    """Sequences that an earlier release wrote: only names, sizes and indices were compared."""
    findings: tuple[StoreFinding, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def as_dict(self) -> dict[str, object]:
        """Return all of it, for JSON."""
        return asdict(self) | {"whole": self.whole}


def check_store(
    path: str | os.PathLike[str],
    *,
    manifest: str | os.PathLike[str] | None = None,
    on_progress: Progress | None = None,
) -> StoreCheck:
    """Read every byte of a store, and of its sources where a manifest says where they are.

    Args:
        path: the store's folder or URL.
        manifest: the one that it was made from; None: sources are not looked at.
        on_progress: told sequences done, in all, and the name.

    Raises:
        StoreError: no store there. What is wrong inside of one is a finding, not an error.
        SpikeDeblurError: the manifest can't be read.
    """
    storage = open_storage(path)
    kind = root_kind(storage)
    if kind not in ("packed", "counts", "npy"):
        raise StoreError(
            f"{storage}: expected a store that `spikedeblur voxelize` wrote, found none; check the "
            "path"
        )
    listed, sources = None, None
    if manifest is not None:
        listed, sources, _ = open_manifest(manifest)
    findings = list(_check_root(storage))
    seqs = sorted(_sequences(storage, kind, findings))
    if listed is not None:
        findings += _absent(listed, seqs)
    totals = [0, 0, 0, 0]

    def one(seq: str) -> _Checked:
        return _check_sequence(storage, seq, kind, sources)

    with ThreadPoolExecutor(READERS, thread_name_prefix="check") as pool:
        for done, checked in enumerate(pool.map(one, seqs), 1):
            findings += checked.findings
            for i, count in enumerate(checked.counts):
                totals[i] += count
            if on_progress is not None:
                on_progress(done, len(seqs), seqs[done - 1])
    files, nbytes, hashed, without = totals
    return StoreCheck(
        store=storage.location,
        sequences=len(seqs),
        files=files,
        bytes=nbytes,
        sources=hashed,
        without_checksums=without,
        findings=tuple(findings),
    )


def damage(folder: Storage, record: SequenceRecord) -> str | None:
    """Return what is wrong with a whole sequence's files, in words; None: nothing."""
    assert record.complete is not None
    checked = _Checked()
    _check_record(folder, record, checked)
    _check_files(folder, record, checked)
    return checked.findings[0].message if checked.findings else None


_ROOT_KEYS = {"format", "schema_version", "version", "kind", "splits"}


class _Checked:
    """What one sequence's check found."""

    def __init__(self) -> None:
        self.seq = ""
        self.findings: list[StoreFinding] = []
        self.counts = [0, 0, 0, 0]  # files, bytes, sources, without checksums

    def add(self, problem: Problem, file: str, message: str) -> None:
        self.findings.append(
            StoreFinding(seq=self.seq, file=file, problem=problem, message=message)
        )


def _check_root(storage: Storage) -> Iterator[StoreFinding]:
    for name in (METADATA, NPY_ROOT):
        attributes = read_attributes(storage, name)
        if attributes is None or attributes.get("format") != FORMAT:
            continue
        recorded = attributes.pop("crc32", None)
        if recorded is None:  # as early stores were written; or its name is damaged
            whole = attributes.keys() <= _ROOT_KEYS
        else:
            whole = recorded == content_checksum(attributes)
        if not whole:
            yield StoreFinding(
                seq="",
                file=name,
                problem="metadata",
                message=f"{storage}: {name} is not what `voxelize` wrote: its checksum is another",
            )


def _sequences(
    storage: Storage, kind: str, findings: list[StoreFinding], under: str = ""
) -> Iterator[str]:
    """Yield the names of all sequences; a folder whose metadata can't be read is a finding."""
    mark = NPY_MARK if kind == "npy" else METADATA
    for name in storage.folders(under):
        seq = f"{under}/{name}" if under else name
        try:
            attributes = read_attributes(storage.child(seq), mark)
        except SpikeDeblurError as error:
            findings.append(
                StoreFinding(seq=seq, file=mark, problem="metadata", message=_short(error, storage))
            )
            continue
        if attributes is not None and "seq" in attributes:
            yield seq
        elif attributes is None and kind != "npy":
            # Every folder of a store has metadata; `voxelize` writes that of a sequence first.
            message = f"{seq}: expected {mark}, found none"
            findings.append(StoreFinding(seq=seq, file=mark, problem="missing", message=message))
        elif kind != "npy" and not is_plain_group(storage.child(seq)):
            message = f"{seq}: {mark} is neither a sequence's nor a plain group's"
            findings.append(StoreFinding(seq=seq, file=mark, problem="metadata", message=message))
        else:
            yield from _sequences(storage, kind, findings, seq)


def _absent(manifest: Manifest, seqs: list[str]) -> Iterator[StoreFinding]:
    there = set(seqs)
    for sequence in manifest.sequences:
        if sequence.seq not in there:
            message = f"{sequence.seq}: is in the manifest, but not in the store"
            yield StoreFinding(seq=sequence.seq, file="", problem="absent", message=message)


def _check_sequence(
    store: Storage, seq: str, kind: Any, sources: ManifestSources | None
) -> _Checked:
    checked = _Checked()
    checked.seq = seq
    folder = store.child(seq)
    try:
        record = read_record(folder, kind)
        if record is None:
            mark = NPY_MARK if kind == "npy" else METADATA
            checked.add("metadata", mark, f"{seq}: {mark} is not the record that was written")
            return checked
        if record.seq != seq:
            checked.add("metadata", METADATA, f"{seq}: says that it is {record.seq}")
            return checked
        if record.complete is None:
            checked.add("incomplete", METADATA, f"{seq}: a run of `voxelize` was stopped here")
            return checked
        _check_record(folder, record, checked)
        _check_files(folder, record, checked)
        if sources is not None:
            _check_sources(sources, record, checked)
    except SpikeDeblurError as error:
        checked.add("metadata", METADATA, _short(error, store))
    return checked


def _check_record(folder: Storage, record: SequenceRecord, checked: _Checked) -> None:
    assert record.complete is not None
    mark = NPY_MARK if record.kind == "npy" else METADATA
    attributes, stored = read_attributes(folder, mark), record.complete.record_crc32
    if attributes is None or (stored is not None and record_checksum(attributes) != stored):
        checked.add("metadata", mark, f"{record.seq}: {mark} is not what was written")


def _check_files(folder: Storage, record: SequenceRecord, checked: _Checked) -> None:
    assert record.complete is not None
    sizes, expected = record.complete.files, record.complete.crc32
    checked.counts[3] += not expected
    damaged = set()
    for key in sorted(sizes.keys() | expected.keys()):
        size = folder.size(key)
        if size is None:
            checked.add("missing", key, f"{record.seq}: {key}: expected a file, found none")
        elif key in sizes and size != sizes[key]:
            message = f"{record.seq}: {key}: expected {sizes[key]} bytes, found {size}"
            checked.add("size", key, message)
        elif key in expected:
            try:
                found = checksum(folder.stream(key))
            except SpikeDeblurError as error:
                checked.add("unreadable", key, str(error))
                found = None
            checked.counts[0] += 1
            checked.counts[1] += size
            if found is None or found == expected[key]:
                continue
            message = f"{record.seq}: {key}: expected CRC-32 {expected[key]}, found {found}"
            checked.add("damaged", key, message)
        else:
            continue
        damaged.add(key)
    if record.kind != "npy":
        _check_indices(folder, record, damaged, checked)


def _check_indices(
    folder: Storage, record: SequenceRecord, damaged: set[str], checked: _Checked
) -> None:
    """Look for chunks that a shard lacks; what is known to be damaged is left out."""
    assert record.complete is not None
    for name, expected in record.arrays().items():
        key = f"{name}/{METADATA}"
        content = folder.read(key)
        if content is None:
            if key not in damaged:
                checked.add("missing", key, f"{record.seq}: {key}: expected a file, found none")
            continue
        try:
            spec = parse_array(content, name, record.seq)
            if (spec.shape, spec.dtype) != (expected.shape, expected.dtype):
                raise StoreError(f"{record.seq}: {key}: contradicts the sequence's record")
        except StoreError as error:
            if key not in damaged:
                checked.add("metadata", key, str(error))
            continue
        array = ShardedArray(folder, spec, record.complete.files)
        for number, file in enumerate(spec.files()):
            if file in damaged:
                continue
            if file not in record.complete.files:
                checked.add("missing", file, f"{record.seq}: {file}: the record does not name it")
                continue
            try:
                array.require_index(number)
            except StoreError as error:
                checked.add("chunk", file, str(error))


def _check_sources(sources: ManifestSources, record: SequenceRecord, checked: _Checked) -> None:
    assert record.complete is not None
    for relative, mark in record.complete.sources.items():
        try:
            size, digest = sources.size(relative), sources.sha256(relative)
        except FileNotFoundError:
            message = f"{record.seq}: made from {relative}, which is not in {sources.root}"
            checked.add("source-missing", relative, message)
            continue
        except (OSError, UnsafePathError, StoreError) as error:
            checked.add("unreadable", relative, f"{record.seq}: {relative}: {error}")
            continue
        checked.counts[2] += 1
        if (size, digest) != (mark.size, mark.sha256):
            message = (
                f"{record.seq}: {relative} changed since it was voxelized (SHA-256 "
                f"{mark.sha256[:12]}..., now {digest[:12]}...)"
            )
            checked.add("source-changed", relative, message)


def _short(error: Exception, storage: Storage) -> str:
    return str(error).removeprefix(f"{storage.location}/")
