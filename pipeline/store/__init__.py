"""Voxel stores: written by `voxelize`, read by training and evaluation.

Nothing is imported here but the names' own modules when asked for: a worker that only reads
does not pay for Dask, and a command line that only lists commands pays for nothing.
"""

from .schema import StoreError
from .sequence import Span, WindowSequence

__all__ = ["Span", "StoreError", "WindowSequence"]
