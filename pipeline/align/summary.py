"""A run of `align` in a few figures."""

from __future__ import annotations

import os
from collections.abc import Sequence as Several
from dataclasses import dataclass

from .correct_clock import clear_drift
from .manifest import AlignedSequence, Manifest


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
    """Spikes in all exposures together."""
    verified: int
    """Sequences whose lag the frames prove."""
    fitting: int
    """Sequences among these whose spikes fit their frames, or do since their clock was corrected.
    """
    corrected: int
    """Sequences whose clock was corrected by a proved lag."""
    corrections: dict[str, str]
    """Options that say the corrected clock of each of these, for commands without a manifest."""
    worst_lag_seconds: float | None
    """Largest proved lag, in seconds; None: no lag is proved."""
    worst_lag_frames: float | None
    """Largest proved lag, in samples."""
    worst_lag_seq: str | None
    """Sequence with the largest proved lag."""
    blur_kind: str | None
    """How frames were averaged, GoPro's blur or blur_gamma: results on the two do not compare."""
    verification: dict[str, dict[str, object]]
    """Each sequence's `Verification`, as in the manifest."""
    warnings: list[str]


def summarise(
    result: Manifest,
    log: str | os.PathLike[str],
    manifest: str | os.PathLike[str],
    warnings: Several[str],
) -> AlignSummary:
    """Return the figures of a manifest.

    Args:
        result: the manifest.
        log: where the log was written.
        manifest: where the manifest was written.
        warnings: what `align` warned of.
    """
    lags = {s.seq: s.verification for s in result.sequences if s.verification is not None}
    proved = {seq: lag for seq, lag in lags.items() if lag.confident}
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
        fitting=sum(lag.open_problem is None for lag in proved.values()),
        corrected=sum(lag.applied for lag in lags.values()),
        corrections={s.seq: _options(s) for s in result.sequences if _is_corrected(s)},
        worst_lag_seconds=proved[worst].lag_seconds if worst else None,
        worst_lag_frames=proved[worst].lag_frames if worst else None,
        worst_lag_seq=worst,
        blur_kind=next((s.blur_kind for s in result.sequences if s.blur_kind), None),
        verification={seq: lag.model_dump() for seq, lag in lags.items()},
        warnings=list(warnings),
    )


def _is_corrected(sequence: AlignedSequence) -> bool:
    return sequence.verification is not None and sequence.verification.applied


def _options(sequence: AlignedSequence) -> str:
    """Return the options of a corrected clock, as a user types them."""
    assert sequence.verification is not None
    drift = clear_drift(sequence.verification)
    first = f"--first {1e3 * sequence.windows[0].first:.3f}ms"
    return first + (f" --rate {sequence.rate:.9g}" if drift else "")
