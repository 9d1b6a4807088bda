"""`make bench-adaptation`: what `adapt` recovers on a camera that a model has never seen.

The photographs of `make bench-quality`, by a camera of three times the threshold, with 3 % false
spikes, in linear light. The model is fitted to its blurred frames and spikes alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from spikedeblur.pipeline.adapt import Adapting, adapt
from spikedeblur.pipeline.evaluate.job import evaluate_sequences
from spikedeblur.pipeline.methods.make_method import ModelOptions
from spikedeblur.pipeline.sequences.find_recording import recordings_of
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.weights.find import find_model

from .cameras import record
from .figures import Figure
from .quality import MAIN, METHODS, write_frames

SHIFTED = Rig(threshold=6.0, noise=0.03, linear_light=True)


def main() -> int:
    """Adapt, print and judge."""
    parser = argparse.ArgumentParser(prog="make bench-adaptation", description=__doc__)
    parser.add_argument(
        "model",
        nargs="?",
        default="outputs/quickstart",
        help="a run folder, or a model's name or file",
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rate", type=float, default=1e-3)
    options = parser.parse_args()
    is_run = Path(options.model).is_dir()
    source = Path(options.model) if is_run else find_model(options.model)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_frames(work / "frames", MAIN)
        clean = record(work, "clean", Rig())
        shifted = record(work, "shifted", SHIFTED)
        began = time.monotonic()
        adapt(
            source,
            recordings_of(work / "shifted.json"),
            work / "adapted.safetensors",
            how=Adapting(steps=options.steps, learning_rate=options.rate),
        )
        took = time.monotonic() - began
        before, after = (
            ModelOptions().open(model) for model in (source, work / "adapted.safetensors")
        )
        home = evaluate_sequences(clean, METHODS, trained={"model": before}).methods["model"].psnr
        away = evaluate_sequences(shifted, METHODS, trained={"model": before})
        adapted = evaluate_sequences(shifted, METHODS, trained={"model": after}).methods["model"]
    blur, sdm, path, lost = (away.methods[name].psnr for name in METHODS)
    detail = f"{home:.2f} dB at home; here blur {blur:.2f}, SDM {sdm:.2f}, path {path:.2f}, "
    detail += f"model {lost:.2f}, adapted {adapted.psnr:.2f} / {adapted.ssim:.3f}"
    share = 100 * (adapted.psnr - lost) / (home - lost)
    figures = [
        Figure("lost by the other camera", home - lost, "dB", 1.0),
        Figure("of it, recovered by adapt", share, "%", 50.0, detail),
        Figure("time of adapt", took, "s", 300.0, at_most=True),
    ]
    for figure in figures:
        print(figure.line())
    return 0 if all(figure.passed for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
