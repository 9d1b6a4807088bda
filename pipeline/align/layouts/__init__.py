"""Data sets' folders, one module a layout, all behind `contract.Layout`.

A new layout is a module with NAME, NEEDS, `recognise` and `find`, added to LAYOUTS.
"""

from __future__ import annotations

from pathlib import Path

from . import spk_gopro, unified, x4k1000fps
from .contract import AlignmentError, FoundSequence, FoundWindow, Layout

__all__ = [
    "LAYOUTS",
    "AlignmentError",
    "FoundSequence",
    "FoundWindow",
    "Layout",
    "detect",
    "require_root",
]

LAYOUTS: dict[str, Layout] = {layout.NAME: layout for layout in (x4k1000fps, spk_gopro, unified)}


def detect(root: Path) -> tuple[Layout, str]:
    """Return the layout of `root` and what shows it.

    Raises:
        AlignmentError: none fits, or more than one; says what each needs or found.
    """
    fitting = {
        name: reason
        for name, layout in LAYOUTS.items()
        if (reason := layout.recognise(root)) is not None
    }
    if len(fitting) == 1:
        name, reason = next(iter(fitting.items()))
        return LAYOUTS[name], reason
    if fitting:
        seen = "; ".join(f"{name}: {reason}" for name, reason in fitting.items())
        raise AlignmentError(f"{root}: fits more than one layout ({seen}); say which by --layout")
    needs = "; ".join(f"{name} needs {layout.NEEDS}" for name, layout in LAYOUTS.items())
    raise AlignmentError(f"{root}: fits no known layout ({needs}); give the folder that holds them")


def require_root(root: Path) -> Path:
    """Return `root` if it is a folder.

    Raises:
        AlignmentError: it isn't.
    """
    if not root.is_dir():
        raise AlignmentError(f"{root}: expected the data set's folder, found none; check the path")
    return root
