"""What a run of `align` found, in a few figures."""

from __future__ import annotations

import os
from collections.abc import Sequence as Several
from dataclasses import dataclass

from .manifest import Manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignSummary:
    """What `align` reports and `align --json` prints."""

    log: str
    manifest: str
    layout: str
    fps: float
    """Sharp frames a second, in Hz."""
    sequences: int
    windows: int
    spikes: int
    """In all exposures together."""
    verified: int
    """Sequences whose lag the images prove."""
    corrected: int
    """Sequences whose clock was corrected by what the images prove."""
    worst_lag_seconds: float | None
    worst_lag_frames: float | None
    """In spike samples."""
    worst_lag_seq: str | None
    blur_kind: str | None
    """GoPro's blur or blur_gamma: results on the two do not compare."""
    verification: dict[str, dict[str, object]]
    """By sequence, as the manifest has it."""
    warnings: list[str]


def summarise(
    result: Manifest,
    log: str | os.PathLike[str],
    manifest: str | os.PathLike[str],
    warnings: Several[str],
) -> AlignSummary:
    """Return the figures of a manifest, with where it and its log were written."""
    verified = {
        sequence.seq: sequence.verification
        for sequence in result.sequences
        if sequence.verification is not None
    }
    proved = {seq: found for seq, found in verified.items() if found.confident}
    worst = max(proved, key=lambda seq: abs(proved[seq].lag_seconds), default=None)
    windows = [window for sequence in result.sequences for window in sequence.windows]
    return AlignSummary(
        log=os.fspath(log),
        manifest=os.fspath(manifest),
        layout=result.layout,
        fps=result.fps,
        sequences=len(result.sequences),
        windows=len(windows),
        spikes=sum(window.spike_count for window in windows),
        verified=len(proved),
        corrected=sum(found.applied for found in verified.values()),
        worst_lag_seconds=proved[worst].lag_seconds if worst else None,
        worst_lag_frames=proved[worst].lag_frames if worst else None,
        worst_lag_seq=worst,
        blur_kind=next((s.blur_kind for s in result.sequences if s.blur_kind), None),
        verification={seq: found.model_dump() for seq, found in verified.items()},
        warnings=list(warnings),
    )
