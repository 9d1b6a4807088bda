"""Which of option, side file and preset decides a setting."""

from __future__ import annotations

import pytest

from spikedeblur.pipeline.spikes import PRESETS, SideFile, SpikeClock
from spikedeblur.pipeline.spikes.settings import SpikeOptions, SpikeSettingsError, settle

SIDE = SideFile(geometry="8x16,bottom-up", rate=20_000.0, gain=0.5, first=0.25)
PRESET = PRESETS["spk-gopro"]


def test_a_side_file_goes_before_the_data_set_s_preset():
    found = settle("r", SpikeOptions(), SIDE, PRESET)
    assert (found.geometry.shape, found.rate, found.gain, found.first) == ((8, 16), 2e4, 0.5, 0.25)
    assert found.warnings == ()


def test_without_a_side_file_the_preset_is_taken_and_time_begins_at_0():
    found = settle("r", SpikeOptions(), None, PRESET)
    assert (found.geometry, found.rate, found.gain) == (PRESET.geometry, 1920.0, 0.5)
    assert found.first == 0.0


def test_an_option_goes_first_and_says_what_it_contradicts():
    options = SpikeOptions(geometry="16x8,top-down", rate=10_000.0, gain=0.5, first=1.0)
    found = settle("r", options, SIDE)
    assert (found.geometry.shape, found.rate, found.gain, found.first) == ((16, 8), 1e4, 0.5, 1.0)
    assert found.warnings == (
        "--geometry 16x8,top-down taken over the side file's 8x16,bottom-up",
        "--rate 10000 taken over the side file's 20000",
        "--first 1 taken over the side file's 0.25",
    )


@pytest.mark.parametrize(
    ("options", "missing"),
    [(SpikeOptions(), "geometry"), (SpikeOptions(geometry="8x16,top-down"), "rate")],
)
def test_nothing_is_guessed(options, missing):
    with pytest.raises(SpikeSettingsError, match=f"^r: no side file .*gives the {missing}"):
        settle("r", options, None)


def test_the_clock_is_that_of_rate_first_sample_and_readout():
    found = settle("r", SpikeOptions(readout=0.02), SIDE)
    assert found.clock == SpikeClock(rate=20_000.0, first=0.25, readout=0.02)
    assert settle("r", SpikeOptions(), SIDE).clock == SpikeClock(rate=20_000.0, first=0.25)
