"""`python -m tests.benchmarks.calm`: whether `path` makes worse what came in.

Photographs that hardly move, or are too bright, dark or flat (`tests/support/calm_scenes.py`),
192x192, one exposure each. In every scene `path` is to be as good as the better of the blurred
frame and SDM (with the width that serves it best on the kind), within 0.2 dB. PSNR above 50 dB, an
error of less than one level, counts as 50.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from calm_scenes import KINDS, Kind, write_frames
from moving_apart import SETS

from spikedeblur.pipeline.evaluate.job import evaluate_sequences

from .cameras import NEAR, WITHOUT_MODEL, record
from .figures import Figure

ENOUGH = 50.0
"""PSNR in dB above which nothing is better."""


def scores(
    work: Path, kind: Kind, photographs: tuple[str, ...], size: int = 192
) -> dict[str, dict[str, float]]:
    """Return PSNR in dB, at most `ENOUGH`, by photograph and method; `work` is an empty folder."""
    write_frames(work / "frames", kind, photographs, size)
    evaluation = evaluate_sequences(record(work, "calm", kind.rig()), WITHOUT_MODEL)
    return {
        seq.rpartition("/")[2]: {name: min(ENOUGH, score.psnr) for name, score in by.items()}
        for seq, by in evaluation.sequences.items()
    }


def over_input(of_scene: dict[str, float]) -> float:
    """Return by how much `path` is better than the blurred frame and SDM, in dB."""
    return of_scene["path"] - max(of_scene["blur"], of_scene["sdm"])


def main() -> int:
    """Measure, print and judge."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.calm", description=__doc__)
    parser.add_argument("--set", default="judging", choices=tuple(SETS))
    options = parser.parse_args()
    print(f"{options.set}: path over the better of blur and SDM in the worst scene of each kind")
    figures = []
    for name, kind in KINDS.items():
        with tempfile.TemporaryDirectory() as work:
            by_scene = scores(Path(work), kind, SETS[options.set])
        worst = min(by_scene, key=lambda scene: over_input(by_scene[scene]))
        below = sum(over_input(of_scene) < -NEAR for of_scene in by_scene.values())
        means = (
            f"{method} {np.mean([of_scene[method] for of_scene in by_scene.values()]):.2f}"
            for method in WITHOUT_MODEL
        )
        found = by_scene[worst]
        detail = (
            f"{', '.join(means)}; {below} of {len(by_scene)} scenes below; worst {worst}: "
            + ", ".join(f"{method} {found[method]:.2f}" for method in WITHOUT_MODEL)
        )
        figures.append(Figure(name, over_input(found), "dB", -NEAR, detail))
        print(figures[-1].line(2), flush=True)
    return 0 if all(figure.passed for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
