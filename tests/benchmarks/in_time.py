"""`make bench-in-time`: do spikes and frames belong together? What is said, and what it costs.

First a lag sweep: what methods lose where spikes come late or early, and what `restore` says. Then
spikes and frames that do not belong together, all of which must be named; and pairs that do, of
many kinds, none of which may be.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from alignment_cases import make_wrong, of_another, record_scene
from rolling_scenes import LONGEST, photograph_rows

from spikedeblur.pipeline.align.measure.in_time import look
from spikedeblur.pipeline.align.measure.verify import FrameAt
from spikedeblur.pipeline.evaluate.metrics import psnr
from spikedeblur.pipeline.frames.images import read_rgb
from spikedeblur.pipeline.methods.contract import Method, restored_frames
from spikedeblur.pipeline.methods.make_method import ModelOptions, make_method
from spikedeblur.pipeline.sequences.find_recording import ExposureTimes, find_recording
from spikedeblur.pipeline.sequences.in_time import require_one_scene
from spikedeblur.pipeline.sequences.recording import RecordingError, RecordingSequence
from spikedeblur.pipeline.simulate import simulate
from spikedeblur.pipeline.simulate.clips import SourceClip
from spikedeblur.pipeline.simulate.record import clip_folders
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.spikes import SpikeClock, SpikeFile, parse_geometry
from spikedeblur.pipeline.spikes.settings import SpikeOptions
from spikedeblur.pipeline.weights.find import find_model

from .figures import Figure
from .rolling import KINDS, LENGTH, REALDATA, clip_of, record_kind, seen_by_align

SMALL = (0.01, 0.02, 0.03, 0.05, 0.08, 0.12)
LAGS = sorted([0.0, *SMALL, *(-x for x in SMALL), *(k / 5 for k in range(-10, 11) if k)])
"""Lags, in exposures."""
SWEEP_LENGTH, CENTRE = 257, 128
SCENES = {"fast": 5.0, "slow": 0.15, "still": 0.0}
"""Scenes of the sweep, with the factor on their motion."""
NOTED, SILENT = 1.0, 0.03
"""Loss in dB above which something must be said, and lag in exposures below which nothing may."""
WRONG = ("columns flipped", "rows flipped", "transposed", "geometry")
NAMED_WRONG = ("unlike", *WRONG, "rotated", "swapped")
SURELY_WRONG = (*NAMED_WRONG, "late", "early", "rolling shutter")


def sweep(folder: Path) -> Iterator[tuple[str, float, dict[str, float], str]]:
    """Yield scene, lag, PSNR by method, and what `restore` says, for a frame in the middle."""
    methods: dict[str, Method] = {name: make_method(name) for name in ("sdm", "path")}
    methods["small"] = ModelOptions().open(find_model("small"))
    for name, fastest in SCENES.items():
        rig = Rig()
        clip = SourceClip(
            seq=f"val/{name}/00000", size=(128, 128), length=SWEEP_LENGTH, fastest=fastest
        )
        simulate(folder, [clip], rig, workers=1)
        spikes, blurred, sharp = clip_folders(folder, clip, rig)
        centres = sorted(int(path.stem) for path in blurred.iterdir())
        centre = min(centres, key=lambda number: abs(number - CENTRE))
        for path in blurred.iterdir():
            if int(path.stem) != centre:
                path.unlink()
        truth = read_rgb(sharp / f"{centre:04d}.png")
        times = ExposureTimes(exposure=rig.exposure, fps=rig.fps)
        for lag in LAGS:
            late = lag * rig.exposure / rig.fps
            recording = find_recording(
                blurred, spikes / "spike.dat", times, SpikeOptions(first=late)
            )
            try:
                measured, warnings = require_one_scene(recording, force=False)
                said = warnings[0] if warnings else ""
                problem = measured.problem if measured is not None and said else None
            except RecordingError:
                problem = "refused"
            scores = {}
            for key, method in methods.items():
                windows = RecordingSequence(recording, 32)
                scores[key] = psnr(next(restored_frames(method, windows))[1], truth)
            yield name, lag, scores, problem or "-"


def mismatched(folder: Path, number: int) -> Iterator[tuple[str, str | None]]:
    """Yield what is wrong with a pair, and what is said of it."""
    scenes = [record_scene(folder, i, (128, 128), seed=i) for i in range(number)]
    for i, scene in enumerate(scenes):
        rng = np.random.default_rng([i, 4])
        other = scenes[(i + 1) % number]
        pairs = {"another scene": of_another(scene, other)}
        pairs |= {wrong: make_wrong(scene, wrong, rng) for wrong in WRONG}
        for what, frames in pairs.items():
            found = look([replace(frame, sharp=None) for frame in frames])
            yield what, None if found is None else found.problem


def true_pairs(number: int) -> Iterator[tuple[str, str | None]]:
    """Yield kinds of pairs that belong together, and what is said of them."""
    for k, kind in enumerate(KINDS):
        for i in range(number):
            with tempfile.TemporaryDirectory() as work:
                root = Path(work)
                record_kind(root, kind, 5000 + 100 * k + i)
                said, _ = seen_by_align(root / "data", kind.rig.exposure)
            yield kind.what, said["problem"]
    rig = Rig()
    for i in range(number):
        with tempfile.TemporaryDirectory() as work:
            root = Path(work)
            clip = clip_of(7000 + i, 1.0, LENGTH + round(1000 * LONGEST))
            simulate(root, [clip], rig, workers=1)
            photograph_rows(root, clip, rig, 0.02)
            said, _ = seen_by_align(root, rig.exposure, 0.02)
        yield "rolling shutter of 20 ms that is told", said["problem"]
    for frames in real_pairs():
        found = look(frames)
        yield "real recordings, by their sharp frame", None if found is None else found.problem


def real_pairs() -> Iterator[list[FrameAt]]:
    """Yield recordings of others with their sharp frame, sample 150, in exposures of any length."""
    for dat, length in itertools.product(sorted(REALDATA.glob("reds_spike/*.dat")), (65, 97, 121)):
        spikes = SpikeFile.open(dat, parse_geometry("250x400,bottom-up"))
        t0, t1 = (150 - length // 2) / 1000, (150 + length // 2) / 1000
        png, clock = dat.with_suffix(".png"), SpikeClock(rate=1000.0)
        yield [FrameAt(blur=None, sharp=png, spikes=spikes, clock=clock, t0=t0, t1=t1)]


def figures(number: int, wrong: int) -> Iterator[Figure]:
    """Print the sweep's table, and yield what it and the pairs came to."""
    silent, loud = [], []
    with tempfile.TemporaryDirectory() as work:
        best: dict[tuple[str, str], float] = {}
        rows = list(sweep(Path(work)))
        for scene, lag, scores, _ in rows:
            if lag == 0:
                best.update({(scene, name): value for name, value in scores.items()})
        for scene, lag, scores, said in rows:
            lost = {name: best[scene, name] - value for name, value in scores.items()}
            losses = " ".join(f"{name} {value:.1f}" for name, value in lost.items())
            print(f"{scene} {lag:+.0%}: lost {losses}; said {said}", flush=True)
            if said == "-" and max(lost.values()) > NOTED:
                silent.append(f"{scene} {lag:+.0%}")
            if said != "-" and abs(lag) < SILENT:
                loud.append(f"{scene} {lag:+.0%} {said}")
    yield Figure(
        "lags with a loss above 1 dB in silence", len(silent), "", 0, "; ".join(silent), True
    )
    yield Figure("warnings below 3 %", len(loud), "", 0, "; ".join(loud), True)
    with tempfile.TemporaryDirectory() as work:
        found = list(mismatched(Path(work), wrong))
    missed = [f"{what}: {said}" for what, said in found if said not in NAMED_WRONG]
    detail = f"of {len(found)}; {', '.join(missed)}"
    yield Figure("mismatched pairs that are not named", len(missed), "", 0, detail, True)
    pairs = list(true_pairs(number))
    for what in dict.fromkeys(what for what, _ in pairs):
        said = Counter(str(problem) for kind, problem in pairs if kind == what)
        wrongly = sum(count for problem, count in said.items() if problem in SURELY_WRONG)
        detail = f"of {said.total()}; " + ", ".join(f"{n} {problem}" for problem, n in said.items())
        yield Figure(f"true pairs called wrong: {what}", wrongly, "", 0, detail, True)


def main() -> int:
    """Print the figures; 1 where one is beyond its bar."""
    parser = argparse.ArgumentParser(prog="make bench-in-time", description=__doc__)
    parser.add_argument("--pairs", type=int, default=22, help="true pairs of each kind")
    parser.add_argument("--wrong", type=int, default=10, help="scenes of mismatched pairs")
    options = parser.parse_args()
    passed = True
    for figure in figures(options.pairs, options.wrong):
        print(figure.line(), flush=True)
        passed = passed and figure.passed
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
