"""The parts in which methods restore a sequence, by which a job knows what is to be done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from ..sequences.contract import WindowSequence
from .contract import Method, clips_of

GUESSES = {"motion": 1.0, "network": 0.5}
"""Time of a sharp frame along the motion, and of a network's pass over a clip or a tile of it, as
long as none is measured: as the shipped model's over three windows on a CPU."""


def parts_of(
    methods: Iterable[Method],
    windows: WindowSequence,
    wanted: Callable[[int], bool] = lambda window: True,
    instants: int = 1,
) -> Counter[str]:
    """Return how many parts of each of the kinds of `GUESSES` methods work through.

    Args:
        methods: the methods; what they share is done once.
        windows: the sequence.
        wanted: of which windows frames are restored.
        instants: number of frames of each exposure.
    """
    parts: Counter[str] = Counter()
    followed: dict[int, set[int]] = {}
    for method in methods:
        clips = clips_of(method, windows, wanted)
        passes = method.passes(windows) * (instants if method.asked_at_instants else 1)
        parts["network"] += len(clips) * passes
        exposures = method.exposures(windows) if clips else None
        if exposures is not None:
            looked_at = followed.setdefault(id(exposures), set())
            looked_at.update(i for clip in clips for i in range(clip.start, clip.stop))
    parts["motion"] = sum(map(len, followed.values()))
    return parts
