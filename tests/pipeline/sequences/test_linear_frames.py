"""Frames of sRGB as linear light: told by the spikes, decoded for all work, encoded again."""

import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from spikedeblur.pipeline.frames.images import to_bytes, to_unit
from spikedeblur.pipeline.frames.srgb import codes_of_light
from spikedeblur.pipeline.methods.contract import restored_frames, restored_instants
from spikedeblur.pipeline.methods.make_method import make_method
from spikedeblur.pipeline.sequences.arrays import ArraySequence
from spikedeblur.pipeline.sequences.linear_frames import (
    frame_curve_of,
    in_codes,
    shown_in_8_bits,
    with_linear_frames,
)
from spikedeblur.pipeline.storage.base import StoreError

SAMPLES, GAIN = 96, 0.4


@dataclass
class Scene:
    """A bright bar that crosses a wall of many brightnesses, as both cameras see it."""

    srgb: bool
    bits: int = 8
    most: float = 0.95
    noise: float = 0.0

    def light(self, sample: float) -> np.ndarray:
        """Return the light (64, 96, 3) at a sample."""
        rows, columns = np.mgrid[:64, :96].astype(float)
        wall = 0.3 + 0.25 * np.sin(rows / 6) * np.cos(columns / 7)
        bar = np.exp(-(((columns - 30 - 20 * sample / SAMPLES) / 6) ** 2))
        return ((1 - bar) * wall + bar * self.most)[..., None] * [1.0, 0.95, 0.9]

    def codes(self, light: np.ndarray) -> np.ndarray:
        """Return the numbers of a frame that shows light."""
        numbers = (codes_of_light(light) if self.srgb else light).clip(0, 1)
        return to_bytes(255 * numbers) if self.bits == 8 else np.uint16(np.rint(65535 * numbers))

    def sequence(self) -> ArraySequence:
        """Return what is recorded: three exposures without gap."""
        times = np.arange(3 * SAMPLES) - SAMPLES
        light = np.stack([self.light(time) for time in times])  # (S, 64, 96, 3)
        seen = light.reshape(len(light), 32, 2, 48, 2, 3).mean((2, 4)) @ [0.299, 0.587, 0.114]
        charge = np.random.default_rng(0).random(seen.shape[1:]) + np.cumsum(GAIN * seen, 0)
        fired = np.diff(np.floor(charge), axis=0, prepend=0) > 0
        fired |= np.random.default_rng(1).random(fired.shape) < self.noise
        frames = [self.codes(part.mean(0)) for part in np.split(light, 3)]
        starts = SAMPLES * np.arange(3)
        exposures = np.stack([starts, starts + SAMPLES - 1], 1)
        return ArraySequence(np.stack(frames), fired.astype(np.uint8), exposures, GAIN)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("most", [0.95, 3.0])
def test_spikes_tell_what_frames_are(bits: int, noise: float, most: float) -> None:
    for srgb, curve in ((False, "linear"), (True, "srgb")):
        assert frame_curve_of(Scene(srgb, bits, most, noise).sequence()) == curve


def test_frames_without_contrast_or_light_are_taken_as_they_are() -> None:
    ones = np.ones((1, 96, 32, 48), np.uint8)
    for level in (0, 120, 255):
        frames = np.full((1, 64, 96, 3), level, np.uint8)
        for spikes in (0 * ones, ones):
            assert frame_curve_of(ArraySequence(frames, spikes)) == "linear"


def test_linear_frames_are_the_sequence_itself() -> None:
    sequence = Scene(srgb=False).sequence()
    (seen,) = with_linear_frames([sequence])
    assert seen is sequence
    frames = np.float32([0.2, 1.3])
    assert in_codes(seen, frames) is frames


@pytest.mark.parametrize("bits", [8, 16])
def test_a_frame_that_is_decoded_and_encoded_is_the_frame(bits: int) -> None:
    scene = Scene(srgb=True, bits=bits)
    sequence = scene.sequence()
    (seen,) = with_linear_frames([sequence])
    frame = sequence.blur(1, 2)[0]
    light = to_unit(seen.blur(1, 2))[0]
    truth = np.stack([scene.light(time) for time in range(SAMPLES)]).mean(0)
    assert np.abs(light - truth).max() < 0.005
    back = in_codes(seen, light)
    assert np.abs(back - to_unit(frame)).max() < (0.5 / 255 if bits == 8 else 1e-4)
    if bits == 8:
        np.testing.assert_array_equal(shown_in_8_bits(seen, seen.blur(1, 2)[0]), frame)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(seen)).blur(1, 2)[0], as_8(seen))
        (shown,) = (f for i, f in restored_frames(make_method("blur"), seen) if i == 1)
        np.testing.assert_array_equal(shown, frame)


def as_8(sequence: Any) -> np.ndarray:
    """Return the middle frame as it is read."""
    return np.asarray(sequence.blur(1, 2)[0])


@pytest.mark.parametrize("method", ["sdm", "path"])
def test_methods_come_nearer_to_the_truth_in_linear_light(method: str) -> None:
    scene = Scene(srgb=True)
    sequence = scene.sequence()
    truth = to_unit(scene.codes(scene.light((SAMPLES - 1) / 2)))

    def error(windows: Any) -> float:
        ((_, frame),) = restored_frames(make_method(method), windows, lambda i: i == 1)
        return float(np.square(to_unit(frame) - truth).mean())

    (seen,) = with_linear_frames([sequence])
    assert error(seen) < 0.6 * error(sequence)


def test_light_beyond_white_of_srgb_is_encoded_for_all_instants() -> None:
    scene = Scene(srgb=True, most=2.0)
    (seen,) = with_linear_frames([scene.sequence()])
    wanted = [[True, True]] * 3
    shown = {
        i: frame
        for window, i, frame in restored_instants(
            make_method("path"), seen, (-0.3, 0.0), wanted, bits=16, headroom=2
        )
        if window == 1
    }
    white = 65535 / 2
    for i, sample in ((0, 0.2 * SAMPLES), (1, 0.5 * SAMPLES)):
        bar = scene.light(sample) > 1.7
        told = shown[i][bar] / white
        assert np.abs(told / codes_of_light(scene.light(sample))[bar] - 1).mean() < 0.06


def test_an_unknown_curve_is_refused() -> None:
    with pytest.raises(StoreError, match="curve: expected linear or srgb, got 'gamma'"):
        with_linear_frames([Scene(srgb=True).sequence()], "gamma")  # type: ignore[arg-type]
