"""`python -m tests.benchmarks.clipped`: light that frames clip and spikes do not.

Frames are shown so bright that three percent of the sharp pixels are beyond white; the spikes are
those of the scene itself. PSNR inside the pixels that the blurred frame clips, in linear light,
with the true maximum as peak: of the clipped frame, and of `path` with and without filling. Each
kind of scenes has frames that are linear light, and frames of sRGB.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from moving_apart import PARTS, write_frames

from spikedeblur.pipeline.frames.images import to_bytes, to_unit, write_png
from spikedeblur.pipeline.methods import exposures
from spikedeblur.pipeline.methods.contract import MethodClip
from spikedeblur.pipeline.methods.path import PathMethod
from spikedeblur.pipeline.simulate.clips import scene_clips
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.spikes.camera import luminance

from .cameras import record

PERCENTILE = 97.0
"""Percentile of the sharp frames' luminance that is white."""


class Clipped:
    """A sequence whose frames show a part of its light as white."""

    def __init__(self, sequence: Any, white: float, linear: bool) -> None:
        self._sequence, self._white, self._linear = sequence, white, linear
        self.gain = None if sequence.gain is None else sequence.gain * white

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sequence, name)

    def light_of(self, frames: np.ndarray) -> np.ndarray:
        """Return the linear light of frames, in the new white."""
        values = to_unit(frames)
        return (decoded(values) if self._linear else values) / self._white

    def blur(self, start: int, stop: int, *crop: Any) -> np.ndarray:
        """Return clipped frames (T, H, W, 3) uint8."""
        light = self.light_of(self._sequence.blur(start, stop, *crop)).clip(0, 1)
        return to_bytes(255 * (encoded(light) if self._linear else light))

    def shown(self, frames: np.ndarray) -> np.ndarray:
        """Return the linear light of restored frames (T, H, W, 3)."""
        return decoded(frames) if self._linear else frames


def decoded(codes: np.ndarray) -> np.ndarray:
    """Return linear light of sRGB's codes, above 1 too."""
    return np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)


def encoded(light: np.ndarray) -> np.ndarray:
    """Return sRGB's codes of linear light, above 1 too."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def clipped(sequences: Sequence[Any], *, linear: bool) -> Iterator[Clipped]:
    """Yield sequences with white at `PERCENTILE` of their own sharp light."""
    for sequence in sequences:
        whole = Clipped(sequence, 1.0, linear)
        light = whole.light_of(sequence.sharp(0, sequence.length))
        yield Clipped(sequence, float(np.percentile(luminance(light), PERCENTILE)), linear)


def psnr_inside(frames: np.ndarray, truth: np.ndarray, inside: np.ndarray) -> float:
    """Return PSNR in dB of the pixels inside, with the true maximum as peak."""
    error = np.square(frames - truth)[inside].mean()
    return float(10 * np.log10(truth[inside].max() ** 2 / error))


def measure(sequence: Clipped) -> dict[str, float]:
    """Return PSNR in dB of each way."""
    truth = sequence.light_of(sequence.sharp(0, sequence.length))
    blur = sequence.blur(0, sequence.length)
    inside = (blur == 255).any(-1)
    if not inside.any():
        return {}
    every = [MethodClip(i, i + 1, i, i + 1) for i in range(sequence.length)]
    shown = {"clipped frame": to_unit(blur)}
    with mock.patch.object(exposures, "filled", lambda blur, *_: blur):
        method = PathMethod()
        shown["path, not filled"] = np.concatenate([method(sequence, clip) for clip in every])
    method = PathMethod()
    shown["path"] = np.concatenate([method(sequence, clip) for clip in every])
    return {
        name: psnr_inside(sequence.shown(frames), truth, inside) for name, frames in shown.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", default="judging", choices=("tuning", "judging"))
    parser.add_argument("--scenes", type=int, default=6)
    options = parser.parse_args()
    for kind in ("embedded", *PARTS):
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            if kind == "embedded":
                for clip in scene_clips("test", options.scenes, (192, 192), 65):
                    for i, frame in enumerate(clip.render(0)):
                        write_png(work / "frames" / clip.seq / f"{i:04d}.png", frame)
            else:
                write_frames(work / "frames", options.set, kind, options.scenes)
            for linear in (False, True):
                name = "srgb" if linear else "linear"
                sequences = record(work, name, Rig(linear_light=linear))
                found = list(filter(None, map(measure, clipped(sequences, linear=linear))))
                ways = ", ".join(
                    f"{way} {np.mean([each[way] for each in found]):.2f} dB" for way in found[0]
                )
                what = "frames of sRGB" if linear else "frames of linear light"
                print(f"{kind}, {what}, {len(found)} scenes: {ways}", flush=True)


if __name__ == "__main__":
    main()
