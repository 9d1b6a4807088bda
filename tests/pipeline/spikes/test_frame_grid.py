"""The grid of light in a frame, by the sizes of frame and spikes, and what is said of odd ones."""

from __future__ import annotations

import pytest

from spikedeblur.pipeline.spikes.frame_grid import grid_shape, size_warning


@pytest.mark.parametrize(
    ("spikes", "frames", "grid"),
    [
        ((240, 320), (480, 640), (240, 320)),  # a whole ratio: untouched
        ((480, 640), (480, 640), (480, 640)),
        ((160, 160), (480, 480), (160, 160)),
        ((250, 400), (480, 640), (480, 640)),
        ((396, 640), (720, 1280), (720, 1280)),
        ((360, 448), (720, 1280), (360, 640)),
        ((60, 76), (480, 640), (60, 80)),
        ((20, 30), (480, 640), (60, 80)),  # at most 8
        ((240, 320), (482, 642), (241, 321)),
        ((240, 320), (481, 641), (481, 641)),  # odd sides
        ((256, 256), (96, 128), (96, 128)),  # finer than frames
        ((192, 256), (96, 128), (96, 128)),
        ((1, 1), (7, 5), (7, 5)),
    ],
)
def test_light_lies_in_whole_frame_pixels_and_no_coarser_than_spikes(spikes, frames, grid) -> None:
    assert grid_shape(frames, spikes) == grid


@pytest.mark.parametrize(
    ("spikes", "frames", "said"),
    [
        ((240, 320), (480, 640), None),
        ((250, 332), (480, 640), None),  # 4:3, nearly
        ((250, 400), (480, 640), "250x400 are taken to see all of the 480x640 frames, though their"
         " pixels are then 1.20 times as long as wide; if the cameras see different fields, give"
         " --calibration"),
        ((360, 448), (720, 1280), "1.43 times as long as wide"),
        ((250, 400), (640, 480), "250x400 and frames of 640x480 can't show the same field: one is "
         "turned; turn the frames by a quarter, or give --calibration"),
        ((250, 400), (100, 640), "can't show the same field; check --geometry, or give --cal"),
    ],
)  # fmt: skip
def test_odd_sizes_are_told_with_what_to_type(spikes, frames, said) -> None:
    warning = size_warning(frames, spikes)
    assert warning is None if said is None else said in warning
