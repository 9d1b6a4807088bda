"""Embedded scenes whose frames a camera takes row after row, beside spikes of `simulate`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spikedeblur.pipeline.frames.images import to_uint8, write_png
from spikedeblur.pipeline.simulate.clips import SourceClip
from spikedeblur.pipeline.simulate.record import clip_folders
from spikedeblur.pipeline.simulate.rig import Rig

LONGEST = 0.034
"""Longest readout, in seconds: exposures that would leave the scene with it are not taken."""


def photograph_rows(
    root: Path, clip: SourceClip, rig: Rig, readout: float
) -> dict[str, np.ndarray]:
    """Write the frames of a rolling shutter in place of a recorded clip's blurred frames.

    Args:
        root: the data set, whose sharp frames are taken away.
        clip: an embedded scene.
        rig: the cameras that recorded it.
        readout: time from a frame's first row to its last, in seconds; 0: a global shutter.

    Returns:
        By the frames' file names: each row as it was in the middle of its own exposure, uint8.
    """
    frames = np.stack([*clip.render(rig.seed)]).astype(np.float32)  # (N, H, W, 3)
    total = np.concatenate([np.zeros_like(frames[:1]), frames.cumsum(axis=0, dtype=np.float32)])
    rows = np.arange(frames.shape[1])
    late = readout * rig.fps * rows / (len(rows) - 1)
    whole, part = np.floor(late).astype(int), (late % 1)[:, None, None]
    _, blurred, sharp = clip_folders(root, clip, rig)
    for path in sorted(sharp.iterdir()):
        path.unlink()
    truth = {}
    for path in sorted(blurred.iterdir()):
        centre = int(path.stem)
        first = centre - rig.exposure // 2
        if first + rig.exposure + LONGEST * rig.fps > clip.n_frames:
            path.unlink()
            continue
        exposed, middles = [], []
        for k in (0, 1):
            begin = first + whole + k
            exposed.append((total[begin + rig.exposure, rows] - total[begin, rows]) / rig.exposure)
            middles.append(frames[centre + whole + k, rows])
        blur, middle = ((1 - part) * a + part * b for a, b in (exposed, middles))
        write_png(path, to_uint8(blur / 255))
        truth[path.name] = to_uint8(middle / 255)
    return truth
