"""A sequence's folder in a store: made, marked complete, looked at, removed."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ... import __version__
from .arrays import METADATA, StoreError
from .place import Place
from .schema import FORMAT, SCHEMA_VERSION, Completion, Kind, SequenceRecord, parse_record

NPY_MARK = "spike_vox/voxels.json"
"""Where kind npy keeps a sequence's record, relative to the sequence's folder."""

_NPY_ROOT = "voxels.json"
_MAX_METADATA_BYTES = 256 * 2**20


def claim_store(
    store: Place, kind: Kind, *, may_hold_source: bool = False, make: bool = True
) -> None:
    """Make the store, or check that what is there is a store of this kind.

    Args:
        store: where it is or is to be.
        kind: what it is to hold.
        may_hold_source: the place is the data set itself (kind npy, unified layout).
        make: False: check only.

    Raises:
        StoreError: something else is there.
    """
    found = root_kind(store)
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
    attributes: dict[str, Any] = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
        "kind": kind,
    }
    if kind == "npy":
        _write_json(store, _NPY_ROOT, attributes)
    else:
        _write_json(store, METADATA, _group(attributes))


def root_kind(store: Place) -> str | None:
    """Return the kind of the store at this place, or None where it is none of ours."""
    for name in (METADATA, _NPY_ROOT):
        attributes = _read_attributes(store, name)
        if attributes is not None and attributes.get("format") == FORMAT:
            kind = attributes.get("kind")
            return kind if isinstance(kind, str) else None
    return None


def read_splits(store: Place) -> dict[str, str]:
    """Return the split of each sequence of a Zarr store that is in another than its name says."""
    attributes = _read_attributes(store, METADATA) or {}
    splits = attributes.get("splits", {})
    if not isinstance(splits, dict) or not all(isinstance(v, str) for v in splits.values()):
        raise StoreError(
            f"{store}: expected splits by sequence in {METADATA}, found something else; run "
            "`voxelize` again"
        )
    return splits


def write_splits(store: Place, splits: Mapping[str, str]) -> None:
    """Say in which splits sequences are; those that their names say are left out."""
    attributes = _read_attributes(store, METADATA) or {}
    former = read_splits(store)
    kept = {seq: split for seq, split in former.items() if seq not in splits}
    moved = {seq: split for seq, split in splits.items() if split != seq.split("/", 1)[0]}
    now = dict(sorted((kept | moved).items()))
    if now != former:
        _write_json(store, METADATA, _group(attributes | {"splits": now}))


def read_record(folder: Place, kind: Kind = "counts") -> SequenceRecord | None:
    """Return the record of the sequence at this place, or None where there is none.

    Raises:
        StoreError: it is there and can't be used.
    """
    attributes = _read_attributes(folder, NPY_MARK if kind == "npy" else METADATA)
    # Groups between the root and the sequences have no attributes.
    if attributes is None or attributes.get("format") != FORMAT or "seq" not in attributes:
        return None
    return parse_record(attributes, str(folder))


def begin_sequence(store: Place, record: SequenceRecord) -> None:
    """Say that a sequence is ours and not whole."""
    if record.kind != "npy":
        # Zarr finds a group by the groups above it.
        parts = record.seq.split("/")
        for i in range(1, len(parts)):
            key = f"{'/'.join(parts[:i])}/{METADATA}"
            if store.size(key) is None:
                _write_json(store, key, _group({}), durable=False)
    _write_record(store.child(record.seq), record, durable=False)


def mark_complete(store: Place, record: SequenceRecord, completion: Completion) -> None:
    """Write the mark that makes a sequence whole. Nothing of it is written afterwards."""
    whole = record.model_copy(update={"complete": completion})
    _write_record(store.child(record.seq), whole)


def rewrite_record(store: Place, record: SequenceRecord) -> None:
    """Replace the record of a whole sequence by one that says the same of its files."""
    assert record.complete is not None
    _write_record(store.child(record.seq), record)


def find_sequences(store: Place, under: str = "") -> Iterator[tuple[str, SequenceRecord]]:
    """Yield (seq, record) of every sequence of a Zarr store, complete or not, sorted.

    Raises:
        StoreError: a record can't be used.
    """
    record = read_record(store.child(under)) if under else None
    if record is not None:
        yield under, record
        return
    for name in store.folders(under):
        yield from find_sequences(store, f"{under}/{name}" if under else name)


def find_split(store: Place, split: str) -> Iterator[tuple[str, SequenceRecord]]:
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
def exclusive(store: Place) -> Iterator[None]:
    """Hold a store for writing; the system lets go even if we are killed.

    A bucket knows no locks: there two writers make the same bytes from the same sources, and the
    marks of different ones differ, so that readers never see a mixture as whole.

    Raises:
        StoreError: another process holds it.
    """
    if not store.is_local:
        yield
        return
    folder = Path(store.location)
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f".{folder.name}.lock")
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A holder that has just finished took the name away: then this is nobody's lock.
            held = path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())
        except BlockingIOError:
            held = False
        if not held:
            raise StoreError(f"{store}: another `voxelize` is writing it; wait for it, or stop it")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def is_free(store: Place) -> bool:
    """Whether nothing is at this place."""
    if not store.is_local:
        return not store.folders()
    folder = Path(store.location)
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def _write_record(folder: Place, record: SequenceRecord, *, durable: bool = True) -> None:
    attributes = record.model_dump(mode="json")
    if record.kind == "npy":
        _write_json(folder, NPY_MARK, attributes, durable=durable)
    else:
        _write_json(folder, METADATA, _group(attributes), durable=durable)


def _group(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of a Zarr v3 group."""
    return {"attributes": attributes, "zarr_format": 3, "node_type": "group"}


def _write_json(place: Place, key: str, content: Any, *, durable: bool = True) -> None:
    place.write(key, [(json.dumps(content, indent=1) + "\n").encode()], durable=durable)


def _read_attributes(place: Place, key: str) -> dict[str, Any] | None:
    found = place.read(key, _MAX_METADATA_BYTES)
    if found is None:
        return None
    try:
        content = json.loads(found)
    except (ValueError, RecursionError) as error:
        raise StoreError(
            f"{place}: {key}: expected JSON, found something else ({error}); restore the file or "
            "voxelize again into another folder"
        ) from error
    if key == METADATA and isinstance(content, dict):
        content = content.get("attributes")
    return content if isinstance(content, dict) else {}
