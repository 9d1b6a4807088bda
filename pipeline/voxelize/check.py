"""Check of a whole store: every byte is what `voxelize` wrote, and the sources are unchanged.

Opening a store compares names and sizes, which is quick; this reads everything. Every file has a
CRC-32 in its sequence's record, which detects any damage of up to 32 bits in a row, and all but one
in four billion of other damages. A whole sequence's folder that is gone is only noticed by a
manifest that names it.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Literal, cast, get_args

from ...errors import SpikeDeblurError
from ..host.files import StrPath, UnsafePathError
from ..host.reporter import SILENT, Reporter, Sized
from ..storage.base import Storage, StoreError
from ..storage.checksum import checksum, content_checksum
from ..storage.locate import open_storage
from ..store.arrays import METADATA
from ..store.records import (
    NPY_ROOT,
    is_plain_group,
    read_attributes,
    read_record,
    record_key,
    require_record,
    root_kind,
)
from ..store.schema import STORE, Kind, SequenceRecord
from ..store.shard import StoredArray
from .sources import ManifestSources, open_manifest

READERS = 4
"""Sequences read at a time: this keeps a disk or bucket busy, and memory at a few pieces."""

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
    "alignment",  # `align` found that spikes and frames do not fit
    "absent",  # the manifest has a sequence that the store lacks
]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreFinding:
    """One thing that is wrong."""

    seq: str
    """The sequence; empty: the store itself."""
    file: str
    """Path relative to the sequence; for a source, relative to the data set's folder."""
    problem: Problem
    message: str
    """Sentence with what was expected and what was found."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreCheck:
    """Result of reading a store back."""

    store: str
    sequences: int
    files: int
    """Number of files read and compared."""
    bytes: int
    """Size of these files."""
    sources: int
    """Number of source files hashed; 0 without a manifest, which says where they are."""
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
    path: StrPath, *, manifest: StrPath | None = None, reporter: Reporter = SILENT
) -> StoreCheck:
    """Read every byte of a store, and of its sources where a manifest says where they are.

    Args:
        path: the store's folder or URL.
        manifest: manifest that the store was made from; None: sources are not checked.
        reporter: hears sequences done, sequences in all, and the sequence's name.

    Raises:
        StoreError: no store is there. What is wrong inside of one is a finding, not an error.
        SpikeDeblurError: the manifest can't be read.
    """
    storage = open_storage(path)
    root = root_kind(storage)
    if root not in get_args(Kind):
        raise StoreError(
            f"{storage}: expected a store that `spikedeblur voxelize` wrote, found none; check the "
            "path"
        )
    kind = cast(Kind, root)
    of_store = _Checked("")
    _check_root(storage, of_store)
    seqs = sorted(_sequences(storage, kind, of_store.findings))
    sources = None
    if manifest is not None:
        content, sources, _ = open_manifest(manifest)
        stored = set(seqs)
        for sequence in content.sequences:
            if sequence.seq not in stored:
                absent = _Checked(sequence.seq, of_store.findings)
                absent.add("absent", "", "is in the manifest, but not in the store")

    def check(seq: str) -> _Checked:
        return _check_sequence(storage, seq, kind, sources)

    def size(seq: str) -> int:
        return _bytes_to_read(storage, seq, kind, with_sources=sources is not None)

    parts = [of_store]
    with ThreadPoolExecutor(READERS, thread_name_prefix="check") as pool:
        work = Sized(reporter, list(pool.map(size, seqs)))
        for checked in pool.map(check, seqs):
            work.did(checked.seq)
            parts.append(checked)
    return StoreCheck(
        store=storage.location,
        sequences=len(seqs),
        files=sum(part.files for part in parts),
        bytes=sum(part.bytes for part in parts),
        sources=sum(part.sources for part in parts),
        without_checksums=sum(part.without_checksums for part in parts),
        findings=tuple(finding for part in parts for finding in part.findings),
    )


def damage(folder: Storage, record: SequenceRecord) -> str | None:
    """Return what is wrong with a whole sequence's files, in words; None: nothing."""
    checked = _Checked(record.seq)
    _check_files(folder, record, checked)
    return checked.findings[0].message if checked.findings else None


_ROOT_KEYS = {"format", "schema_version", "version", "kind", "splits"}


@dataclass(slots=True)
class _Checked:
    """Findings and totals of one sequence, or of the store itself."""

    seq: str
    findings: list[StoreFinding] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    sources: int = 0
    without_checksums: int = 0

    def add(self, problem: Problem, file: str, what: str) -> None:
        """Add a finding; its message begins with the sequence."""
        self.say(problem, file, f"{self.seq}: {what}")

    def say(self, problem: Problem, file: str, message: str) -> None:
        """Add a finding whose message names the file or sequence already."""
        finding = StoreFinding(seq=self.seq, file=file, problem=problem, message=message)
        self.findings.append(finding)


def _check_root(storage: Storage, checked: _Checked) -> None:
    for name in (METADATA, NPY_ROOT):
        attributes = read_attributes(storage, name)
        if attributes is None or not STORE.heads(attributes):
            continue
        recorded = attributes.pop("crc32", None)
        if recorded is None:  # an early store, or the key itself is damaged
            whole = attributes.keys() <= _ROOT_KEYS
        else:
            whole = recorded == content_checksum(attributes)
        if not whole:
            message = f"{storage}: {name} is not what `voxelize` wrote: its checksum is another"
            checked.say("metadata", name, message)


def _sequences(
    storage: Storage, kind: Kind, findings: list[StoreFinding], under: str = ""
) -> Iterator[str]:
    """Yield the names of all sequences; a folder whose metadata can't be read is a finding."""
    mark = record_key(kind)
    for name in storage.folders(under):
        seq = f"{under}/{name}" if under else name
        checked = _Checked(seq, findings)
        try:
            attributes = read_attributes(storage.child(seq), mark)
        except SpikeDeblurError as error:
            checked.say("metadata", mark, _short(error, storage))
            continue
        if attributes is not None and "seq" in attributes:
            yield seq
        elif attributes is None and kind != "npy":
            # Every folder of a store has metadata; `voxelize` writes that of a sequence first.
            checked.add("missing", mark, f"expected {mark}, found none")
        elif kind != "npy" and not is_plain_group(storage.child(seq)):
            checked.add("metadata", mark, f"{mark} is neither a sequence's nor a plain group's")
        else:
            yield from _sequences(storage, kind, findings, seq)


def _bytes_to_read(store: Storage, seq: str, kind: Kind, *, with_sources: bool) -> int:
    """Return the bytes of a sequence's files; 0 where its record doesn't tell them.

    Records are read again later: together they could take much memory.
    """
    try:
        record = read_record(store.child(seq), kind)
    except SpikeDeblurError:
        return 0
    if record is None or record.complete is None:
        return 0
    of_sources = record.complete.sources.values() if with_sources else ()
    return sum(record.complete.files.values()) + sum(mark.size for mark in of_sources)


def _check_sequence(
    store: Storage, seq: str, kind: Kind, sources: ManifestSources | None
) -> _Checked:
    checked = _Checked(seq)
    folder, mark = store.child(seq), record_key(kind)
    try:
        record = read_record(folder, kind)
        if record is None:
            checked.add("metadata", mark, f"{mark} is not the record that was written")
        elif record.seq != seq:
            checked.add("metadata", mark, f"says that it is {record.seq}")
        elif record.complete is None:
            checked.add("incomplete", mark, "a run of `voxelize` was stopped here")
        else:
            _check_files(folder, record, checked)
            if record.finding is not None:
                checked.add("alignment", mark, f"was voxelized by --force, though {record.finding}")
            if sources is not None:
                _check_sources(sources, record, checked)
    except SpikeDeblurError as error:
        checked.say("metadata", mark, _short(error, store))
    return checked


def _check_files(folder: Storage, record: SequenceRecord, checked: _Checked) -> None:
    complete = record.complete
    assert complete is not None
    try:
        require_record(folder, record)
    except StoreError as error:
        checked.say("metadata", record_key(record.kind), str(error))
    checked.without_checksums += not complete.crc32
    damaged = set()
    for key in sorted(complete.files.keys() | complete.crc32.keys()):
        before = len(checked.findings)
        size, expected = folder.size(key), complete.files.get(key)
        if size is None:
            checked.add("missing", key, f"{key}: expected a file, found none")
        elif expected not in (None, size):
            checked.add("size", key, f"{key}: expected {expected} bytes, found {size}")
        elif key in complete.crc32:
            _check_content(folder, key, complete.crc32[key], checked)
            checked.files += 1
            checked.bytes += size
        if len(checked.findings) > before:
            damaged.add(key)
    if record.kind != "npy":
        _check_indices(folder, record, damaged, checked)


def _check_content(folder: Storage, key: str, expected: str, checked: _Checked) -> None:
    try:
        crc32 = checksum(folder.stream(key))
    except SpikeDeblurError as error:
        checked.say("unreadable", key, str(error))
        return
    if crc32 != expected:
        checked.add("damaged", key, f"{key}: expected CRC-32 {expected}, found {crc32}")


def _check_indices(
    folder: Storage, record: SequenceRecord, damaged: set[str], checked: _Checked
) -> None:
    """Look for chunks that a shard lacks; files known to be damaged are left out."""
    assert record.complete is not None
    for spec in record.arrays:
        key = f"{spec.name}/{METADATA}"
        if spec.shards is None or key in damaged:
            continue
        try:
            array = StoredArray(folder, spec, record.complete.files)
        except StoreError as error:
            checked.say("metadata", key, str(error))
            continue
        for number, file in enumerate(spec.files()):
            if file in damaged:
                continue
            if file not in record.complete.files:
                checked.add("missing", file, f"{file}: the record does not name it")
                continue
            try:
                array.read_index(number)
            except StoreError as error:
                checked.say("chunk", file, str(error))


def _check_sources(sources: ManifestSources, record: SequenceRecord, checked: _Checked) -> None:
    assert record.complete is not None
    for relative, mark in record.complete.sources.items():
        try:
            size, digest = sources.size(relative), sources.sha256(relative, mark.form)
        except FileNotFoundError:
            what = f"made from {relative}, which is not in {sources.root}"
            checked.add("source-missing", relative, what)
            continue
        except (OSError, UnsafePathError, StoreError) as error:
            checked.add("unreadable", relative, f"{relative}: {error}")
            continue
        checked.sources += 1
        if (size, digest) != (mark.size, mark.sha256):
            what = (
                f"{relative} changed since it was voxelized (SHA-256 {mark.sha256[:12]}..., now "
                f"{digest[:12]}...)"
            )
            checked.add("source-changed", relative, what)


def _short(error: Exception, storage: Storage) -> str:
    return str(error).removeprefix(f"{storage.location}/")
