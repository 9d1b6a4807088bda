"""Names of folders, files and images, sorted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


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
        visible = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
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
        return tuple(
            sorted(e.name for e in entries if not e.name.startswith(".") and not e.is_dir())
        )


def shorten(names: list[str], limit: int = 5) -> str:
    """Return text with the first `limit` names and how many more there are."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
"""Suffixes of image files that are read, in lower case."""


def list_images(folder: Path) -> list[Path]:
    """Return the paths of the image files in `folder`, sorted by name; none if it isn't there."""
    return [folder / n for n in folder_names(folder) if n.lower().endswith(IMAGE_SUFFIXES)]
