"""Names of folders, files and images, sorted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def walk_folders(top: Path) -> Iterator[tuple[Path, tuple[str, ...], tuple[str, ...]]]:
    """Yield (folder, subfolders' names, files' names), sorted; hidden entries are skipped.

    Links to folders are followed, except one back to a folder that holds it.
    """
    pending = [(top, os.path.realpath(top), frozenset[str]())]
    while pending:
        folder, real, above = pending.pop()
        if real in above:
            continue
        folders, files, inner = [], [], []
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith("."):
                    continue
                if not entry.is_dir():
                    files.append(entry.name)
                    continue
                folders.append(entry.name)
                # Only a link can lead elsewhere; asking the system about each folder is slow.
                path = f"{real}/{entry.name}"
                inner.append((entry.name, os.path.realpath(path) if entry.is_symlink() else path))
        yield folder, tuple(folders), tuple(files)
        pending += [(folder / name, path, above | {real}) for name, path in reversed(inner)]


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
