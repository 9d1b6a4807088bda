"""Exposures of a recording by their spikes: too few, none at all, or as many as others."""

from __future__ import annotations

from collections.abc import Iterator

from ..host.reporter import counted
from ..sequences.recording import MOST_BINS, Recording
from .record import RestoreError


def without_light(recording: Recording) -> Iterator[str]:
    """Yield a warning if no pixel fired in the first, middle or last exposure, or all always."""
    settings, exposures = recording.settings, recording.exposures
    spikes = recording.spikes()
    height, width = settings.geometry.shape
    for i in sorted({0, len(exposures) // 2, len(exposures) - 1}):
        start, stop = settings.clock.samples(exposures[i].t0, exposures[i].t1)
        start, stop = max(0, start), min(stop, spikes.n_frames)
        count = spikes.count_spikes(start, stop) if start < stop else None
        if count == 0 or count == (stop - start) * height * width:
            what = "no pixel fires" if count == 0 else "every pixel fires in every sample"
            yield (
                f"{exposures[i].path.name}: {what} during the exposure, so its spikes show nothing "
                "of the scene; check the lens, the light, --geometry and --first"
            )
            return


def require_samples(recording: Recording, each: int) -> None:
    """Refuse more sharp frames than an exposure has spike samples.

    Raises:
        RestoreError: it is so; names the frame.
    """
    clock = recording.settings.clock
    for exposure in recording.exposures if each > 1 else ():
        start, stop = clock.samples(exposure.t0, exposure.t1)
        if each > stop - start:
            raise RestoreError(
                f"{exposure.path}: expected at most {counted(stop - start, 'sharp frame')}, one "
                f"for each spike sample of its exposure, found {each}; give fewer "
                "--frames-per-exposure"
            )


def alike(recording: Recording) -> list[list[int]]:
    """Return indices of exposures, those that have the same number of bins together."""
    groups: dict[int, list[int]] = {}
    for i, exposure in enumerate(recording.exposures):
        start, stop = recording.settings.clock.samples(exposure.t0, exposure.t1)
        groups.setdefault(min(MOST_BINS, stop - start), []).append(i)
    return list(groups.values())
