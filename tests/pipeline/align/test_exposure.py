from __future__ import annotations

import pytest

from spikedeblur.pipeline.align.exposure import TimelineError, exposure_window
from spikedeblur.pipeline.frames.listing import names_are_interpolated, parse_frame_name
from spikedeblur.pipeline.spikes import SpikeClock, SpikeWindowError


def test_window_reaches_from_first_to_last_averaged_frame():
    assert exposure_window(31, 33, 1000.0) == (0.015, 0.047)


@pytest.mark.parametrize(
    ("exposure", "fps", "rate", "samples"),
    [
        (33, 4000.0, 4000.0, 33),
        (65, 4000.0, 4000.0, 65),
        (33, 1000.0, 8000.0, 257),
        (11, 240, 1920, 81),
        (97, 1920, 1920, 97),
    ],
)
def test_published_exposures_hold_their_samples(exposure, fps, rate, samples):
    for centre in range(exposure // 2, 700):
        start, stop = SpikeClock(rate=rate).samples(*exposure_window(centre, exposure, fps))
        assert stop - start == samples
        assert start == round((centre - exposure // 2) * rate / fps)


@pytest.mark.parametrize(("exposure", "fps"), [(32, 1000.0), (0, 1000.0), (-3, 1000.0), (33, 0.0)])
def test_impossible_exposure_is_refused(exposure, fps):
    with pytest.raises(TimelineError):
        exposure_window(40, exposure, fps)


def test_interpolated_names_count_in_fours():
    published = ["0000", "0000_000", "0000_001", "0000_002", "0001", "0001_000"]
    assert [parse_frame_name(name, True) for name in published] == [0, 1, 2, 3, 4, 5]
    assert parse_frame_name("0064", True) == 256


def test_raw_names_are_plain_numbers():
    assert parse_frame_name("1016", False) == 1016
    assert parse_frame_name("0001_000", False) is None
    assert parse_frame_name("0001_003", True) is None
    assert parse_frame_name("thumb", False) is None


def test_one_interpolated_name_tells():
    assert names_are_interpolated(["0001", "0001_002"])
    assert not names_are_interpolated(["0001", "0002", "note_1"])


@pytest.mark.parametrize(("yy", "index"), [(7, 24), (11, 40), (13, 48)])
def test_gopros_sharp_frame_is_at_sample_8_times_half_yy(yy, index):
    # Frames n yy to n yy + yy - 1 are averaged; the file begins with the first of them.
    for n in range(1, 50):
        t0, t1 = exposure_window(n * yy + yy // 2, yy, 240.0)
        clock = SpikeClock(rate=1920.0, first=t0)
        start, stop = clock.samples(t0, t1)
        assert (start, stop) == (0, 8 * (yy - 1) + 1)
        assert (start + stop - 1) / 2 == index
        # Seven samples follow the exposure in all files but a sequence's last.
        assert 8 * yy - stop == 7


def test_published_centres_fill_an_interpolated_clip():
    for length in (33, 65):
        for centre in range(length // 2, 257 - length // 2, 15):
            window = exposure_window(centre, length, 4000.0)
            start, stop = SpikeClock(rate=4000.0).require_inside(*window, 257, "clip")
            assert stop - start == length


def test_s_sdms_names_step_by_one_exposure_and_seven_frames():
    ends = [exposure_window(8 * name, 97, 1920.0) for name in (6, 19, 32)]
    clock = SpikeClock(rate=1920.0)
    spans = [clock.samples(*end) for end in ends]
    assert spans == [(0, 97), (104, 201), (208, 305)]


def test_a_window_past_the_end_names_window_and_recording():
    window = exposure_window(250, 33, 4000.0)
    with pytest.raises(SpikeWindowError, match=r"clip: .*0\.058500, 0\.066500.*0 to 256.*0\.064"):
        SpikeClock(rate=4000.0).require_inside(*window, 257, "clip")
