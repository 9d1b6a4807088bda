"""A sequence's folder in a store: made, marked complete, looked at."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ..host.documents import DocumentError, parse_json
from ..host.locks import LOCK, only_writer
from ..storage.base import Storage, StoreError
from ..storage.checksum import content_checksum
from ..storage.side_by_side import together
from .arrays import DAMAGED, METADATA
from .schema import STORE, Completion, Kind, SequenceRecord, parse_record

NPY_VOXELS = "spike_vox"
"""Folder of a sequence's voxels in kind npy, relative to the sequence's folder."""

NPY_ROOT = "voxels.json"
"""File with the attributes of a store of kind npy, at its top."""

NPY_MARK = f"{NPY_VOXELS}/{NPY_ROOT}"
"""File with a sequence's record in kind npy, relative to the sequence's folder."""


def record_key(kind: Kind) -> str:
    """Return the file of a sequence's record, relative to the sequence's folder."""
    return NPY_MARK if kind == "npy" else METADATA


def lacks_root(
    store: Storage, kind: Kind, *, may_hold_source: bool = False, mend: bool = False
) -> bool:
    """Whether `write_root` has yet to be called; refuse a place that is not for this store.

    Args:
        store: where it is or is to be.
        kind: what it is to hold.
        may_hold_source: the storage is the data set itself (kind npy, unified layout).
        mend: a damaged root counts as lacking.

    Raises:
        StoreError: a store of another kind is there, or something else.
    """
    try:
        former = root_kind(store)
    except StoreError:
        if not mend:
            raise
        return True
    taken = former is None and not may_hold_source and not is_free(store)
    if taken:  # by another run that began it in between, perhaps
        former = root_kind(store)
    if former is not None and former != kind:
        raise StoreError(
            f"{store}: expected a store of kind {kind}, found {former}; give another folder"
        )
    if taken and former is None:
        raise StoreError(
            f"{store}: expected a new folder or a store that `voxelize` wrote, found something "
            "else; give another folder"
        )
    return former is None and not may_hold_source


def write_root(store: Storage, kind: Kind) -> None:
    """Write the attributes of the store, at its top."""
    _write_root(store, NPY_ROOT if kind == "npy" else METADATA, STORE.header() | {"kind": kind})


def _write_root(store: Storage, key: str, attributes: dict[str, Any]) -> None:
    _write_metadata(store, key, attributes | {"crc32": content_checksum(attributes)})


def root_kind(store: Storage) -> str | None:
    """Return the kind of the store in this storage, or None where `voxelize` wrote none."""
    for name in (METADATA, NPY_ROOT):
        attributes = read_attributes(store, name)
        if attributes is not None and STORE.heads(attributes):
            kind = attributes.get("kind")
            return kind if isinstance(kind, str) else None
    return None


def read_splits(store: Storage) -> dict[str, str]:
    """Return the split of each sequence of a Zarr store whose name says another split."""
    attributes = read_attributes(store, METADATA) or {}
    splits = attributes.get("splits", {})
    if not isinstance(splits, dict) or not all(isinstance(v, str) for v in splits.values()):
        raise StoreError(
            f"{store}: expected splits by sequence in {METADATA}, found something else; run "
            "`voxelize` again"
        )
    return splits


def write_splits(store: Storage, splits: Mapping[str, str]) -> None:
    """Write the splits of sequences whose names say another split."""
    attributes = read_attributes(store, METADATA) or {}
    attributes.pop("crc32", None)
    former = read_splits(store)
    kept = {seq: split for seq, split in former.items() if seq not in splits}
    moved = {seq: split for seq, split in splits.items() if split != seq.split("/", 1)[0]}
    listed = dict(sorted((kept | moved).items()))
    if listed != former:
        _write_root(store, METADATA, attributes | {"splits": listed})


def drop_consolidated(store: Storage) -> bool:
    """Remove the copy of all metadata that other tools put into the root's; return if it was there.

    Zarr's readers believe it, so that sequences written afterwards would not be seen.
    """
    content = _read_json(store, METADATA)
    if not isinstance(content, dict) or "consolidated_metadata" not in content:
        return False
    _write_metadata(store, METADATA, read_attributes(store, METADATA) or {})
    return True


def read_record(folder: Storage, kind: Kind = "counts") -> SequenceRecord | None:
    """Return the record of the sequence in this storage, or None where there is none.

    Raises:
        StoreError: a record is there and can't be used.
    """
    attributes = read_attributes(folder, record_key(kind))
    # Groups between the root and the sequences have no attributes.
    if attributes is None or not STORE.heads(attributes) or "seq" not in attributes:
        return None
    return parse_record(attributes, str(folder))


def begin_sequence(store: Storage, record: SequenceRecord) -> None:
    """Write a sequence's record without its completion mark, and the groups above it."""
    if record.kind != "npy":
        write_parents(store, record.seq)
    write_record(store, record)


def write_parents(store: Storage, seq: str) -> None:
    """Write the groups above a sequence, by which Zarr finds it, where one is not whole."""
    parts = seq.split("/")
    for i in range(1, len(parts)):
        above = store.child("/".join(parts[:i]))
        if not is_plain_group(above):
            _write_metadata(above, METADATA, {}, durable=False)


def is_plain_group(storage: Storage) -> bool:
    """Whether the metadata here are those of a group above sequences, undamaged."""
    try:
        return _read_json(storage, METADATA) == _group({})
    except StoreError:
        return False


def mark_complete(store: Storage, record: SequenceRecord, completion: Completion) -> None:
    """Write the mark that makes a sequence whole. Nothing of it is written afterwards."""
    write_record(store, record.model_copy(update={"complete": completion}))


def write_record(store: Storage, record: SequenceRecord) -> None:
    """Write a sequence's record, durably if the sequence is complete."""
    attributes = record.model_dump(mode="json")
    whole = record.complete is not None
    if whole:
        attributes["complete"]["record_crc32"] = record_checksum(attributes)
    folder = store.child(record.seq)
    _write_metadata(folder, record_key(record.kind), attributes, durable=whole)


def find_sequences(store: Storage, under: str = "") -> Iterator[tuple[str, SequenceRecord]]:
    """Yield (seq, record) of every sequence of a Zarr store, complete or not, sorted.

    Groups are read one level after another; in a bucket all groups of a level at once.

    Raises:
        StoreError: a record can't be used.
    """

    def look(key: str) -> SequenceRecord | list[str]:
        record = read_record(store.child(key)) if key else None
        if record is not None:
            return record
        return [f"{key}/{name}" if key else name for name in store.folders(key)]

    records: dict[str, SequenceRecord] = {}
    level = [under]
    while level:
        looks = together([partial(look, key) for key in level], side_by_side=not store.is_local)
        records |= {k: r for k, r in zip(level, looks, strict=True) if not isinstance(r, list)}
        level = [key for below in looks if isinstance(below, list) for key in below]
    yield from sorted(records.items(), key=lambda item: item[0].split("/"))


def find_split(store: Storage, split: str) -> Iterator[tuple[str, SequenceRecord]]:
    """Yield (seq, record) of every sequence of a split; see `find_sequences`."""
    splits = read_splits(store)
    for seq, record in find_sequences(store, split):
        if splits.get(seq, split) == split:
            yield seq, record
    for seq, chosen in splits.items():
        if chosen == split and seq.split("/", 1)[0] != split:
            moved = read_record(store.child(seq))
            if moved is not None:  # else `voxelize` has not come to it yet
                yield seq, moved


@contextmanager
def exclusive(store: Storage) -> Iterator[None]:
    """Hold a store for writing; the system lets go even if this process is killed.

    A bucket knows no locks: there two writers make the same bytes from the same sources. Where
    their sources differ, the last mark's checksums tell what belongs to it.

    Raises:
        HeldError: another process holds it.
    """
    if not store.is_local:
        yield
        return
    message = f"{store}: another `voxelize` is writing it; wait for it, or stop it"
    with only_writer(Path(store.location), message):
        yield


def record_checksum(attributes: dict[str, Any]) -> str:
    """Return the checksum of a whole sequence's record, which the record also holds."""
    complete = {k: v for k, v in attributes["complete"].items() if k != "record_crc32"}
    return content_checksum(attributes | {"complete": complete})


def require_record(folder: Storage, record: SequenceRecord) -> None:
    """Refuse a whole sequence whose record is not what was written.

    Raises:
        StoreError: its checksum is another.
    """
    mark = record_key(record.kind)
    attributes = read_attributes(folder, mark)
    expected = record.complete.record_crc32 if record.complete else None
    if attributes is None or (expected is not None and record_checksum(attributes) != expected):
        raise StoreError(f"{folder}: {mark} is not what was written; {DAMAGED}")


def is_free(store: Storage) -> bool:
    """Whether nothing is in this storage."""
    if not store.is_local:
        return not store.folders()
    folder = Path(store.location)
    if not folder.is_dir():
        return not folder.exists()
    # Another run may be writing the root at this moment.
    return all(e.name == LOCK or e.name.endswith(".partial") for e in folder.iterdir())


def _group(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of a Zarr v3 group."""
    return {"attributes": attributes, "zarr_format": 3, "node_type": "group"}


def _write_metadata(
    storage: Storage, key: str, attributes: dict[str, Any], *, durable: bool = True
) -> None:
    content = _group(attributes) if key == METADATA else attributes
    storage.write(key, [(json.dumps(content, indent=1) + "\n").encode()], durable=durable)


def read_attributes(storage: Storage, key: str) -> dict[str, Any] | None:
    """Return the attributes in a metadata file: {} if it has none, None where there is no file.

    Raises:
        StoreError: the file is no JSON.
    """
    content = _read_json(storage, key)
    if content is None:
        return None
    if key == METADATA and isinstance(content, dict):
        if (content.get("zarr_format"), content.get("node_type")) != (3, "group"):
            raise StoreError(
                f"{storage}: {key}: expected a group of Zarr v3, found something else; copy or "
                "download the store again, all of it"
            )
        content = content.get("attributes")
    return content if isinstance(content, dict) else {}


def _read_json(storage: Storage, key: str) -> Any:
    content = storage.read(key)
    if content is None:
        return None
    try:
        return parse_json(content)
    except DocumentError as error:
        raise StoreError(
            f"{storage}: {key}: expected JSON, found something else ({error}); restore the file or "
            "voxelize again into another folder"
        ) from error
