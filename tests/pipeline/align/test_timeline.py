from __future__ import annotations

import pytest

from spikedeblur.pipeline.align.timeline import (
    TimelineError,
    exposure_window,
    names_are_interpolated,
    parse_frame_name,
)
from spikedeblur.pipeline.spikes import SpikeClock


def test_window_reaches_from_first_to_last_averaged_frame():
    assert exposure_window(31, 33, 1000.0) == (0.015, 0.047)


@pytest.mark.parametrize(
    ("exposure", "fps", "rate", "samples"),
    [
        (33, 4000.0, 4000.0, 33),
        (65, 4000.0, 4000.0, 65),
        (33, 1000.0, 8000.0, 257),
        (11, 240, 1920, 81),
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
