"""Windows of sequences: the one way in which all that follows `voxelize` reads.

Zarr is imported when something is read, not by importing this.
"""

from .contract import Span, WindowSequence
from .stored import StoreSequence, open_store
from .unified import UnifiedFiles, UnifiedSequence, open_unified, open_windows

__all__ = [
    "Span",
    "StoreSequence",
    "UnifiedFiles",
    "UnifiedSequence",
    "WindowSequence",
    "open_store",
    "open_unified",
    "open_windows",
]
