"""Voxel stores: written by `voxelize_manifest`, read by training and evaluation.

Zarr and Dask are imported when something is read or run, not by importing this.
"""

from .reader import StoreSequence, open_store
from .schema import StoreError
from .sequence import Span, WindowSequence
from .unified import UnifiedSequence, open_unified, open_windows
from .voxelize import VoxelizeSummary, voxelize_manifest

__all__ = [
    "Span",
    "StoreError",
    "StoreSequence",
    "UnifiedSequence",
    "VoxelizeSummary",
    "WindowSequence",
    "open_store",
    "open_unified",
    "open_windows",
    "voxelize_manifest",
]
