from __future__ import annotations

import numpy as np
import pytest

from spikedeblur.pipeline.clocks.camera import CameraClock
from spikedeblur.pipeline.clocks.durations import TimelineError
from spikedeblur.pipeline.clocks.exposures import Exposures, exposure_window
from spikedeblur.pipeline.clocks.names import gaps_in, natural_order, numbers_in
from spikedeblur.pipeline.spikes import SpikeClock


def samples(exposures: Exposures, rate: float, first: float = 0.0) -> list[tuple[int, int]]:
    clock = SpikeClock(rate=rate, first=first)
    names = [f"IMG_{i}.png" for i in range(len(exposures.starts))]
    return [clock.samples(*window) for window in exposures.windows(clock, names)]


@pytest.mark.parametrize("rate", [1000, 8000, 20000, 40500])
@pytest.mark.parametrize("frame_rate", [24, 25, 29.97, 30, 60])
def test_a_cameras_exposure_takes_the_samples_from_its_start_up_to_its_end(rate, frame_rate):
    shutter = 0.012
    exposures = CameraClock(frame_rate=frame_rate, shutter=shutter, start=0.2503).exposures(
        [str(i) for i in range(400)]
    )
    for i, (start, stop) in enumerate(samples(exposures, rate, first=0.1)):
        begins = 0.2503 + i / frame_rate
        assert abs((stop - start) - shutter * rate) <= 1
        assert abs(0.1 + start / rate - begins) <= 0.5001 / rate
        assert abs(0.1 + stop / rate - (begins + shutter)) <= 0.5001 / rate


def test_averages_of_sharp_frames_keep_their_closed_windows():
    exposures = Exposures.averaged(range(16, 500, 15), 33, 1000.0)
    windows = exposures.windows(SpikeClock(rate=8000), [str(i) for i in range(33)])
    assert windows == [exposure_window(centre, 33, 1000.0) for centre in range(16, 500, 15)]
    assert {b - a for a, b in samples(exposures, 8000)} == {257}


def test_seventeen_sharp_frames_are_a_shutter_of_sixteen_milliseconds_and_a_sample():
    averaged = Exposures.averaged(range(8, 900, 20), 17, 1000.0)
    camera = Exposures.regular(range(45), 50.0, 0.016 + 1 / 8000)
    assert samples(camera, 8000) == samples(averaged, 8000)


@pytest.mark.parametrize(
    ("exposures", "expected"),
    [
        (Exposures.averaged([31], 1, 30.0), r"IMG_0.png.*found 1 .*--frame-rate 30 --shutter 16ms"),
        (Exposures.regular([0], 30.0, 1e-5), "found 0 at 1000 Hz.*--shutter 16ms"),
        (Exposures.regular([0], 30.0, 1e-3), "found 1 at 1000 Hz.*--shutter 16ms"),
        (Exposures.closed([(0.1, 0.1)], "log.txt", ""), r"found 1 at 1000 Hz, by log\.txt"),
    ],
)
def test_an_exposure_of_one_sample_or_none_is_refused_with_what_to_type(exposures, expected):
    with pytest.raises(TimelineError, match=expected):
        exposures.windows(SpikeClock(rate=1000), ["IMG_0.png"])


@pytest.mark.parametrize(
    ("clock", "expected"),
    [
        ({"frame_rate": 30}, "--frame-rate 30 alone.*--shutter 16ms"),
        ({"start": 0.5}, "--start alone.*--frame-rate 30 and --shutter"),
        ({"frame_rate": 30, "shutter": 0.04}, "at most 33.3333 ms.*found 40 ms"),
        ({"frame_rate": 30, "shutter": 16.0}, "found 16 s.*--shutter 16ms"),
        ({"frame_rate": 30, "shutter": 4000.0}, "--shutter 4000us"),
        ({"frame_rate": 30, "shutter": 0.0}, "above 0, found 0 s"),
        ({"frame_rate": 0, "shutter": 0.016}, "--frame-rate: expected frames a second above 0"),
        ({"frame_rate": float("nan"), "shutter": 0.016}, "--frame-rate: expected"),
        ({"frame_rate": 30, "times": "t.csv"}, "leave --frame-rate out"),
    ],
)
def test_a_clock_that_can_not_be_is_refused_before_any_file_is_read(clock, expected):
    with pytest.raises(TimelineError, match=expected):
        CameraClock(**clock)


def test_a_shutter_as_long_as_the_period_is_taken():
    CameraClock(frame_rate=30, shutter=0.03333333)
    CameraClock(frame_rate=30, shutter=0.03334)


def test_time_stamps_give_gaps_at_a_stated_rate_or_times_by_themselves():
    names = list("abcd")
    slow_motion = CameraClock(frame_rate=240, shutter=0.002, start=1.0)
    played = slow_motion.exposures(names, (0.0, 1 / 30, 4 / 30, 5 / 30))
    assert played.starts == pytest.approx([1.0, 1 + 1 / 240, 1 + 4 / 240, 1 + 5 / 240])
    variable = CameraClock(shutter=0.002).exposures(names, (0.0, 0.04, 0.053, 0.1))
    assert variable.starts == (0.0, 0.04, 0.053, 0.1)
    with pytest.raises(TimelineError, match=r"whole number of periods.*leave --frame-rate out"):
        slow_motion.exposures(names, (0.0, 0.04, 0.053, 0.1))
    with pytest.raises(TimelineError, match="add --frame-rate 30, or --times"):
        CameraClock(shutter=0.002).exposures(names)


def test_names_are_ordered_as_people_count():
    names = [f"IMG_{i}.png" for i in range(12)]
    shuffled = list(np.random.default_rng(0).permutation(names))
    assert natural_order(shuffled) == names
    assert natural_order(["b1.png", "a10.png", "a9.png", "A2.png"]) == [
        "A2.png",
        "a9.png",
        "a10.png",
        "b1.png",
    ]


def test_numbers_count_frames_if_nothing_else_differs():
    assert numbers_in(["cam1_07.png", "cam1_9.png"]) == [7, 9]
    assert numbers_in(["cam1_07.png", "cam2_08.png"]) is None
    assert numbers_in(["a.png", "b.png"]) is None
    assert gaps_in(["0033.png", "0067.png", "0100.png", "0133.png"]) == []
    assert gaps_in([f"{i}.png" for i in (0, 1, 2, 5, 6)]) == [("2.png", "5.png")]
