"""Sentences about a folder's frames that may not be what they are taken for."""

from __future__ import annotations

from pathlib import Path

from ..clocks.camera import CameraClock
from ..clocks.names import describe_gaps, gaps_between, gaps_in, two_kinds_in
from ..frames.listing import IMAGE_SUFFIXES, folder_names, list_frames


def left_out_of(blur: Path, camera: CameraClock | None) -> list[str]:
    """Return a sentence for each of a folder's files that is no frame of the recording."""
    if camera is None:
        return list_frames(blur).left_out()
    # Images of any name are frames, so two may have the same number.
    table = None if camera.times is None else Path(camera.times).resolve()
    others = [
        name
        for name in folder_names(blur)
        if not name.lower().endswith(IMAGE_SUFFIXES) and (blur / name).resolve() != table
    ]
    return list_frames(blur, names=others).left_out()


def gaps_in_order(frames: dict[int, Path]) -> list[str]:
    """Return a warning where frames that are taken as neighbours in time may not be any."""
    names = [path.name for path in frames.values()]
    warnings = []
    if gaps := gaps_in(names):
        warnings.append(
            f"after {gaps[0][0]} comes {gaps[0][1]}{' and so on' * (len(gaps) > 1)}, and they are "
            "taken as neighbours in time; if frames were dropped between them, give --times"
        )
    if kinds := two_kinds_in(names):
        warnings.append(
            f"names are of several kinds, such as {kinds[0]} and {kinds[1]}; all are taken as "
            f"frames of one camera, from {names[0]} to {names[-1]}"
        )
    return warnings


def gaps_in_numbers(frames: dict[int, Path]) -> list[str]:
    """Return a warning where numbers of frames leave a gap."""
    gaps = gaps_between([path.name for path in frames.values()], list(frames))
    return [describe_gaps(gaps)] if gaps else []
