"""Which data it was: one hash by which products name what they were made from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from .contract import WindowSequence
from .stored import StoreSequence
from .unified import UnifiedSequence


def describe_data(sequences: Sequence[WindowSequence]) -> dict[str, Any]:
    """Return what identifies a split's content: counts, and a hash that stays when it is moved.

    Of a store the hash covers each sequence's record, and so the content of all its sources. Of a
    unified folder, whose files nobody has hashed, it covers times, shapes, and the files' names
    and sizes.

    Returns:
        `sequences`, `windows`, `sha256`, `blur_kinds` and, of a store, `manifests_sha256`.
    """
    digest = hashlib.sha256()
    manifests = set()
    for sequence in sequences:
        if isinstance(sequence, StoreSequence):
            record = sequence.record
            # Left out: what stores that were made before it was recorded lack.
            absent: dict[str, Any] = {"complete": {"crc32", "record_crc32"}}
            if record.blur_kind is None:
                absent["blur_kind"] = True
            digest.update(record.model_dump_json(exclude=absent).encode())
            if record.complete is not None:
                manifests.add(record.complete.manifest_sha256)
            continue
        known = (sequence.seq, sequence.bins, sequence.gain, sequence.windows_are_raw)
        digest.update(repr((*known, sequence.frame_shape, sequence.voxel_shape)).encode())
        for array in (sequence.frame_index, sequence.t0, sequence.t1, sequence.samples):
            digest.update(np.ascontiguousarray(array).tobytes())
        if isinstance(sequence, UnifiedSequence):
            files = (*sequence.blur_paths, *sequence.sharp_paths, *sequence.voxel_paths)
            digest.update(repr([(path.name, path.stat().st_size) for path in files]).encode())
    return {
        "sequences": len(sequences),
        "windows": int(sum(sequence.length for sequence in sequences)),
        "sha256": digest.hexdigest(),
        "manifests_sha256": sorted(manifests),
        "blur_kinds": list(blur_kinds(sequences)),
    }


def blur_kinds(sequences: Sequence[WindowSequence]) -> tuple[str, ...]:
    """Return which of a data set's ways to average frames are here, sorted; results differ."""
    records = [sequence.record for sequence in sequences if isinstance(sequence, StoreSequence)]
    return tuple(sorted({record.blur_kind for record in records if record.blur_kind is not None}))
