"""`make bench-quality`: what a trained model is worth, on pictures that it was never trained on.

scikit-learn's two photographs in motion (six motions each, 192x192) are recorded by the spike
camera as it was in training, and by others: higher thresholds, half the rate, noise, dead pixels,
a clock that is late; and exposures are restored alone, without neighbours. Spikes are half as large
as the frames. Two more tests are for information: the middle of the same photographs, sharp to the
pixel, and photographs of other packages.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from photographs import OTHERS, PHOTOGRAPHS, moving_frames, write_x4k1000fps

from spikedeblur.pipeline.align import AlignOptions, align
from spikedeblur.pipeline.evaluate.job import evaluate_sequences
from spikedeblur.pipeline.evaluate.scores import Evaluation
from spikedeblur.pipeline.methods.make_method import ModelOptions
from spikedeblur.pipeline.methods.network import ModelMethod
from spikedeblur.pipeline.sequences.unified import open_windows
from spikedeblur.pipeline.simulate import simulate
from spikedeblur.pipeline.simulate.clips import folder_clips
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.trained.model_file import find_model
from spikedeblur.pipeline.voxelize import VoxelizeOptions, voxelize_manifest

from .figures import Figure

__all__ = ["TESTS", "measure", "moving_frames", "write_x4k1000fps"]

BINS = 32
METHODS = ("blur", "sdm", "path", "model")


@dataclass(frozen=True, slots=True)
class PhotographTest:
    """Photographs in motion."""

    name: str
    photographs: tuple[str, ...]
    clips: int
    """Motions of each."""
    crops: str = "anywhere"


MAIN = PhotographTest("photographs", PHOTOGRAPHS, 6)
TESTS = (
    MAIN,
    PhotographTest("their middle", PHOTOGRAPHS, 3, "centre"),
    PhotographTest("other packages' photographs", OTHERS, 3),
)


Change = Callable[[np.ndarray, int], np.ndarray]
"""Changes planes (n, h, w), counts in bins or spikes, of which so many are an exposure."""


class Changed:
    """A sequence with other spikes, or without its gain."""

    def __init__(
        self, sequence: Any, change: Change = lambda planes, _: planes, *, gain_known: bool = True
    ) -> None:
        self._sequence, self._change = sequence, change
        self.gain = sequence.gain if gain_known else None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sequence, name)

    def voxels(self, start: int, stop: int, rows: Any = None, columns: Any = None) -> np.ndarray:
        """Return the changed counts (T, K, h, w)."""
        counts = self._sequence.voxels(start, stop, rows, columns)
        return np.stack([self._change(one, len(one)) for one in counts])

    def spikes_beside(self, window: int, beside: int, *crop: Any) -> tuple[np.ndarray, int]:
        """Return the changed spikes (samples, h, w), and how many are before the exposure."""
        spikes, before = self._sequence.spikes_beside(window, beside, *crop)
        return self._change(spikes, int(self._sequence.samples[window])), before


def write_frames(folder: Path, test: PhotographTest) -> None:
    """Write a test's frames."""
    write_x4k1000fps(
        folder,
        splits=("test",),
        clips=test.clips,
        crops=test.crops,
        photographs=test.photographs,
    )


def record(work: Path, name: str, rig: Rig, frames: str = "frames") -> Sequence[Any]:
    """Record the photographs, align and voxelize, and open the windows."""
    folder = work / name
    simulate(folder, folder_clips(work / frames), rig)
    log, manifest = work / f"{name}.txt", work / f"{name}.json"
    options = AlignOptions(verify=False)
    align(folder, "x4k1000fps", log=log, manifest=manifest, options=options)
    voxelize_manifest(manifest, work / f"{name}.zarr", VoxelizeOptions(bins=BINS))
    return open_windows(work / f"{name}.zarr", "test", bins=BINS)


def later(share: float) -> Change:
    """Return what makes the spikes late by a share of the exposure; before the first: mirrored."""
    return lambda planes, exposure: planes[np.abs(np.arange(len(planes)) - round(share * exposure))]


def dead(share: float) -> Change:
    """Return what silences a share of the pixels, the same in every window."""

    def change(planes: np.ndarray, _: int) -> np.ndarray:
        alive = np.random.default_rng(0).random(planes.shape[-2:]) >= share
        return planes * alive.astype(planes.dtype)

    return change


def told(evaluation: Evaluation) -> str:
    """Return PSNR and SSIM of each method, and SDM's window."""
    found = (f"{name} {s.psnr:.2f} / {s.ssim:.3f}" for name, s in evaluation.methods.items())
    return f"{', '.join(found)}; SDM of {evaluation.sdm_bins} bins"


def measure(model: ModelMethod, work: Path) -> list[Figure]:
    """Evaluate on every camera; print as it goes."""
    write_frames(work / "frames", MAIN)
    clean = record(work, "clean", Rig())
    cameras: dict[str, tuple[Sequence[Any], float]] = {
        "threshold x2": (record(work, "threshold2", Rig(threshold=4.0)), 0.3),
        "threshold x4": (record(work, "threshold4", Rig(threshold=8.0)), 0.8),
        "half the rate": (record(work, "rate", Rig(spikes_per_frame=4)), 0.5),
        "2 % dead pixels": ([Changed(s, dead(0.02)) for s in clean], 0.7),
        "1 % noise": (record(work, "noise", Rig(noise=0.01)), 0.7),
        "late by a tenth of the exposure": ([Changed(s, later(0.1)) for s in clean], 1.0),
    }
    for name, bar in (("x2", 1.0), ("x4", 2.0)):
        known = cameras[f"threshold {name}"][0]
        unknown = [Changed(s, gain_known=False) for s in known]
        cameras[f"threshold {name}, gain unknown"] = unknown, bar

    def evaluated(sequences: Sequence[Any]) -> Evaluation:
        return evaluate_sequences(sequences, METHODS, trained={"model": model})

    of_clean = evaluated(clean)
    blur, sdm, _, ours = (of_clean.methods[name] for name in METHODS)
    figures = [
        Figure("gain over blur", ours.psnr - blur.psnr, "dB", 5.4, told(of_clean)),
        Figure("gain over the best SDM", ours.psnr - sdm.psnr, "dB", 1.9),
        Figure("SSIM", 100 * ours.ssim, "%", 87.2),
        Figure("SDM over blur", sdm.psnr - blur.psnr, "dB", 3.0),
    ]
    for number, test in enumerate(TESTS[1:]):
        write_frames(work / f"frames{number}", test)
        found = evaluated(record(work, f"test{number}", Rig(), f"frames{number}"))
        blur, sdm, _, here = (found.methods[name] for name in METHODS)
        gains = here.psnr - blur.psnr, here.psnr - sdm.psnr
        figures.append(Figure(f"{test.name}: gain over blur", gains[0], "dB", detail=told(found)))
        figures.append(Figure(f"{test.name}: gain over the best SDM", gains[1], "dB"))
    alone = evaluated(record(work, "alone", Rig(stride=64)))  # one exposure a clip
    over = alone.methods["model"].psnr - alone.methods["path"].psnr
    figures.append(Figure("exposures alone: gain over path", over, "dB", 0.0, told(alone)))
    for name, (sequences, bar) in cameras.items():
        found = evaluated(sequences)
        now = found.methods["model"]
        detail = told(found)
        if found.misaligned:
            detail += f"; {len(found.misaligned)} of {len(found.lags)} called misaligned"
        figures.append(Figure(f"lost by {name}", ours.psnr - now.psnr, "dB", bar, detail, True))
    return figures


def main() -> int:
    """Measure, print and judge."""
    parser = argparse.ArgumentParser(prog="make bench-quality", description=__doc__)
    parser.add_argument("--model", default="small", help="a model's name or file")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    model = ModelOptions().open(find_model(options.model))
    with tempfile.TemporaryDirectory() as work:
        figures = measure(model, Path(work))
    for figure in figures:
        print(figure.line().replace(f"{figure.value:8.1f}", f"{figure.value:8.2f}", 1))
    if options.json:
        content = [asdict(figure) | {"passed": figure.passed} for figure in figures]
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0 if all(figure.passed for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
