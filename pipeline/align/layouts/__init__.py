"""Data sets' folders, one module a layout, all behind `contract.Layout`.

A new layout is a module with NAME, NEEDS, VARIANTS, `recognise` and `find`, added to LAYOUTS; or
a layout file, see `custom`, without any Python.
"""

from __future__ import annotations

from pathlib import Path

from . import s_sdm, spikecv, spk_gopro, unified, x4k1000fps
from .contract import AlignmentError, FoundSequence, FoundWindow, Layout
from .custom import is_layout_file, read_layout

__all__ = [
    "LAYOUTS",
    "AlignmentError",
    "FoundSequence",
    "FoundWindow",
    "Layout",
    "detect",
    "find_layout",
    "require_root",
]

LAYOUTS: dict[str, Layout] = {
    layout.NAME: layout for layout in (x4k1000fps, spk_gopro, s_sdm, unified, spikecv)
}


def find_layout(name: str) -> Layout:
    """Return the layout of this name, or the one that a layout file of this name describes.

    Raises:
        AlignmentError: neither is there, or the file can't be used.
    """
    if is_layout_file(name):
        return read_layout(name, taken=frozenset(LAYOUTS))
    if name not in LAYOUTS:
        raise AlignmentError(
            f"layout {name!r} is not read; expected auto, {', '.join(LAYOUTS)}, or a layout file "
            "FILE.yaml that describes the folders"
        )
    return LAYOUTS[name]


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
    x4k1000fps.require_not_raw(root)
    needs = "; ".join(f"{name} needs {layout.NEEDS}" for name, layout in LAYOUTS.items())
    raise AlignmentError(
        f"{root}: fits no known layout ({needs}); give the folder that holds them, or a layout "
        "file: --layout FILE.yaml"
    )


def require_root(root: Path) -> Path:
    """Return `root` if it is a folder.

    Raises:
        AlignmentError: it isn't.
    """
    if not root.is_dir():
        raise AlignmentError(f"{root}: expected the data set's folder, found none; check the path")
    return root
