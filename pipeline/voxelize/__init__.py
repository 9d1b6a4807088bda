"""The voxelize stage: an aligned data set becomes a store.

Zarr and Dask are imported when something is run, not by importing this.
"""

from .job import voxelize_manifest
from .options import VoxelizeOptions
from .workers import Workers

__all__ = ["VoxelizeOptions", "Workers", "voxelize_manifest"]
