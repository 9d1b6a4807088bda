"""Unified: one folder for each sequence, as training reads it without a store.

    <root>/<split>/<sequence>/blur/0031.png
    <root>/<split>/<sequence>/sharp/0031.png              optional
    <root>/<split>/<sequence>/spike/0031.dat              one file an exposure, or
    <root>/<split>/<sequence>/spike/spike.dat             one stream (also in <sequence>/)

Frame i is at i / fps. A sequence's folder may lie several folders deep.
"""

from __future__ import annotations

from pathlib import Path

from ...frames.listing import folder_names, shorten, walk_folders
from ...spikes.dat import SPIKE_SUFFIXES
from .contract import AlignmentError, FoundSequence, in_order
from .pairing import (
    find_streams,
    index_frames,
    is_stream_name,
    leftovers,
    pair_frames,
    unread_arrays,
)

NAME = "unified"
NEEDS = "<split>/<sequence>/blur/ beside <split>/<sequence>/spike/"
VARIANTS = ()

DEFAULT_EXPOSURE = 33
STREAM = "spike.dat"


def recognise(root: Path) -> str | None:
    """Return what in `root` shows this layout; None: nothing does."""
    for folder, folders, names in walk_folders(root):
        depth = len(folder.relative_to(root).parts)
        if (
            depth >= 2
            and "blur" in folders
            and ("spike" in folders or any(map(is_stream_name, names)))
        ):
            return f"{folder.relative_to(root).as_posix()}/blur/ beside its spikes"
    return None


def find(root: Path, exposure: int | None, variant: str | None = None) -> list[FoundSequence]:
    """Return all sequences of all splits, in order of `seq`."""
    exposure = DEFAULT_EXPOSURE if exposure is None else exposure
    sequences = []
    alone = []
    for folder, folders, names in walk_folders(root):
        relative = folder.relative_to(root)
        if len(relative.parts) < 2:
            continue
        if "blur" in folders:
            sequences.append(_find_sequence(folder, relative.as_posix(), exposure))
        elif ("spike" in folders or any(map(is_stream_name, names))) and folder.name != "spike":
            alone.append(f"{folder}: spikes without blur/; left out")
    return in_order(root, NEEDS, sequences, alone)


def _find_sequence(folder: Path, seq: str, exposure: int) -> FoundSequence:
    warnings: list[str] = []
    blurs = index_frames(folder / "blur", warnings, example="0031.png")
    sharps = index_frames(folder / "sharp", warnings)
    streams = find_streams(folder, folder / "spike")
    names = folder_names(folder / "spike")
    dats = tuple(
        name for name in names if name.lower().endswith(SPIKE_SUFFIXES) and not is_stream_name(name)
    )
    if len(streams) > 1 or (streams and dats):
        raise AlignmentError(
            f"{folder}: expected one stream {STREAM} or one .dat a frame, found "
            f"{shorten([str(p.relative_to(folder)) for p in streams] + list(dats))}; keep one kind"
        )
    if streams:
        spikes = dict.fromkeys(blurs, streams[0])
    else:
        spikes = index_frames(folder / "spike", warnings, names=dats, suffixes=SPIKE_SUFFIXES)
    expected = f"a .dat of the same name in {folder / 'spike'}, or one stream {STREAM}"
    windows = pair_frames(blurs, sharps, spikes, expected)
    return FoundSequence(
        seq=seq,
        windows=windows,
        exposure=exposure,
        fps=None,
        own_files=not streams,
        warnings=(
            *warnings,
            *leftovers(blurs, spikes, sharps),
            *unread_arrays(folder),
            *unread_arrays(folder / "spike"),
        ),
    )
