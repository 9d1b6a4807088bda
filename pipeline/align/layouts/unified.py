"""One folder a sequence: the layout that training reads directly.

    <root>/<split>/<sequence>/blur/0031.png
    <root>/<split>/<sequence>/sharp/0031.png              optional
    <root>/<split>/<sequence>/spike/0031.dat              one file an exposure, or
    <root>/<split>/<sequence>/spike/spike.dat             one stream (also in <sequence>/)

A frame's number is its place on the time axis: frame i is at i / fps. A sequence may be several
folders deep.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...frames.listing import IMAGE_SUFFIXES, folder_names, shorten, walk_folders
from .contract import AlignmentError, FoundSequence, index_frames, leftovers, pair_frames

NAME = "unified"
NEEDS = "<split>/<sequence>/blur/ beside <split>/<sequence>/spike/"
VARIANTS = ()

DEFAULT_EXPOSURE = 33
STREAM = "spike.dat"


def recognise(root: Path) -> str | None:
    """Return what in `root` shows this layout, or None."""
    for folder, folders, names in walk_folders(root):
        depth = len(folder.relative_to(root).parts)
        if depth >= 2 and "blur" in folders and ("spike" in folders or STREAM in names):
            return f"{folder.relative_to(root).as_posix()}/blur/ beside its spikes"
    return None


def find(root: Path, exposure: int | None, variant: str | None = None) -> list[FoundSequence]:
    """Return all sequences of all splits, by seq."""
    exposure = DEFAULT_EXPOSURE if exposure is None else exposure
    found = []
    leftovers = []
    for folder, folders, names in walk_folders(root):
        relative = folder.relative_to(root)
        if len(relative.parts) < 2:
            continue
        if "blur" in folders:
            found.append(_find_sequence(folder, relative.as_posix(), exposure))
        elif ("spike" in folders or STREAM in names) and folder.name != "spike":
            leftovers.append(f"{folder}: spikes without blur/; left out")
    if not found:
        raise AlignmentError(
            f"{root}: expected {NEEDS} for the layout {NAME}, found none; give the folder that "
            "holds the splits"
        )
    found.sort(key=lambda sequence: sequence.seq)
    if leftovers:
        first = found[0]
        found[0] = replace(first, warnings=(*first.warnings, *leftovers))
    return found


def _find_sequence(folder: Path, seq: str, exposure: int) -> FoundSequence:
    blurs, warnings = index_frames(folder / "blur", folder_names(folder / "blur"), IMAGE_SUFFIXES)
    sharps, more = index_frames(folder / "sharp", folder_names(folder / "sharp"), IMAGE_SUFFIXES)
    warnings += more
    if not blurs:
        raise AlignmentError(
            f"{folder / 'blur'}: expected images named by number, such as 0031.png, found "
            f"{shorten(warnings) or 'none'}"
        )
    names = folder_names(folder / "spike")
    streams = [p for p in (folder / STREAM, folder / "spike" / STREAM) if p.is_file()]
    dats = tuple(name for name in names if name.endswith(".dat") and name != STREAM)
    if len(streams) > 1 or (streams and dats):
        raise AlignmentError(
            f"{folder}: expected one stream {STREAM} or one .dat a frame, found "
            f"{shorten([str(p.relative_to(folder)) for p in streams] + list(dats))}; keep one kind"
        )
    if streams:
        spikes = dict.fromkeys(blurs, streams[0])
    else:
        spikes, more = index_frames(folder / "spike", dats, (".dat",))
        warnings += more
    expected = f"a .dat of the same name in {folder / 'spike'}, or one stream {STREAM}"
    windows = pair_frames(blurs, sharps, spikes, expected)
    return FoundSequence(
        seq=seq,
        windows=windows,
        exposure=exposure,
        fps=None,
        own_files=not streams,
        warnings=(*warnings, *leftovers(blurs, spikes, sharps)),
    )
