"""What is said of a sequence's files before any spike is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from spikedeblur.pipeline.align.layouts import AlignmentError, FoundSequence, FoundWindow
from spikedeblur.pipeline.align.plan import incomplete, with_clock
from spikedeblur.pipeline.clocks.camera import CameraClock


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


def test_one_table_of_times_is_of_one_sequence_and_a_rate_of_any_number(tmp_path):
    (tmp_path / "t.csv").write_text("start_s,end_s\n0.0,0.01\n0.05,0.06\n")
    one = sequence([0, 1])
    (timed,) = with_clock(tmp_path, [one], CameraClock(times=tmp_path / "t.csv"))
    assert (timed.exposures.starts, timed.exposures.ends) == ((0.0, 0.05), (0.01, 0.06))
    clock = CameraClock(frame_rate=20.0, shutter=0.01, start=0.0)
    assert [s.fps for s in with_clock(tmp_path, [one, one], clock)] == [20.0, 20.0]
    with pytest.raises(AlignmentError, match=r"t\.csv: expected one sequence .* found 2"):
        with_clock(tmp_path, [one, one], CameraClock(times=tmp_path / "t.csv"))
