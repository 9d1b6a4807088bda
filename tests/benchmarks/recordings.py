"""`python -m tests.benchmarks.recordings`: what `path` makes of real video, seen by others.

Mean PSNR over two recordings (`tests/support/real_recordings.py`), after the best gain and offset.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from real_recordings import (
    FOLDER,
    NAMES,
    exposed,
    matched_psnr,
    read_recording,
    restored,
    window_of,
)

from spikedeblur.pipeline.methods.path import PathMethod

from .figures import Figure

BARS = {65: 32.0, 97: 31.9, 301: 29.3}
"""Least mean PSNR in dB, by samples of the exposure."""


def main() -> int:
    """Measure, print and judge."""
    if not FOLDER.is_dir():
        print(f"skipped: no real recordings in {'/'.join(FOLDER.parts[-3:])}, beside the checkout")
        return 0
    figures = []
    for exposure, bar in BARS.items():
        path, blur = [], []
        for name in NAMES:
            truth, spikes = read_recording(name)
            path.append(matched_psnr(restored(PathMethod(), window_of(spikes, exposure)), truth))
            blur.append(matched_psnr(exposed(spikes, exposure), truth))
        detail = ", ".join(f"{value:.2f}" for value in path) + f"; blur {np.mean(blur):.2f}"
        figures.append(Figure(f"path, {exposure} samples", np.mean(path), "dB", bar, detail))
        print(figures[-1].line(2), flush=True)
    return 0 if all(figure.passed for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
