"""`python -m tests.benchmarks.instants`: what `path` restores at other instants than the middle.

Scenes of `make bench-apart`, whose frames at any instant are known: the frame at the middle moved
along its paths, as `restore --frames-per-exposure` does it, beside windows shifted to the instant,
as it does for methods that do not follow motion.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from time import process_time

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from moving_apart import EXPOSURE, PARTS, SCENES, SETS, write_frames

from spikedeblur.pipeline.evaluate.metrics import psnr
from spikedeblur.pipeline.methods.contract import restored_frames, restored_instants
from spikedeblur.pipeline.methods.path import PathMethod
from spikedeblur.pipeline.sequences.find_recording import recordings_of
from spikedeblur.pipeline.sequences.recording import RecordingSequence
from spikedeblur.pipeline.simulate.rig import Rig

from .cameras import record

FRAMES = (-16, -11, -5, 0, 5, 11, 16)
"""Instants, in frames of 33 an exposure from its middle."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", default="judging", choices=tuple(SETS))
    parser.add_argument("--scenes", type=int, default=SCENES)
    options = parser.parse_args()
    times = [frame / EXPOSURE for frame in FRAMES]
    for part in PARTS:
        moved, shifted = defaultdict(list), defaultdict(list)
        taken = {"one": 0.0, "several": 0.0}
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            made = write_frames(work / "frames", options.set, part, options.scenes)
            scenes = {scene.name: scene for scene in made}
            record(work, "clean", Rig())
            for recording in recordings_of(work / "clean.json"):
                scene = scenes[recording.seq.rpartition("/")[2]]
                middles = [exposure.frame_index for exposure in recording.exposures]
                windows = RecordingSequence(recording, None)
                wanted = [[True] * len(times)] * windows.length
                begun = process_time()
                every = list(restored_instants(PathMethod(), windows, times, wanted))
                taken["several"] += process_time() - begun
                begun = process_time()
                for _ in restored_frames(PathMethod(), windows):
                    pass
                taken["one"] += process_time() - begun
                for window, i, frame in every:
                    truth = scene.frame(middles[window] + FRAMES[i])
                    moved[FRAMES[i]].append(psnr(frame, truth))
                for number, time in zip(FRAMES, times, strict=True):
                    around = RecordingSequence(recording, None, at=time)
                    for window, frame in restored_frames(PathMethod(), around):
                        truth = scene.frame(middles[window] + number)
                        shifted[number].append(psnr(frame, truth))
        print(
            f"{options.set}, {part}: {len(FRAMES)} instants take "
            f"{taken['several'] / taken['one']:.2f} times the CPU time of the middle alone",
            flush=True,
        )
        for number in FRAMES:
            print(
                f"{options.set}, {part}, {number:+d} frames of {EXPOSURE}: moved "
                f"{np.mean(moved[number]):.2f} dB, shifted windows {np.mean(shifted[number]):.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
