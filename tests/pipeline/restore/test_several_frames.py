"""Several sharp frames of one exposure."""

from __future__ import annotations

import numpy as np
import pytest
from short_recordings import found, restore

from spikedeblur.errors import SpikeDeblurError
from spikedeblur.pipeline.evaluate.metrics import psnr
from spikedeblur.pipeline.frames.images import read_rgb, to_uint8
from spikedeblur.pipeline.methods import exposures
from spikedeblur.pipeline.restore import job
from spikedeblur.pipeline.sequences.recording import RecordingSequence


def test_several_frames_of_an_exposure_show_what_happened_in_between(recording) -> None:
    restore(recording)
    summary = restore(recording, "more", frames_per_exposure=3)
    assert (summary.frames, summary.restored) == (9, 9)
    more = [read_rgb(recording / "more" / f"0031_{m}.png").astype(float) for m in range(3)]
    middle = read_rgb(recording / "out" / "0031.png")
    np.testing.assert_array_equal(more[1], middle)  # the middle of the exposure is one of them

    def shift(frame: np.ndarray) -> int:
        """By how many pixels the scene has moved to the left since the middle."""

        def error(s: int) -> float:
            a = frame[:, max(0, -s) : 96 - max(0, s)]
            b = middle[:, max(0, s) : 96 - max(0, -s)]
            return float(((a - b) ** 2).mean())

        return min(range(-20, 21), key=error)

    # A third of 33 frames, at a pixel a frame.
    assert [shift(frame) for frame in more] == [pytest.approx(x, abs=1) for x in (-11, 0, 11)]
    assert restore(recording, "more", frames_per_exposure=3).kept == 9
    (recording / "more" / "0031_2.png").unlink()
    assert restore(recording, "more", frames_per_exposure=3).restored == 1
    with pytest.raises(job.RestoreError, match="frames_per_exposure"):
        restore(recording, "more", frames_per_exposure=5)


def test_frames_of_an_exposure_share_what_moves_in_it(recording, moving_scene, monkeypatch) -> None:
    looked: list[int] = []
    read = exposures.Exposures._read
    monkeypatch.setattr(
        exposures.Exposures,
        "_read",
        lambda self, window: looked.append(window) or read(self, window),
    )
    summary = restore(recording, method="path", frames_per_exposure=3)
    assert summary.restored == 9
    assert looked == [0, 1, 2]
    middle = moving_scene.sharp[1]
    for m, shift in enumerate((-11, 0, 11)):  # a pixel a frame, to the left
        found = read_rgb(recording / "out" / f"0031_{m}.png")[:, 16:-16]
        there = np.roll(middle, -shift, axis=1)[:, 16:-16]
        assert psnr(found, there) > 27, m
    last = recording / "out/0031_2.png"
    before = last.read_bytes()
    last.unlink()
    looked.clear()
    assert restore(recording, method="path", frames_per_exposure=3).restored == 1
    assert last.read_bytes() == before
    restore(recording, "one", method="path")
    one, more = (recording / out for out in ("one/0031.png", "out/0031_1.png"))
    assert one.read_bytes() == more.read_bytes()


def test_the_end_of_an_exposure_is_told_by_the_next_one_too(recording, moving_scene) -> None:
    exposed = exposures.Exposures(RecordingSequence(found(recording), None), kept=3)
    middles = {i: exposures.as_frames(exposed.sharp(i)[0])[0] for i in range(3)}
    time = 15 / 32.125  # when the next exposure is at its middle
    truth = moving_scene.sharp[2][:, :-16]  # what comes in is seen by the next one only
    frames = (exposed.moved(1, seen, time) for seen in ({1: middles[1]}, middles))
    alone, both = (psnr(to_uint8(frame)[:, :-16], truth) for frame in frames)
    assert both > alone + 0.5


def test_instants_near_a_recordings_end_get_shorter_windows(recording) -> None:
    # The first exposure begins with the recording: its first third has half as long a window.
    restore(recording, "more", frames_per_exposure=3)
    first = read_rgb(recording / "more" / "0016_0.png").astype(float)
    assert np.abs(first).mean() > 20
    with pytest.raises(SpikeDeblurError, match="fewer --frames-per-exposure"):
        RecordingSequence(found(recording), 32, at=-0.49)


@pytest.mark.parametrize("each", [10**9, 1001, 1000])
def test_more_sharp_frames_than_samples_are_refused_at_once(recording, each) -> None:
    with pytest.raises(job.RestoreError, match=r"expected at most 257 sharp|expected 1 to 1000"):
        restore(recording, frames_per_exposure=each)
