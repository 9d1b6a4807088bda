"""A sequence's folder in a store: made, marked complete, looked at, removed."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ..files import write_text
from .schema import (
    FORMAT,
    SCHEMA_VERSION,
    Completion,
    Kind,
    SequenceRecord,
    StoreError,
    parse_record,
)

NPY_MARK = "spike_vox/voxels.json"
"""Where kind npy keeps a sequence's record, relative to the sequence's folder."""

_NPY_ROOT = "voxels.json"
_METADATA = "zarr.json"
_MAX_METADATA_BYTES = 256 * 2**20


def claim_store(
    store: Path, kind: Kind, *, may_hold_source: bool = False, make: bool = True
) -> None:
    """Make the store's folder, or check that what is there is a store of this kind.

    Args:
        store: the folder.
        kind: what it is to hold.
        may_hold_source: the folder is the data set itself (kind npy, unified layout).
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
    if store.exists() and (not store.is_dir() or any(store.iterdir())):
        raise StoreError(
            f"{store}: expected a new folder or a store that `voxelize` wrote, found something "
            "else; give another folder"
        )
    if not make:
        return
    store.mkdir(parents=True, exist_ok=True)
    attributes: dict[str, Any] = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
        "kind": kind,
    }
    if kind == "npy":
        write_text(store / _NPY_ROOT, json.dumps(attributes, indent=1) + "\n")
        return
    import zarr

    zarr.open_group(store, mode="w-", attributes=attributes)


def root_kind(store: Path) -> str | None:
    """Return the kind of the store at this folder, or None where it is none of ours."""
    for name in (_METADATA, _NPY_ROOT):
        attributes = _read_attributes(store / name)
        if attributes is not None and attributes.get("format") == FORMAT:
            kind = attributes.get("kind")
            return kind if isinstance(kind, str) else None
    return None


def read_record(folder: Path, kind: Kind = "counts") -> SequenceRecord | None:
    """Return the record of the sequence in this folder, or None where there is none.

    Raises:
        StoreError: it is there and can't be used.
    """
    path = folder / (NPY_MARK if kind == "npy" else _METADATA)
    attributes = _read_attributes(path)
    # Groups between the root and the sequences have no attributes.
    if attributes is None or attributes.get("format") != FORMAT or "seq" not in attributes:
        return None
    return parse_record(attributes, str(folder))


def create_sequence(
    store: Path, record: SequenceRecord, small: Mapping[str, np.ndarray]
) -> dict[str, int]:
    """Make a sequence's empty arrays and fill the small ones.

    Returns:
        Size in bytes of each small array's file, by path relative to the group.
    """
    import zarr
    from zarr.codecs import BytesCodec

    group = zarr.open_group(store, mode="r+").create_group(
        record.seq, attributes=record.model_dump(mode="json")
    )
    sizes: dict[str, int] = {}
    for spec in record.arrays().values():
        array = group.create_array(
            spec.name,
            shape=spec.shape,
            dtype=spec.dtype,
            chunks=spec.chunks,
            shards=spec.shards,
            serializer="auto" if spec.shards else BytesCodec(),
            compressors=[spec.codec()] if spec.shards else None,
            dimension_names=spec.dimensions,
            fill_value=0,
            # A chunk of zeros is written like any other, so that a missing one is an error.
            config={"write_empty_chunks": True},
        )
        if spec.shards is None:
            array[:] = small[spec.name]
            for key in spec.shard_keys(0, record.windows):
                sizes[key] = (store / record.seq / key).stat().st_size
    return sizes


def begin_npy(store: Path, record: SequenceRecord) -> None:
    """Say that a sequence of kind npy is ours and not whole: its files get their names singly."""
    write_text(
        store / record.seq / NPY_MARK, json.dumps(record.model_dump(mode="json"), indent=1) + "\n"
    )


def mark_complete(store: Path, record: SequenceRecord, completion: Completion) -> None:
    """Write the mark that makes a sequence whole. Nothing of it is written afterwards."""
    whole = record.model_copy(update={"complete": completion}).model_dump(mode="json")
    folder = store / record.seq
    if record.kind == "npy":
        write_text(folder / NPY_MARK, json.dumps(whole, indent=1) + "\n")
        return
    metadata = json.loads((folder / _METADATA).read_bytes())
    metadata["attributes"] = whole
    write_text(folder / _METADATA, json.dumps(metadata, indent=1) + "\n")


def remove_sequence(store: Path, seq: str) -> None:
    """Remove a sequence's folder; if that is cut short, nothing of it can be taken for whole."""
    folder = store / seq
    aside = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}.removed")
    folder.replace(aside)
    shutil.rmtree(aside)


def find_sequences(store: Path, under: str = "") -> Iterator[tuple[str, SequenceRecord]]:
    """Yield (seq, record) of every sequence of a Zarr store, complete or not, sorted.

    Raises:
        StoreError: a record can't be used.
    """
    top = store / under
    record = read_record(top) if top != store else None
    if record is not None:
        yield under, record
        return
    try:
        names = sorted(
            entry.name
            for entry in os.scandir(top)
            if entry.is_dir() and not entry.name.startswith(".")
        )
    except FileNotFoundError:
        return
    for name in names:
        yield from find_sequences(store, f"{under}/{name}" if under else name)


@contextmanager
def exclusive(store: Path) -> Iterator[None]:
    """Hold the store for writing; the system lets go even if we are killed.

    Raises:
        StoreError: another process holds it.
    """
    store.parent.mkdir(parents=True, exist_ok=True)
    path = store.with_name(f".{store.name}.lock")
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


def _read_attributes(path: Path) -> dict[str, Any] | None:
    try:
        if path.stat().st_size > _MAX_METADATA_BYTES:
            raise StoreError(f"{path}: expected metadata, found {path.stat().st_size} bytes")
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError) as error:
        raise StoreError(
            f"{path}: expected JSON, found something else ({error}); restore the file or "
            "voxelize again into another folder"
        ) from error
    if path.name == _METADATA and isinstance(content, dict):
        content = content.get("attributes")
    return content if isinstance(content, dict) else {}
