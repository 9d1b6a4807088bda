"""spikedeblur: from spike-camera streams and blurred colour frames to sharp video.

Stages talk through files: simulate, align, voxelize, train, evaluate, restore.
Each lives in `spikedeblur.pipeline`, runs from the `spikedeblur` command line and
records its inputs and `__version__` in what it writes.
"""

__version__ = "0.1.0"
