"""Recordings whose frames are sRGB, restored from files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from short_recordings import restore

from spikedeblur.pipeline.frames.images import read_rgb, write_png
from spikedeblur.pipeline.frames.srgb import encode_srgb
from spikedeblur.pipeline.restore.job import RestoreError


def encode(folder) -> None:
    """Make the blurred frames of a recording sRGB."""
    for file in sorted((folder / "test_blurry_33/Type1/clip").glob("*.png")):
        write_png(file, encode_srgb(read_rgb(file) / 255))


@pytest.mark.parametrize("method", ["blur", "sdm", "path"])
def test_every_instant_of_frames_of_srgb_is_that_of_their_light(recording, method: str) -> None:
    restore(recording, "light", method=method, frames_per_exposure=3)
    encode(recording)
    summary = restore(recording, "srgb", method=method, frames_per_exposure=3)
    assert summary.curve == "srgb"
    for file in (recording / "light").glob("*.png"):
        expected = encode_srgb(read_rgb(file) / 255).astype(float)
        found = read_rgb(recording / "srgb" / file.name)
        assert np.abs(found - expected).mean() < 1.5, file.name


def test_the_blurred_frame_of_srgb_is_itself(recording) -> None:
    encode(recording)
    restore(recording, method="blur")
    for file in (recording / "out").glob("*.png"):
        blur = read_rgb(recording / "test_blurry_33/Type1/clip" / file.name)
        np.testing.assert_array_equal(read_rgb(file), blur)


def test_frames_go_on_only_by_the_curve_that_they_began_with(recording) -> None:
    encode(recording)
    assert restore(recording).restored == 3
    assert json.loads((recording / "out/restore.json").read_text())["inputs"]["curve"] == "srgb"
    (recording / "out/0031.png").unlink()
    again = restore(recording)
    assert (again.restored, again.kept) == (1, 2)
    with pytest.raises(RestoreError, match=r"other inputs \(.*curve"):
        restore(recording, curve="linear")
