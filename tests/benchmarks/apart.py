"""`make bench-apart`: what methods make of scenes in which things move apart.

Photographs before photographs, three exposures of 33 frames each, 192x192, spikes at half the size,
threshold 2; see `tests/support/moving_apart.py`. PSNR and SSIM are means over windows. By region,
PSNR is of the squared error pooled over all scenes; the regions follow from the true motion. Beside
them stand two figures for what looks ugly without costing much PSNR, both at moving edges, in
levels of 255: the mean error of the two chroma channels (YCbCr of ITU-R BT.601), and by how much
the frame leaves the range of the sharp frame's 5x5 neighbourhood.

`--camera threshold4,noise,...` judges `path` by other cameras instead, on the same frames.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from moving_apart import LENGTH, PARTS, REGIONS, SETS, Scene, write_frames

from spikedeblur.pipeline.evaluate.metrics import psnr, psnr_of, ssim
from spikedeblur.pipeline.methods.contract import Method, restored_frames
from spikedeblur.pipeline.methods.make_method import ModelOptions
from spikedeblur.pipeline.methods.path import PathMethod
from spikedeblur.pipeline.methods.tfp_tfi_sdm import SHORT_BINS, BlurMethod, SdmMethod
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.weights.find import find_model

from .cameras import CAMERAS, path_by_camera, record

CAMERA_BARS = {"disc": {"threshold4": 1.0}}
"""The most PSNR that `path` may lose by each camera, in dB, by part."""
EDGES = (1, 2)
"""Regions at moving edges."""
MIDDLE = Rig().centres(LENGTH)[1]
"""Number of the frame that pictures show, the middle of the second of three exposures."""
CROP = 64
"""Side of the pictures' crops, in pixels."""

Frame = npt.NDArray[np.uint8]


@dataclass
class Found:
    """What a method came to on a part of a set."""

    psnr: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By scene, each window's, in dB."""
    ssim: list[float] = field(default_factory=list)
    squares: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By region, the mean squared error of each window."""
    pixels: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    chroma: list[float] = field(default_factory=list)
    overshoot: list[float] = field(default_factory=list)

    def add(self, scene: str, restored: Frame, sharp: Frame, regions: npt.NDArray[Any]) -> None:
        """Take one window's frame (H, W, 3)."""
        self.psnr[scene].append(psnr(restored, sharp))
        self.ssim.append(ssim(restored, sharp))
        error = (restored.astype(np.float64) - sharp) ** 2
        for number, name in enumerate(REGIONS):
            if (regions == number).any():
                self.squares[name].append(float(error[regions == number].mean()))
                self.pixels[name].append(int((regions == number).sum()))
        edges = np.isin(regions, EDGES)
        if edges.any():
            self.chroma.append(float(np.abs(_chroma(restored) - _chroma(sharp))[edges].mean()))
            self.overshoot.append(float(_beyond(restored, sharp)[edges].mean()))

    def mean(self) -> float:
        """Return the mean PSNR over windows, in dB."""
        return float(np.mean([value for scene in self.psnr.values() for value in scene]))

    def scenes(self) -> dict[str, float]:
        """Return each scene's mean PSNR, in dB."""
        return {name: float(np.mean(values)) for name, values in self.psnr.items()}

    def by_region(self) -> dict[str, float]:
        """Return PSNR of the pooled squared error, in dB."""
        return {
            name: psnr_of(float(np.average(self.squares[name], weights=self.pixels[name])))
            for name in REGIONS
            if name in self.squares
        }


def _chroma(frame: Frame) -> npt.NDArray[np.float64]:
    return np.asarray(Image.fromarray(frame).convert("YCbCr"), np.float64)[..., 1:]


def _beyond(restored: Frame, sharp: Frame) -> npt.NDArray[np.float64]:
    padded = np.pad(sharp, [(2, 2), (2, 2), (0, 0)], "edge")
    near = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), (0, 1))
    low, high = near.min((-2, -1)).astype(np.float64), near.max((-2, -1)).astype(np.float64)
    return np.maximum(restored - high, 0) + np.maximum(low - restored, 0)


def evaluate(
    methods: Mapping[str, Method],
    scenes: Mapping[str, Scene],
    sequences: Sequence[Any],
    keep: Callable[[str, int, str, Frame, Frame], None] = lambda *_: None,
) -> dict[str, Found]:
    """Restore every window by each method, and compare.

    Args:
        methods: by name.
        scenes: the truth, by name.
        sequences: their recordings.
        keep: called with scene, frame number, method, restored and sharp frame.
    """
    found = {name: Found() for name in methods}
    for sequence in sequences:
        scene = scenes[sequence.seq.rpartition("/")[2]]
        centres = [int(index) for index in sequence.frame_index]
        regions = [scene.regions(centre) for centre in centres]
        for name, method in methods.items():
            for window, restored in restored_frames(method, sequence):
                sharp = sequence.sharp(window, window + 1)[0]
                found[name].add(scene.name, restored, sharp, regions[window])
                keep(scene.name, centres[window], name, restored, sharp)
    return found


def best_sdm(sequences: Sequence[Any]) -> SdmMethod:
    """Return SDM with the width that serves it best on these very windows."""
    means = {}
    for bins in SHORT_BINS:
        means[bins] = np.mean(
            [
                psnr(restored, sequence.sharp(window, window + 1)[0])
                for sequence in sequences
                for window, restored in restored_frames(SdmMethod(bins), sequence)
            ]
        )
    return SdmMethod(max(means, key=lambda bins: means[bins]))


def told(part: str, found: Mapping[str, Found]) -> str:
    """Return the table of a part: a row for each method."""
    names = [name for name in REGIONS if any(name in f.squares for f in found.values())]
    lines = [
        f"{part}: PSNR in dB / SSIM; chroma error and overshoot at moving edges, of 255; "
        f"least gain of a scene over SDM in dB (scenes below it); PSNR by region: "
        + ", ".join(names)
    ]
    sdm = found["sdm"].scenes()
    for name, of_method in found.items():
        over = {scene: value - sdm[scene] for scene, value in of_method.scenes().items()}
        worst = min(over, key=lambda scene: over[scene])
        regions = of_method.by_region()
        lines.append(
            f"  {name:7} {of_method.mean():6.2f} / {np.mean(of_method.ssim):.3f}"
            f"  chroma {np.mean(of_method.chroma):5.2f}"
            f"  overshoot {np.mean(of_method.overshoot):5.2f}"
            f"  {over[worst]:+.2f} {worst} ({sum(v < 0 for v in over.values()):2})  "
            + " ".join(f"{regions[region]:6.2f}" for region in names)
        )
    return "\n".join(lines)


class Pictures:
    """Writes what methods make of each scene's middle window, and where `path` is worst."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._row: dict[str, Frame] = {}
        self._worst: list[Frame] = []

    def __call__(self, scene: str, centre: int, name: str, restored: Frame, sharp: Frame) -> None:
        """Add a frame; write the scene's picture once the last method's frame is there."""
        if centre != MIDDLE:
            return
        self._row[name] = restored
        if name == "path":
            self._folder.mkdir(parents=True, exist_ok=True)
            row = self._row | {"sharp": sharp}
            picture = np.concatenate(list(row.values()), 1)
            Image.fromarray(picture).save(self._folder / f"{scene}.png")
            y, x = worst_crop(restored, sharp)
            crops = [frame[y : y + CROP, x : x + CROP] for frame in row.values()]
            self._worst.append(np.concatenate(crops, 1).repeat(3, 0).repeat(3, 1))
            self._row = {}

    def write_worst(self) -> None:
        """Write the crops in which `path` is worst, a row for each scene, enlarged three times."""
        Image.fromarray(np.concatenate(self._worst)).save(self._folder / "worst.png")


def worst_crop(restored: Frame, sharp: Frame) -> tuple[int, int]:
    """Return the first row and column of the crop with the largest squared error."""
    error = ((restored.astype(np.float64) - sharp) ** 2).sum(-1)
    total = np.pad(error, [(1, 0), (1, 0)]).cumsum(0).cumsum(1)
    sums = total[CROP:, CROP:] - total[:-CROP, CROP:] - total[CROP:, :-CROP] + total[:-CROP, :-CROP]
    row, column = divmod(int(sums.argmax()), sums.shape[1])
    return row, column


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench-apart", description=__doc__)
    parser.add_argument("--set", default="judging", choices=tuple(SETS))
    parser.add_argument("--part", choices=PARTS, help="one part only")
    parser.add_argument("--model", help="a trained model's name or file, measured too")
    parser.add_argument("--pictures", type=Path, help="folder for a picture of each scene")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--camera", help=f"path only, on disc or --part: {', '.join(CAMERAS)}")
    options = parser.parse_args()
    if options.camera:
        names = options.camera.split(",")
        if unknown := set(names) - set(CAMERAS):
            parser.error(f"--camera: expected {', '.join(CAMERAS)}, got {', '.join(unknown)}")
        if options.model or options.pictures or options.json:
            parser.error("--camera prints figures of path; leave out --model, --pictures, --json")
        part = options.part or "disc"
        print(f"{options.set}, {part}")
        with tempfile.TemporaryDirectory() as work:
            write_frames(Path(work) / "frames", options.set, part)
            path_by_camera(Path(work), names, CAMERA_BARS.get(part, {}))
        return
    figures = {}
    for part in [options.part] if options.part else PARTS:
        with tempfile.TemporaryDirectory() as work:
            made = write_frames(Path(work) / "frames", options.set, part)
            scenes = {scene.name: scene for scene in made}
            sequences = record(Path(work), "clean", Rig())
            methods: dict[str, Method] = {"blur": BlurMethod(), "sdm": best_sdm(sequences)}
            if options.model:
                methods["model"] = ModelOptions().open(find_model(options.model))
            methods["path"] = PathMethod()
            pictures = Pictures(options.pictures / part) if options.pictures else None
            found = evaluate(methods, scenes, sequences, pictures or (lambda *_: None))
        if pictures:
            pictures.write_worst()
        print(told(f"{options.set}, {part}", found), flush=True)
        figures[part] = {name: vars(of_method) for name, of_method in found.items()}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
