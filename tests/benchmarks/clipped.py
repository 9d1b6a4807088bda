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
from spikedeblur.pipeline.frames.srgb import codes_of_light, light_of_codes
from spikedeblur.pipeline.methods import exposures
from spikedeblur.pipeline.methods.contract import MethodClip
from spikedeblur.pipeline.methods.path import PathMethod
from spikedeblur.pipeline.sequences.linear_frames import in_codes, with_linear_frames
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
        if name == "_sequence":
            raise AttributeError(name)
        return getattr(self._sequence, name)

    def light_of(self, frames: np.ndarray) -> np.ndarray:
        """Return the linear light of frames, in the new white."""
        values = to_unit(frames)
        return (light_of_codes(values) if self._linear else values) / self._white

    def blur(self, start: int, stop: int, *crop: Any) -> np.ndarray:
        """Return clipped frames (T, H, W, 3) uint8."""
        light = self.light_of(self._sequence.blur(start, stop, *crop)).clip(0, 1)
        return to_bytes(255 * (codes_of_light(light) if self._linear else light))

    def shown(self, frames: np.ndarray) -> np.ndarray:
        """Return the linear light of restored frames (T, H, W, 3)."""
        return light_of_codes(frames) if self._linear else frames


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


def restored(sequence: Clipped) -> np.ndarray:
    """Return what `path` makes of a sequence (T, H, W, 3), as its frames are."""
    (windows,), method = with_linear_frames([sequence]), PathMethod()  # type: ignore[list-item]
    clips = [MethodClip(i, i + 1, i, i + 1) for i in range(sequence.length)]
    return in_codes(windows, np.concatenate([method(windows, clip) for clip in clips]))


def measure(sequence: Clipped) -> dict[str, float]:
    """Return PSNR in dB of each way."""
    truth = sequence.light_of(sequence.sharp(0, sequence.length))
    blur = sequence.blur(0, sequence.length)
    inside = (blur == 255).any(-1)
    if not inside.any():
        return {}
    shown = {"clipped frame": to_unit(blur)}
    with mock.patch.object(exposures, "filled", lambda blur, *_: blur):
        shown["path, not filled"] = restored(sequence)
    shown["path"] = restored(sequence)
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
