"""What is said of a sequence's files before any spike is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from spikedeblur.pipeline.align.layouts import FoundSequence, FoundWindow
from spikedeblur.pipeline.align.plan import incomplete


def sequence(numbers: list[int], without_sharp: tuple[int, ...] = ()) -> FoundSequence:
    windows = tuple(
        FoundWindow(
            frame_index=n,
            centre=n,
            blur=Path(f"c/blur/{n:04d}.png"),
            sharp=None if n in without_sharp else Path(f"c/sharp/{n:04d}.png"),
            spikes=Path("c/spike.dat"),
        )
        for n in numbers
    )
    return FoundSequence(seq="test/c", windows=windows, exposure=33, fps=1000.0, own_files=False)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (sequence([16, 49, 82, 115]), []),
        (sequence([16, 49, 115]), ["c/blur: after 0049.png comes 0115.png"]),
        (sequence([1, 2, 3], (2,)), ["c/blur: no sharp frames for 0002.png"]),
        (sequence([1, 2, 3], (1, 2, 3)), []),
        (sequence([7]), []),
    ],
)
def test_holes_and_lacking_sharp_frames_are_named(found, expected) -> None:
    said = incomplete(found)
    assert len(said) == len(expected)
    assert all(sentence.startswith(words) for sentence, words in zip(said, expected, strict=True))
