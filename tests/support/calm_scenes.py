"""Photographs that hardly move, or are too bright, dark or flat: nothing here gains much.

What restores must not make them worse. A photograph's middle moves evenly, to the lower right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from photographs import open_photograph
from PIL import Image

from spikedeblur.pipeline.simulate.rig import Rig

Values = npt.NDArray[np.float64]
_AFTER = 16  # frames after the exposure


def _bright(values: Values) -> Values:
    return 2.2 * values


def _dark(values: Values) -> Values:
    return 0.06 * values


def _flat(values: Values) -> Values:
    return 0.02 * values + 120


@dataclass(frozen=True)
class Kind:
    """How photographs move and look, and the cameras that record them once."""

    speed: float = 0
    """Pixels an exposure."""
    look: Callable[[Values], Values] = lambda values: values
    """Changes values of 0 to 255; what leaves that range is clipped."""
    exposure: int = 33
    """Frames of it."""
    spikes_per_frame: int = 8
    noise: float = 0.0

    def rig(self) -> Rig:
        """Return the cameras."""
        return Rig(
            exposure=self.exposure,
            stride=self.exposure + _AFTER,
            spikes_per_frame=self.spikes_per_frame,
            noise=self.noise,
        )


KINDS = {
    "still": Kind(),
    "1 px": Kind(1),
    "3 px": Kind(3),
    "saturated": Kind(20, _bright),
    "very dark": Kind(20, _dark),
    "flat": Kind(20, _flat),
    "still, dark": Kind(0, _dark),
    "still, bright": Kind(0, _bright),
    "33 samples, 6 px": Kind(6, spikes_per_frame=1),
    "33 samples, 30 px": Kind(30, spikes_per_frame=1),
    "9 samples, 6 px": Kind(6, exposure=9, spikes_per_frame=1),
    "9 samples, 30 px": Kind(30, exposure=9, spikes_per_frame=1),
    "still, 3 % noise": Kind(noise=0.03),
    "still, dark, 3 % noise": Kind(0, _dark, noise=0.03),
    "3 px, 3 % noise": Kind(3, noise=0.03),
}


def write_frames(out: Path, kind: Kind, photographs: tuple[str, ...], size: int = 192) -> None:
    """Write `out/test/calm/<photograph>/0000.png...`, of `size` rows and columns."""
    for name in photographs:
        photograph = open_photograph(name)
        folder = out / "test" / "calm" / Path(name).stem
        folder.mkdir(parents=True)
        for i in range(kind.exposure + _AFTER):
            travel = kind.speed * (i - kind.exposure // 2) / kind.exposure
            x = (photograph.width - size) / 2 + 0.8 * travel
            y = (photograph.height - size) / 2 + 0.6 * travel
            seen = photograph.transform(
                (size, size),
                Image.Transform.AFFINE,
                (1, 0, x, 0, 1, y),
                Image.Resampling.BICUBIC,
            )
            values = kind.look(np.asarray(seen, np.float64)).clip(0, 255).round()
            frame = Image.fromarray(values.astype(np.uint8))
            frame.save(folder / f"{i:04d}.png", compress_level=1)
