import pytest

from spikedeblur.pipeline.spikes import SpikeClock, SpikeWindowError


def test_both_ends_belong_to_a_window():
    # Spk-X4K1000FPS: one spike sample an interpolated frame, exposure of 33 frames at 4000 Hz.
    assert SpikeClock(rate=4000).samples(0.0, 32 / 4000) == (0, 33)


def test_windows_of_one_length_hold_the_same_number_of_samples():
    clock = SpikeClock(rate=8000, first=0.0123)
    lengths = set()
    for i in range(1000):
        start, stop = clock.samples(0.0123 + i * 0.00033, 0.0123 + i * 0.00033 + 0.032)
        lengths.add(stop - start)
    assert lengths == {257}


def test_six_decimals_of_a_log_do_not_move_a_sample():
    clock = SpikeClock(rate=40_000)
    for j in range(0, 40_000, 37):
        assert clock.samples(round(j / 40_000, 6), round((j + 10) / 40_000, 6)) == (j, j + 11)


@pytest.mark.parametrize(("t0", "t1"), [(-0.001, 0.01), (0.05, 0.0641), (0.02, 0.01)])
def test_a_window_that_leaves_the_recording_names_both(t0, t1):
    with pytest.raises(SpikeWindowError, match=r"clip\.dat.*513|clip\.dat.*0 to 512"):
        SpikeClock(rate=8000).require_inside(t0, t1, 513, "clip.dat")


@pytest.mark.parametrize(("t1", "rate"), [(1e200, 1e200), (float("nan"), 8000), (1e300, 8000)])
def test_a_window_that_no_recording_can_hold_is_refused_in_short(t1, rate):
    with pytest.raises(SpikeWindowError, match=r"check (rate|the clock)") as refused:
        SpikeClock(rate=rate).require_inside(0.0, t1, 513, "clip.dat")
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_an_impossible_rate_is_refused(rate):
    with pytest.raises(SpikeWindowError):
        SpikeClock(rate=rate)


def test_a_window_counts_from_the_recording_s_first_sample_however_late_that_is():
    first = 7.5e10
    assert SpikeClock(rate=80000, first=first).samples(first, first + 1) == (0, 80001)
