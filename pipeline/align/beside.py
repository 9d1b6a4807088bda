"""The manifest beside an alignment log: what the log's five columns have no room for."""

from __future__ import annotations

import os
from pathlib import Path

from .log import format_alignment_log
from .manifest import Manifest, ManifestError, Sequence, read_manifest


def manifest_beside(log: str | os.PathLike[str]) -> Manifest | None:
    """Return the manifest that `align` wrote with a log, `<log>.json`; None if it isn't there.

    One that is of another log, or can't be read, is none.
    """
    beside = Path(log).with_suffix(".json")
    if not beside.is_file():
        return None
    try:
        manifest = read_manifest(beside)
        same = format_alignment_log(manifest.log_rows()).encode() == Path(log).read_bytes()
    except (ManifestError, OSError):
        return None
    return manifest if same else None


def was_corrected(sequence: Sequence) -> bool:
    """Whether clock or place differ from what side files and sizes say."""
    applied = sequence.verification is not None and sequence.verification.applied
    return applied or sequence.space is not None
