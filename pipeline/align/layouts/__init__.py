"""Layouts: how data sets arrange their folders. Each is a module like `contract.KnownLayout`.

A new layout is a module with NAME, NEEDS, VARIANTS, `recognise` and `find`, added to LAYOUTS; or,
without any Python, a layout file: see `custom`.
"""

from __future__ import annotations

from pathlib import Path

from . import s_sdm, s_vrt_gopro, spikecv, spk_gopro, unified, x4k1000fps
from .contract import AlignmentError, FoundSequence, FoundWindow, KnownLayout, Layout
from .custom import is_layout_file, read_layout

__all__ = [
    "LAYOUTS",
    "AlignmentError",
    "FoundSequence",
    "FoundWindow",
    "Layout",
    "choose_layout",
    "detect",
    "find_layout",
]

LAYOUTS: dict[str, KnownLayout] = {
    layout.NAME: layout for layout in (x4k1000fps, spk_gopro, s_vrt_gopro, s_sdm, unified, spikecv)
}


def choose_layout(root: Path, name: str) -> tuple[Layout, str | None]:
    """Return the layout of a data set; with `auto` also what in its folder shows it, else None.

    Raises:
        AlignmentError: `root` is no folder, no such layout, or none or several fit.
    """
    if not root.is_dir():
        raise AlignmentError(f"{root}: expected the data set's folder, found none; check the path")
    return detect(root) if name == "auto" else (find_layout(name), None)


def find_layout(name: str) -> Layout:
    """Return the layout of this name, or the one that the layout file `name` describes.

    Raises:
        AlignmentError: no such layout, or a file that can't be used.
    """
    if is_layout_file(name):
        return read_layout(name, taken=frozenset(LAYOUTS))
    if name not in LAYOUTS:
        raise AlignmentError(
            f"layout {name!r} is not known; expected auto, {', '.join(LAYOUTS)}, or a layout file "
            "FILE.yaml that describes the folders"
        )
    return LAYOUTS[name]


def detect(root: Path) -> tuple[Layout, str]:
    """Return the layout that a folder has, and what in the folder shows it.

    Raises:
        AlignmentError: no layout fits, or several do.
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
        raise AlignmentError(f"{root}: fits more than one layout ({seen}); give one as --layout")
    x4k1000fps.require_not_raw(root)
    needs = "; ".join(f"{name} needs {layout.NEEDS}" for name, layout in LAYOUTS.items())
    raise AlignmentError(
        f"{root}: fits no known layout ({needs}); give the folder that holds them, or a layout "
        "file: --layout FILE.yaml"
    )
