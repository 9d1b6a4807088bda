"""A sequence's folder in a store: made, marked complete, looked at, removed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ... import __version__
from ..host.locks import LOCK, only_writer
from ..storage.base import Storage, StoreError
from ..storage.checksum import content_checksum
from ..storage.side_by_side import together
from .arrays import METADATA
from .schema import FORMAT, SCHEMA_VERSION, Completion, Kind, SequenceRecord, parse_record

NPY_MARK = "spike_vox/voxels.json"
"""Where kind npy keeps a sequence's record, relative to the sequence's folder."""

NPY_ROOT = "voxels.json"
"""Where a store of kind npy keeps what it is."""

_MAX_METADATA_BYTES = 256 * 2**20


def claim_store(
    store: Storage,
    kind: Kind,
    *,
    may_hold_source: bool = False,
    make: bool = True,
    mend: bool = False,
) -> None:
    """Make the store, or check that what is there is a store of this kind.

    Args:
        store: where it is or is to be.
        kind: what it is to hold.
        may_hold_source: the storage is the data set itself (kind npy, unified layout).
        make: False: check only.
        mend: write the mark of a store that is there and damaged anew.

    Raises:
        StoreError: something else is there.
    """
    try:
        found = root_kind(store)
    except StoreError:
        if not mend:
            raise
        if make:
            _write_root(store, kind)
        return
    if found is not None and found != kind:
        raise StoreError(
            f"{store}: expected a store of kind {kind}, found {found}; give another folder"
        )
    if found is not None or may_hold_source:
        return
    if not is_free(store):
        raise StoreError(
            f"{store}: expected a new folder or a store that `voxelize` wrote, found something "
            "else; give another folder"
        )
    if not make:
        return
    _write_root(store, kind)


def _write_root(store: Storage, kind: Kind) -> None:
    attributes: dict[str, Any] = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
        "kind": kind,
    }
    _write_checked_root(store, NPY_ROOT if kind == "npy" else METADATA, attributes)


def _write_checked_root(store: Storage, key: str, attributes: dict[str, Any]) -> None:
    checked = attributes | {"crc32": content_checksum(attributes)}
    _write_json(store, key, _group(checked) if key == METADATA else checked)


def root_kind(store: Storage) -> str | None:
    """Return the kind of the store in this storage, or None where it is none of ours."""
    for name in (METADATA, NPY_ROOT):
        attributes = read_attributes(store, name)
        if attributes is not None and attributes.get("format") == FORMAT:
            kind = attributes.get("kind")
            return kind if isinstance(kind, str) else None
    return None


def read_splits(store: Storage) -> dict[str, str]:
    """Return the split of each sequence of a Zarr store that is in another than its name says."""
    attributes = read_attributes(store, METADATA) or {}
    splits = attributes.get("splits", {})
    if not isinstance(splits, dict) or not all(isinstance(v, str) for v in splits.values()):
        raise StoreError(
            f"{store}: expected splits by sequence in {METADATA}, found something else; run "
            "`voxelize` again"
        )
    return splits


def write_splits(store: Storage, splits: Mapping[str, str]) -> None:
    """Say in which splits sequences are; those that their names say are left out."""
    attributes = read_attributes(store, METADATA) or {}
    attributes.pop("crc32", None)
    former = read_splits(store)
    kept = {seq: split for seq, split in former.items() if seq not in splits}
    moved = {seq: split for seq, split in splits.items() if split != seq.split("/", 1)[0]}
    now = dict(sorted((kept | moved).items()))
    if now != former:
        _write_checked_root(store, METADATA, attributes | {"splits": now})


def read_record(folder: Storage, kind: Kind = "counts") -> SequenceRecord | None:
    """Return the record of the sequence in this storage, or None where there is none.

    Raises:
        StoreError: it is there and can't be used.
    """
    attributes = read_attributes(folder, NPY_MARK if kind == "npy" else METADATA)
    # Groups between the root and the sequences have no attributes.
    if attributes is None or attributes.get("format") != FORMAT or "seq" not in attributes:
        return None
    return parse_record(attributes, str(folder))


def begin_sequence(store: Storage, record: SequenceRecord) -> None:
    """Say that a sequence is ours and not whole."""
    if record.kind != "npy":
        write_parents(store, record.seq)
    _write_record(store.child(record.seq), record, durable=False)


def write_parents(store: Storage, seq: str) -> None:
    """Make the groups above a sequence, by which Zarr finds it; anew where they are damaged."""
    parts = seq.split("/")
    for i in range(1, len(parts)):
        above = store.child("/".join(parts[:i]))
        if not is_plain_group(above):
            _write_json(above, METADATA, _group({}), durable=False)


def is_plain_group(storage: Storage) -> bool:
    """Whether the metadata here are those of a group above sequences, undamaged."""
    try:
        return _read_json(storage, METADATA) == _group({})
    except StoreError:
        return False


def mark_complete(store: Storage, record: SequenceRecord, completion: Completion) -> None:
    """Write the mark that makes a sequence whole. Nothing of it is written afterwards."""
    whole = record.model_copy(update={"complete": completion})
    _write_record(store.child(record.seq), whole)


def rewrite_record(store: Storage, record: SequenceRecord) -> None:
    """Replace the record of a whole sequence by one that says the same of its files."""
    assert record.complete is not None
    _write_record(store.child(record.seq), record)


def find_sequences(store: Storage, under: str = "") -> Iterator[tuple[str, SequenceRecord]]:
    """Yield (seq, record) of every sequence of a Zarr store, complete or not, sorted.

    Raises:
        StoreError: a record can't be used.
    """
    if not store.is_local:
        yield from sorted(_find_in_bucket(store, under), key=lambda found: found[0].split("/"))
        return
    record = read_record(store.child(under)) if under else None
    if record is not None:
        yield under, record
        return
    for name in store.folders(under):
        yield from find_sequences(store, f"{under}/{name}" if under else name)


def _find_in_bucket(store: Storage, under: str) -> Iterator[tuple[str, SequenceRecord]]:
    """Look at one level of groups after another, at all groups of a level at once."""

    def look(key: str) -> SequenceRecord | list[str]:
        record = read_record(store.child(key)) if key else None
        if record is not None:
            return record
        return [f"{key}/{name}" if key else name for name in store.folders(key)]

    level = [under]
    while level:
        below: list[str] = []
        for key, found in zip(level, together([partial(look, k) for k in level]), strict=True):
            if isinstance(found, list):
                below += found
            else:
                yield key, found
        level = below


def find_split(store: Storage, split: str) -> Iterator[tuple[str, SequenceRecord]]:
    """Yield (seq, record) of every sequence of a split; see `find_sequences`."""
    splits = read_splits(store)
    for seq, record in find_sequences(store, split):
        if splits.get(seq, split) == split:
            yield seq, record
    for seq, chosen in splits.items():
        if chosen == split and seq.split("/", 1)[0] != split:
            moved = read_record(store.child(seq))
            if moved is not None:  # else its `voxelize` has not come to it
                yield seq, moved


@contextmanager
def exclusive(store: Storage) -> Iterator[None]:
    """Hold a store for writing; the system lets go even if we are killed.

    A bucket knows no locks: there two writers make the same bytes from the same sources. Of
    different sources the last mark's checksums tell what is not of it.

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
    """Return the checksum of a whole sequence's record, which it also holds."""
    complete = {k: v for k, v in attributes["complete"].items() if k != "record_crc32"}
    return content_checksum(attributes | {"complete": complete})


def is_free(store: Storage) -> bool:
    """Whether nothing is in this storage."""
    if not store.is_local:
        return not store.folders()
    folder = Path(store.location)
    if not folder.is_dir():
        return not folder.exists()
    return all(entry.name == LOCK for entry in folder.iterdir())


def _write_record(folder: Storage, record: SequenceRecord, *, durable: bool = True) -> None:
    attributes = record.model_dump(mode="json")
    if record.complete is not None:
        attributes["complete"]["record_crc32"] = record_checksum(attributes)
    if record.kind == "npy":
        _write_json(folder, NPY_MARK, attributes, durable=durable)
    else:
        _write_json(folder, METADATA, _group(attributes), durable=durable)


def _group(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of a Zarr v3 group."""
    return {"attributes": attributes, "zarr_format": 3, "node_type": "group"}


def _write_json(storage: Storage, key: str, content: Any, *, durable: bool = True) -> None:
    storage.write(key, [(json.dumps(content, indent=1) + "\n").encode()], durable=durable)


def read_attributes(storage: Storage, key: str) -> dict[str, Any] | None:
    """Return what a metadata file says of us: {} where it is not ours, None where there is none.

    Raises:
        StoreError: it is no JSON.
    """
    content = _read_json(storage, key)
    if content is None:
        return None
    if key == METADATA and isinstance(content, dict):
        if (content.get("zarr_format"), content.get("node_type")) != (3, "group"):
            raise StoreError(f"{storage}: {key}: expected a group of Zarr v3, found something else")
        content = content.get("attributes")
    return content if isinstance(content, dict) else {}


def _read_json(storage: Storage, key: str) -> Any:
    found = storage.read(key, _MAX_METADATA_BYTES)
    if found is None:
        return None
    try:
        return json.loads(found)
    except (ValueError, RecursionError) as error:
        raise StoreError(
            f"{storage}: {key}: expected JSON, found something else ({error}); restore the file or "
            "voxelize again into another folder"
        ) from error
