"""What frames are is told by spikes of imperfect cameras, and of few windows."""

from __future__ import annotations

import numpy as np
import pytest

from spikedeblur.pipeline.frames.images import to_bytes
from spikedeblur.pipeline.frames.srgb import codes_of_light
from spikedeblur.pipeline.sequences.arrays import ArraySequence
from spikedeblur.pipeline.sequences.linear_frames import (
    MOST_TOLD,
    frame_curve_of,
    is_decoded,
    with_linear_frames,
)

CURVES = ("linear", "srgb")


def scene(
    curve: str,
    *,
    between: tuple[float, float] = (0.05, 0.95),
    gain: float = 0.4,
    dark: float = 0.0,
    samples: int = 96,
    random: bool = False,
    windows: int = 1,
    seed: int = 0,
) -> ArraySequence:
    """Return exposures of a still wall of many brightnesses.

    Args:
        curve: what its frames are.
        between: least and greatest light.
        gain: spikes a sample at light 1.
        dark: spikes a sample in darkness.
        samples: number of samples.
        random: whether spikes come at random, else after as much light.
        windows: number of exposures.
        seed: of the spikes.
    """
    rows, columns = np.mgrid[:64, :96].astype(float)
    wall = 0.5 + 0.25 * np.sin(rows / 6) * np.cos(columns / 7) + 0.25 * np.sin(columns / 3 + rows)
    light = (between[0] + (between[1] - between[0]) * wall)[..., None] * [1.0, 0.95, 0.9]
    seen = light.reshape(32, 2, 48, 2, 3).mean((1, 3)) @ [0.299, 0.587, 0.114]
    rate = (gain * seen + dark).clip(0, 1)
    rng = np.random.default_rng(seed)
    if random:
        fired = rng.random((samples, *rate.shape)) < rate
    else:
        charge = rng.random(rate.shape) + rate * np.arange(samples + 1)[:, None, None]
        fired = np.diff(np.floor(charge), axis=0) > 0
    frame = to_bytes(255 * (codes_of_light(light) if curve == "srgb" else light))
    return ArraySequence(np.stack([frame] * windows), np.stack([fired] * windows).astype(np.uint8))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("between", [(0.45, 0.55), (0.49, 0.5), (0.3, 0.6)])
def test_noise_where_all_is_about_equally_bright_tells_no_srgb(between, seed) -> None:
    sequence = scene("linear", between=between, random=True, samples=24, seed=seed)
    assert frame_curve_of(sequence) == "linear"


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize(
    "camera", [{"gain": 1.6}, {"gain": 2.5}, {"dark": 0.05}, {"dark": 0.2}, {"random": True}]
)
def test_saturated_spikes_dark_current_and_noise_hide_no_curve(camera, curve) -> None:
    assert frame_curve_of(scene(curve, **camera)) == curve


@pytest.mark.parametrize("curve", CURVES)
def test_places_where_a_registered_camera_does_not_look_tell_nothing(curve) -> None:
    sequence = scene(curve)
    sequence.registered = True
    looks = np.zeros((32, 48), np.uint8)
    looks[8:24, 6:30] = 1
    read = sequence.voxels
    sequence.voxels = lambda *windows: read(*windows) * looks  # type: ignore
    assert frame_curve_of(sequence) == curve


@pytest.mark.parametrize("curve", CURVES)
def test_one_window_that_tells_clearly_is_enough(curve) -> None:
    sequence = scene(curve, windows=5)
    looked: list[int] = []
    read = sequence.blur
    sequence.blur = lambda *windows: looked.append(windows[0]) or read(*windows)  # type: ignore
    assert frame_curve_of(sequence) == curve
    assert looked == [2]


@pytest.mark.parametrize("curve", CURVES)
def test_a_few_sequences_tell_what_a_data_set_is_and_those_that_tell_nothing_too(curve) -> None:
    told, dark = scene(curve), scene(curve, between=(0.0, 0.0))
    read = []
    blur = told.blur
    told.blur = lambda *windows: read.append(1) or blur(*windows)  # type: ignore
    seen = with_linear_frames([dark, *[told] * 200, dark])
    assert len(read) <= MOST_TOLD
    assert {is_decoded(sequence) for sequence in seen} == {curve == "srgb"}


def test_sequences_that_differ_are_told_one_by_one() -> None:
    linear, srgb = scene("linear"), scene("srgb")
    seen = with_linear_frames([linear, srgb] * 30)
    assert [is_decoded(sequence) for sequence in seen] == [False, True] * 30
