"""spikedeblur: from spike-camera streams and blurred colour frames to sharp video.

Stages talk through files: simulate, align, voxelize, train, evaluate, restore.
Each lives in `spikedeblur.pipeline`, runs from the `spikedeblur` command line and
records its inputs and `__version__` in what it writes.
"""

from .moved import serve_old_names

__version__ = "0.1.0"

serve_old_names()
