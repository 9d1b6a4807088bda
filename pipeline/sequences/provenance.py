"""One hash of a data set, by which products name what they were made from."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..host.reporter import counted
from .contract import WindowSequence
from .stored import StoreSequence
from .unified import UnifiedSequence


def describe_data(sequences: Sequence[WindowSequence]) -> dict[str, Any]:
    """Return what identifies a split's content: counts, and a hash that stays when it is moved.

    For a store the hash covers each sequence's record, and so the content of all its sources. For
    a unified folder, whose files nobody has hashed, it covers times, shapes, and the files' names
    and sizes.

    Returns:
        `sequences`, `windows`, `sha256`, `blur_kinds` and, for a store, `manifests_sha256`.
    """
    digest = hashlib.sha256()
    manifests = set()
    for sequence in sequences:
        if isinstance(sequence, StoreSequence):
            record = sequence.record
            # Stores of earlier releases lack these values, which would change their hash.
            absent: dict[str, Any] = {"complete": {"crc32", "record_crc32"}, "arrays": True}
            if record.readout is None:
                absent["readout"] = True
            if record.blur_kind is None:
                absent["blur_kind"] = True
            named = record.model_copy(update={"schema_version": 2})
            digest.update(named.model_dump_json(exclude=absent).encode())
            if record.complete is not None:
                manifests.add(record.complete.manifest_sha256)
            continue
        metadata = (sequence.seq, sequence.bins, sequence.gain, sequence.windows_are_raw)
        digest.update(repr((*metadata, sequence.frame_shape, sequence.voxel_shape)).encode())
        for array in (sequence.frame_index, sequence.t0, sequence.t1, sequence.samples):
            digest.update(np.ascontiguousarray(array).tobytes())
        if isinstance(sequence, UnifiedSequence):
            paths = itertools.chain.from_iterable(sequence.paths.values())
            digest.update(repr([(path.name, path.stat().st_size) for path in paths]).encode())
    return {
        "sequences": len(sequences),
        "windows": int(sum(sequence.length for sequence in sequences)),
        "sha256": digest.hexdigest(),
        "manifests_sha256": sorted(manifests),
        "blur_kinds": list(blur_kinds(sequences)),
    }


def describe_mixture(
    stores: Mapping[str, tuple[float | None, Sequence[WindowSequence]]],
) -> dict[str, Any]:
    """Return what identifies the content of several stores that are trained on together.

    The hash covers each store's and its weight, in their order, and no name.

    Args:
        stores: weight and sequences of each store, by its name.

    Returns:
        As `describe_data`, and `stores`, the same of each store with its `weight`.
    """
    each = {name: describe_data(sequences) for name, (_, sequences) in stores.items()}
    hashed = [(each[name]["sha256"], weight) for name, (weight, _) in stores.items()]
    together = [sequence for _, sequences in stores.values() for sequence in sequences]
    return {
        "sequences": len(together),
        "windows": sum(one["windows"] for one in each.values()),
        "sha256": hashlib.sha256(repr(hashed).encode()).hexdigest(),
        "manifests_sha256": sorted({x for one in each.values() for x in one["manifests_sha256"]}),
        "blur_kinds": list(blur_kinds(together)),
        "stores": {name: {"weight": stores[name][0], **each[name]} for name in stores},
    }


def blur_kinds(sequences: Sequence[WindowSequence]) -> tuple[str, ...]:
    """Return the names of the ways in which frames were averaged, sorted; results depend on it."""
    records = [sequence.record for sequence in sequences if isinstance(sequence, StoreSequence)]
    return tuple(sorted({record.blur_kind for record in records if record.blur_kind is not None}))


def findings(sequences: Sequence[WindowSequence]) -> dict[str, str]:
    """Return what `align` found wrong with sequences that were voxelized all the same, by name."""
    records = [sequence.record for sequence in sequences if isinstance(sequence, StoreSequence)]
    return {record.seq: record.finding for record in records if record.finding is not None}


def warning_of(found: Mapping[str, str]) -> str:
    """Return a sentence about `findings`, at least one."""
    seq, finding = next(iter(found.items()))
    misfits = "does not fit its frames" if len(found) == 1 else "do not fit their frames"
    return f"{counted(len(found), 'sequence')} {misfits}, as `align` found; {seq}: {finding}"
