"""How near methods come to the sharp frames of several instants of an exposure.

The instants are those of `restore --frames-per-exposure`: each in the middle of its equal part.
Methods that follow motion restore them as `restore` does; the blurred frame is compared with each.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..host.reporter import SILENT, Reporter, counted
from ..methods.contract import Method, restored_instants
from ..sequences.contract import WindowSequence
from ..sequences.kept import KeptSequence
from ..sequences.linear_frames import shown_in_8_bits
from .metrics import Score, psnr, ssims
from .scores import EvaluationError


@dataclass(frozen=True, kw_only=True, slots=True)
class InstantScores:
    """Means of methods over all windows, at each instant."""

    times: tuple[float, ...]
    """The instants, in exposures from the middle, in order of time."""
    methods: dict[str, tuple[Score, ...]]
    """Each method's mean at each instant."""

    def ends(self, method: str) -> float:
        """Return the mean PSNR of the first and the last instant, in dB."""
        scores = self.methods[method]
        return (scores[0].psnr + scores[-1].psnr) / 2

    def middle(self, method: str) -> float:
        """Return the mean PSNR of the instants in the middle third of the exposure, in dB."""
        near = min(abs(time) for time in self.times)
        inside = [abs(time) <= max(1 / 6, near) for time in self.times]
        scores = zip(self.methods[method], inside, strict=True)
        return statistics.fmean(score.psnr for score, is_inside in scores if is_inside)

    def to_json(self) -> dict[str, Any]:
        """Return what the JSON file holds."""
        return {
            "times": list(self.times),
            "methods": {
                name: {
                    "instants": [score.to_json() for score in scores],
                    "psnr_ends": self.ends(name),
                    "psnr_middle_third": self.middle(name),
                }
                for name, scores in self.methods.items()
            },
        }


def chosen_instants(windows: WindowSequence, number: int) -> list[int]:
    """Return which of a sequence's instants are in the middles of equal parts of the exposure.

    Raises:
        EvaluationError: it has none near enough, of one of them.
    """
    chosen = []
    for i in range(number):
        wanted = (i + 0.5) / number - 0.5
        near = [abs(time - wanted) for time in windows.instants]
        if near and min(near) <= 1 / (4 * number):
            chosen.append(int(np.argmin(near)))
    if len(set(chosen)) < number:
        raise EvaluationError(
            f"{windows.seq}: expected sharp frames at {counted(number, 'instant')} of each "
            f"exposure, found {len(windows.instants) or 'only the one in its middle'}; "
            f"`spikedeblur align --instants {number}` names them where the data set has them; "
            "voxelize again"
        )
    return chosen


def score_instants(
    sequences: Sequence[WindowSequence],
    methods: Mapping[str, Method],
    number: int,
    reporter: Reporter = SILENT,
) -> InstantScores:
    """Score methods at several instants of each exposure.

    Args:
        sequences: with sharp frames at these instants.
        methods: by name; those that neither are blur nor follow motion are left out, with a note.
        number: number of instants.
        reporter: hears of each window.

    Raises:
        EvaluationError: a sequence has no sharp frames at the instants, or other ones.
    """
    places = {sequence.seq: chosen_instants(sequence, number) for sequence in sequences}
    times = _times(sequences, places)
    following = {name: method for name, method in methods.items() if name == "blur"}
    for name, method in methods.items():
        if name == "blur":
            continue
        if any(method.exposures(sequence) is None for sequence in sequences):
            reporter.note(f"{name} follows no motion, and is scored at the middle only")
        else:
            following[name] = method
    found: dict[str, list[list[Score]]] = {name: [[] for _ in times] for name in following}
    done, total = 0, sum(sequence.length for sequence in sequences) * len(times)
    for sequence in map(KeptSequence, sequences):
        every = [[True] * len(times)] * sequence.length
        restoring = {
            name: restored_instants(method, sequence, times, every)
            for name, method in following.items()
            if name != "blur"
        }
        for window in range(sequence.length):
            for i, place in enumerate(places[sequence.seq]):
                sharp = shown_in_8_bits(sequence, sequence.sharp_at(place, window, window + 1)[0])
                frames: dict[str, npt.NDArray[np.uint8]] = {
                    name: next(restored)[2] for name, restored in restoring.items()
                }
                if "blur" in following:
                    blur = sequence.blur(window, window + 1)[0]
                    frames["blur"] = shown_in_8_bits(sequence, blur)
                similar = ssims(list(frames.values()), sharp)
                for (name, frame), likeness in zip(frames.items(), similar, strict=True):
                    found[name][i].append(Score(psnr(frame, sharp), likeness))
                done += 1
                reporter.progress(done, total, f"{sequence.seq}, instants")
    return InstantScores(
        times=times,
        methods={name: tuple(map(_mean, found[name])) for name in methods if name in found},
    )


def _times(
    sequences: Sequence[WindowSequence], places: Mapping[str, Sequence[int]]
) -> tuple[float, ...]:
    """Return the instants of all sequences.

    Raises:
        EvaluationError: they differ.
    """
    times = {
        sequence.seq: tuple(sequence.instants[place] for place in places[sequence.seq])
        for sequence in sequences
    }
    first = next(iter(times.values()))
    for seq, others in times.items():
        if not np.allclose(others, first, rtol=0, atol=1e-6):
            raise EvaluationError(
                f"{seq}: expected sharp frames at the instants of {sequences[0].seq}, found "
                "others; evaluate data of one exposure and frame rate at a time"
            )
    return first


def _mean(scores: Sequence[Score]) -> Score:
    return Score(
        statistics.fmean(score.psnr for score in scores),
        statistics.fmean(score.ssim for score in scores),
    )
