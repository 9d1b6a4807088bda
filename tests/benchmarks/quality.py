"""`make bench-quality`: what a trained model is worth, on pictures that it was never trained on.

scikit-learn's two photographs in motion (six motions each, 192x192) are recorded by the spike
camera as it was in training, and by others: higher thresholds, half the rate, noise, dead pixels,
a clock that is late; and exposures are restored alone, without neighbours. Spikes are half as large
as the frames. Two more tests are for information: the middle of the same photographs, sharp to the
pixel, and photographs of other packages. `--without-model` judges `path` alone, in minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from photographs import OTHERS, PHOTOGRAPHS, moving_frames, write_x4k1000fps

from spikedeblur.pipeline.evaluate.job import evaluate_sequences
from spikedeblur.pipeline.evaluate.scores import Evaluation
from spikedeblur.pipeline.methods.make_method import ModelOptions
from spikedeblur.pipeline.methods.network import ModelMethod
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.weights.find import find_model

from .cameras import CAMERAS, WITHOUT_MODEL, Changed, path_by_camera, record, recordings, told
from .figures import Figure

__all__ = ["TESTS", "measure", "moving_frames", "write_x4k1000fps"]

METHODS = (*WITHOUT_MODEL, "model")
MODEL_BARS = {
    "threshold2": 0.3,
    "threshold4": 0.8,
    "half": 0.5,
    "dead": 0.7,
    "noise": 0.7,
    "late": 1.0,
}
"""The most PSNR that the model may lose by each camera, in dB."""
PATH_BARS = {
    "clean": 28.7,
    "threshold4": 0.7,
    "noise": 0.5,
    "dead": 0.2,
    "half": 0.4,
    "late": 0.5,
}
"""The least PSNR of `path` by the clean camera, and the most that it may lose by others, in dB."""


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


def write_frames(folder: Path, test: PhotographTest) -> None:
    """Write a test's frames."""
    write_x4k1000fps(
        folder,
        splits=("test",),
        clips=test.clips,
        crops=test.crops,
        photographs=test.photographs,
    )


def measure(model: ModelMethod, work: Path) -> list[Figure]:
    """Evaluate a model on every camera."""
    write_frames(work / "frames", MAIN)
    recorded = dict(recordings(work, ("clean", *MODEL_BARS)))
    clean = recorded["clean"]
    cameras = {CAMERAS[name].what: (recorded[name], bar) for name, bar in MODEL_BARS.items()}
    for name, bar in (("x2", 1.0), ("x4", 2.0)):
        known: Sequence[Any] = cameras[f"threshold {name}"][0]
        unknown = [Changed(sequence, gain_known=False) for sequence in known]
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
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", default="small", help="a model's name or file")
    which.add_argument("--without-model", action="store_true", help="judge path alone")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        if options.without_model:
            write_frames(Path(work) / "frames", MAIN)
            cameras = (*PATH_BARS, "quarter")
            figures = path_by_camera(Path(work), cameras, PATH_BARS, none_below=["quarter"])
        else:
            figures = measure(ModelOptions().open(find_model(options.model)), Path(work))
            print("\n".join(figure.line(2) for figure in figures))
    if options.json:
        content = [asdict(figure) | {"passed": figure.passed} for figure in figures]
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0 if all(figure.passed for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
