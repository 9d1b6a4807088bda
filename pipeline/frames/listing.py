"""Names of folders, files and images, sorted; and which frame an image's name says it is.

Hidden entries are skipped, and those that file servers add: `.DS_Store`, `@eaDir`, `#recycle`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import SpikeDeblurError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
"""Suffixes of image files that are read, in lower case."""

ARRAY_SUFFIXES = (".npy", ".npz", ".h5", ".hdf5", ".mat", ".aedat4")
"""Suffixes of files in which others keep spikes or events, in lower case."""

DATA_SUFFIXES = (
    *IMAGE_SUFFIXES,
    *(".webp", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".gif", ".ppm", ".pgm", ".tga", ".exr"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".rw2", ".orf", ".dpx", ".hdr"),
    *(".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mts"),
    *(".dat", ".bin", ".raw"),
    *ARRAY_SUFFIXES,
)
"""Suffixes of pictures, videos and spikes, read or not, in lower case."""

INTERPOLATION = 4
"""Frames of Spk-X4K1000FPS for each recorded one: itself and three interpolated ones."""

_PLAIN = re.compile(r"[0-9]{1,9}")
_BETWEEN = re.compile(r"([0-9]{1,9})_([0-9]{3})")
_SKIPPED = (".", "@", "#", "__MACOSX")


class FrameNameError(SpikeDeblurError):
    """Two files of a folder are the same frame."""


def is_visible(name: str) -> bool:
    """Whether an entry of a folder is the user's: not hidden, nor added by a file server."""
    return not name.startswith(_SKIPPED)


def walk_folders(
    top: Path, real: str | None = None, above: frozenset[str] = frozenset()
) -> Iterator[tuple[Path, tuple[str, ...], tuple[str, ...]]]:
    """Yield (folder, subfolders' names, files' names), sorted; hidden entries are skipped.

    Links to folders are followed, except one back to a folder that holds it.

    Args:
        top: the folder.
        real: its path without links, where it is known.
        above: such paths of the folders that hold it, where it is one of a walk.
    """
    real = os.path.realpath(top) if real is None else real
    if real in above:
        return
    with os.scandir(top) as entries:
        visible = sorted((e for e in entries if is_visible(e.name)), key=lambda e: e.name)
    folders = [entry for entry in visible if entry.is_dir()]
    yield top, tuple(e.name for e in folders), tuple(e.name for e in visible if not e.is_dir())
    for entry in folders:
        # Only a link can lead elsewhere; asking the system about each folder is slow.
        path = os.path.realpath(entry) if entry.is_symlink() else f"{real}/{entry.name}"
        yield from walk_folders(top / entry.name, path, above | {real})


def folder_names(folder: Path) -> tuple[str, ...]:
    """Return the names of the visible files in `folder`, sorted; none if it isn't there."""
    if not folder.is_dir():
        return ()
    with os.scandir(folder) as entries:
        return tuple(sorted(e.name for e in entries if is_visible(e.name) and not e.is_dir()))


def subfolders(folder: Path) -> list[Path]:
    """Return the paths of the visible folders in `folder`, sorted; none if it isn't there."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(folder / e.name for e in entries if is_visible(e.name) and e.is_dir())


def shorten(names: list[str], limit: int = 5) -> str:
    """Return text with the first `limit` names and how many more there are."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


@dataclass(frozen=True, slots=True)
class FrameFiles:
    """A folder's frames by number, and what else is there."""

    frames: dict[int, Path]
    """Path of each frame by its number, in ascending order."""
    unnamed: tuple[Path, ...]
    """Files with the ending of a frame whose names are no frame's."""
    others: tuple[Path, ...]
    """Files with other endings, without side files."""

    def left_out(self) -> list[str]:
        """Return a sentence for each file without a frame's name, and one for all others."""
        sentences = [f"{path}: not a frame's name; left out" for path in self.unnamed]
        if self.others:
            names = shorten([path.name for path in self.others])
            sentences.append(f"{self.others[0].parent}: {names}: not read by ending; left out")
        return sentences


def list_frames(
    folder: Path,
    *,
    suffixes: Iterable[str] = IMAGE_SUFFIXES,
    names: Iterable[str] | None = None,
    interpolated: bool | None = None,
) -> FrameFiles:
    """Return a folder's frames by number, and what is left out.

    Args:
        folder: may be missing.
        suffixes: endings of the frames, in lower case.
        names: the folder's files, where they are known; None: they are listed.
        interpolated: names are those of an interpolated sequence; None: as they show.

    Raises:
        FrameNameError: two files have the same number.
    """
    endings = tuple(suffixes)
    stems: dict[str, str] = {}
    others = []
    for name in folder_names(folder) if names is None else names:
        stem, dot, suffix = name.rpartition(".")
        if (dot + suffix).lower() in endings:
            stems[name] = stem
        elif suffix.lower() != "json":
            others.append(folder / name)
    if interpolated is None:
        interpolated = names_are_interpolated(stems.values())
    frames: dict[int, Path] = {}
    unnamed = []
    for name, stem in stems.items():
        number = parse_frame_name(stem, interpolated)
        if number is None:
            unnamed.append(folder / name)
        elif number in frames:
            raise FrameNameError(
                f"{folder}: {frames[number].name} and {name} are both frame {number}; remove one"
            )
        else:
            frames[number] = folder / name
    return FrameFiles(dict(sorted(frames.items())), tuple(unnamed), tuple(others))


def parse_frame_name(stem: str, interpolated: bool) -> int | None:
    """Return a frame's number from its file name without suffix; None: not a frame's name.

    In a recorded sequence `0031` is 31. In an interpolated one of Spk-X4K1000FPS, `NNNN` is
    recorded frame N, and 4 N; `NNNN_MMM` is an interpolated frame after it, and 4 N + M + 1. One
    name does not tell which it is; `names_are_interpolated` looks at all of them.
    """
    if _PLAIN.fullmatch(stem):
        return int(stem) * (INTERPOLATION if interpolated else 1)
    between = _BETWEEN.fullmatch(stem)
    if interpolated and between and int(between[2]) < INTERPOLATION - 1:
        return int(between[1]) * INTERPOLATION + int(between[2]) + 1
    return None


def names_are_interpolated(stems: Iterable[str]) -> bool:
    """Whether names are an interpolated sequence's: `0031_002` beside plain ones such as `0031`.

    Without plain names, `0001_002` is a name of another kind, such as <scene>_<frame>.
    """
    known = list(stems)
    return any(map(_BETWEEN.fullmatch, known)) and any(map(_PLAIN.fullmatch, known))


def left_out_around(top: Path, used: Iterable[Path]) -> list[str]:
    """Return a sentence that names the folders which hold data and none that is used; or none.

    Args:
        top: the data set's folder.
        used: files of which something is read.
    """
    read = {path.parent for path in used}
    others = [
        "." if folder == top else folder.relative_to(top).as_posix()
        for folder, _, names in walk_folders(top)
        if folder not in read and any(name.lower().endswith(DATA_SUFFIXES) for name in names)
    ]
    if not others:
        return []
    return [f"{top}: pictures, videos or spikes that are not read: in {shorten(others)}"]


def list_images(folder: Path) -> list[Path]:
    """Return the paths of the image files in `folder`, sorted by name, whatever their names.

    `list_frames` is what commands use; this stays as long as its former names are served.
    """
    return [folder / n for n in folder_names(folder) if n.lower().endswith(IMAGE_SUFFIXES)]
