"""Spike streams: geometry, `.dat` files, voxel counts, reconstruction, the camera model.

No torch and no Zarr in here: everything is NumPy on one recording at a time.
"""

from .clock import SpikeClock, SpikeWindowError
from .counts import count_spikes, samples_per_bin
from .dat import SpikeFile, SpikeFileError, read_spikes, write_spikes
from .geometry import SpikeGeometry, SpikeGeometryError
from .presets import PRESETS, parse_geometry
from .reconstruct import sdm, tfi, tfp
from .reference import load_spike_dat, spike_to_voxel, voxelize
from .sidefile import SideFile, read_side_file, write_side_file

__all__ = [
    "PRESETS",
    "SideFile",
    "SpikeClock",
    "SpikeFile",
    "SpikeFileError",
    "SpikeGeometry",
    "SpikeGeometryError",
    "SpikeWindowError",
    "count_spikes",
    "load_spike_dat",
    "parse_geometry",
    "read_side_file",
    "read_spikes",
    "samples_per_bin",
    "sdm",
    "spike_to_voxel",
    "tfi",
    "tfp",
    "voxelize",
    "write_side_file",
    "write_spikes",
]
