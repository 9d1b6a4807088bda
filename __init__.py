"""spikedeblur: from spike-camera streams and blurred colour frames to sharp video.

    import spikedeblur

    spikes = spikedeblur.read_spikes("spike.dat", spikedeblur.parse_geometry("250x400,bottom-up"))
    sharp = spikedeblur.load("small").restore(frames, spikes, exposures, gain=0.5)

Stages talk through files: simulate, align, voxelize, train, evaluate, restore.
Each lives in `spikedeblur.pipeline`, runs from the `spikedeblur` command line and
records its inputs and `__version__` in what it writes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .moved import serve_old_names
from .version import __version__

if TYPE_CHECKING:
    from .errors import SpikeDeblurError
    from .pipeline.restore.arrays import Model, load, restore
    from .pipeline.sequences import open_store
    from .pipeline.spikes import count_spikes, parse_geometry, read_side_file, read_spikes, tfp

_HOMES = {
    "Model": "pipeline.restore.arrays",
    "SpikeDeblurError": "errors",
    "count_spikes": "pipeline.spikes",
    "load": "pipeline.restore.arrays",
    "open_store": "pipeline.sequences",
    "parse_geometry": "pipeline.spikes",
    "read_side_file": "pipeline.spikes",
    "read_spikes": "pipeline.spikes",
    "restore": "pipeline.restore.arrays",
    "tfp": "pipeline.spikes",
}
"""Modules of the names that are imported when they are used, so that the import takes no time."""

__all__ = [
    "Model",
    "SpikeDeblurError",
    "__version__",
    "count_spikes",
    "load",
    "open_store",
    "parse_geometry",
    "read_side_file",
    "read_spikes",
    "restore",
    "tfp",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


serve_old_names()
