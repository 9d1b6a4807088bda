"""`path` with the exposures before and after: which it takes, and what it does with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spikedeblur.configs import load_config
from spikedeblur.configs.schema import NormConfig
from spikedeblur.model import build_model
from spikedeblur.model.motion_deblur import sharp_along_motion
from spikedeblur.model.neighbours import Near
from spikedeblur.pipeline.evaluate.metrics import psnr
from spikedeblur.pipeline.frames.images import to_uint8
from spikedeblur.pipeline.methods import exposures
from spikedeblur.pipeline.methods.contract import MethodClip, restored_frames
from spikedeblur.pipeline.methods.exposures import Exposures
from spikedeblur.pipeline.methods.inputs import InputReader
from spikedeblur.pipeline.methods.network import ModelMethod, as_frames
from spikedeblur.pipeline.methods.path import PathMethod
from spikedeblur.pipeline.sequences.contract import WindowSequence
from spikedeblur.pipeline.spikes.camera import SpikeCamera

SIDE, SAMPLES, RATE = 64, 64, 1000.0
"""Pixels of a frame; spike samples of an exposure, and a second. Spikes are at half the size."""
GAIN = 0.5


class Scene:
    """A texture that turns by a right angle from exposure to exposure, seen by both cameras."""

    def __init__(self, exposures: int, gap: int) -> None:
        rng = np.random.default_rng(5)
        self._waves = [
            (length, *rng.uniform(0, 2 * np.pi, 2)) for length in (4, 5, 6, 7, 9, 13, 19, 30)
        ]
        self.gap, period = gap, SAMPLES + gap
        legs = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)]) * 14 / SAMPLES
        velocity = legs[np.arange(exposures * period) // period % 4]
        self.starts = [i * period for i in range(exposures)]
        planes = [self._plane(*place) for place in np.cumsum(velocity, 0)]
        small = [x.reshape(SIDE // 2, 2, SIDE // 2, 2).mean((1, 3)) for x in planes]
        camera = SpikeCamera(threshold=1 / GAIN)
        self.spikes = np.stack(list(camera.record(iter(small), rng))).astype(np.uint8)
        spans = [planes[start : start + SAMPLES] for start in self.starts]
        self.blur = np.stack([_frame(np.mean(span, 0)) for span in spans])
        middle = SAMPLES // 2
        self.sharp = [_frame((span[middle - 1] + span[middle]) / 2) for span in spans]

    def _plane(self, right: float, down: float) -> np.ndarray:
        y, x = np.mgrid[:SIDE, :SIDE] + 0.5
        light = np.full((SIDE, SIDE), 0.5)
        for length, angle, phase in self._waves:
            along = (x - right) * np.cos(angle) + (y - down) * np.sin(angle)
            light += 0.05 * np.sin(2 * np.pi / length * along + phase)
        return light.astype(np.float32)


def _frame(light: np.ndarray) -> np.ndarray:
    return np.rint(255 * light).clip(0, 255).astype(np.uint8)[..., None].repeat(3, -1)


class Windows(WindowSequence):
    """Exposures of a scene, with all its spikes or with those of exposures only."""

    seq, bins, gain = "test/group/clip", 32, GAIN
    has_sharp, has_spikes, is_remote, windows_are_raw = False, True, False, True
    voxel_dtype, frame_shape, voxel_shape = "uint8", (SIDE, SIDE), (SIDE // 2, SIDE // 2)

    def __init__(
        self, scene: Scene, which: slice = slice(None), brightness=(), *, kept: bool = True
    ) -> None:
        self.scene, self.kept = scene, kept
        self.blur_frames = scene.blur[which].copy()
        for i, factor in enumerate(brightness):
            self.blur_frames[i] = np.rint(factor * self.blur_frames[i].astype(float)).clip(0, 255)
        self.starts = scene.starts[which]
        self.length = len(self.starts)
        self.frame_index = np.arange(self.length)
        self.t0 = np.array(self.starts) / RATE
        self.t1 = self.t0 + (SAMPLES - 1) / RATE
        self.samples = np.full(self.length, SAMPLES)
        self.asked: list[int] = []

    def _read_frames(self, kind, start, stop, box):
        return self.blur_frames[start:stop][:, slice(*box[0]), slice(*box[1])]

    def _read_voxels(self, start, stop, box):
        raise NotImplementedError

    def _read_spikes(self, window, beside, box):
        self.asked.append(window)
        start = self.starts[window]
        beside = beside if self.kept else 0
        first = max(0, start - beside)
        spikes = self.scene.spikes[first : start + self.samples[window] + beside]
        return spikes[:, slice(*box[0]), slice(*box[1])], start - first


@pytest.fixture(scope="module")
def turning() -> Scene:
    return Scene(5, gap=0)


@pytest.fixture(scope="module")
def with_gaps() -> Scene:
    return Scene(3, gap=SAMPLES // 2)


def alone(windows: Windows, window: int) -> np.ndarray:
    """Return the frame as `path` made it before it knew of neighbours."""
    norm = NormConfig(MODE="relative", CORRECT_LAG=True)
    inputs = InputReader(windows, norm).clip(window, window + 1)
    return as_frames(sharp_along_motion(*inputs)[0])


def middle(windows: Windows) -> np.ndarray:
    return PathMethod()(windows, MethodClip(0, 3, 1, 2))


def quality(frames: np.ndarray, scene: Scene) -> float:
    inner = slice(14, -14)
    return psnr(
        _frame(frames[0, inner, inner, 0]), _frame(scene.sharp[1] / 255)[inner, inner, :, 0]
    )


def test_a_networks_base_is_of_light_as_it_was_trained_to_see_it(turning):
    windows = Windows(turning, slice(0, 1))
    curved = NormConfig(MODE="relative", CORRECT_LAG=True, CURVE=(3.0, 0.1, 0.0))
    wanted = sharp_along_motion(*InputReader(windows, curved).clip(0, 1))[0]
    torch.testing.assert_close(Exposures(windows, curved).sharp(0)[0], wanted)
    config = load_config("configs/deblur/quickstart.yaml")
    data = config.DATA.model_copy(update={"NORM": curved})
    config = config.model_copy(update={"DATA": data})
    network = ModelMethod(build_model(config), config, device="cpu", tile=0)
    restored = network(windows, MethodClip(0, 1, 0, 1))  # a new network is its base
    np.testing.assert_allclose(restored, as_frames(wanted), atol=1e-5)
    assert np.abs(as_frames(wanted) - alone(windows, 0)).max() > 0.01


def test_exposures_that_turn_add_detail(turning):
    windows = Windows(turning, slice(0, 3))
    before, found = quality(alone(windows, 1), turning), quality(middle(windows), turning)
    print(f"alone {before:.2f} dB, with neighbours {found:.2f} dB")
    assert found > before + 0.2


def test_neighbours_that_are_brighter_or_darker_do_no_harm(turning):
    even = quality(middle(Windows(turning, slice(0, 3))), turning)
    for brightness in ((1.1, 1, 0.9), (0.7, 1, 1.3)):
        windows = Windows(turning, slice(0, 3), brightness)
        assert quality(middle(windows), turning) > even - 0.15


def test_a_dark_neighbour_is_none(turning):
    windows = Windows(turning, slice(0, 3), (0, 1, 0))
    np.testing.assert_array_equal(middle(windows), alone(windows, 1))


def test_an_exposure_alone_is_as_it_was(turning):
    windows = Windows(turning, slice(1, 2))
    found = PathMethod()(windows, MethodClip(0, 1, 0, 1))
    np.testing.assert_array_equal(found, alone(windows, 0))


def test_across_a_gap_the_spikes_there_lead_into_neighbours(with_gaps):
    windows = Windows(with_gaps)
    before, found = quality(alone(windows, 1), with_gaps), quality(middle(windows), with_gaps)
    print(f"alone {before:.2f} dB, with neighbours {found:.2f} dB")
    assert found > before + 0.1


def test_gaps_without_spikes_leave_exposures_alone(with_gaps):
    windows = Windows(with_gaps, kept=False)
    np.testing.assert_array_equal(middle(windows), alone(windows, 1))


@pytest.mark.parametrize("away", [2.2, -1.0])
def test_what_is_further_than_an_exposure_away_or_out_of_order_is_no_neighbour(turning, away):
    windows = Windows(turning, slice(0, 3))
    windows.t0 = windows.t0[1] + away * SAMPLES / RATE * np.array([-1, 0, 1])
    windows.t1 = windows.t0 + (SAMPLES - 1) / RATE
    np.testing.assert_array_equal(middle(windows), alone(windows, 1))


def unequal(scene: Scene, lengths: tuple[int, int], gap: int) -> Windows:
    windows = Windows(scene, slice(0, 2))
    windows.starts = [10, 10 + lengths[0] + gap]
    windows.samples = np.array(lengths)
    windows.t0 = np.array(windows.starts) / RATE
    windows.t1 = windows.t0 + (windows.samples - 1) / RATE
    return windows


@pytest.mark.parametrize("gap", [-20, 0, 4, 30])
@pytest.mark.parametrize("lengths", [(128, 64), (64, 128), (150, 64), (56, 40)])
def test_ways_between_unequal_exposures_stay_inside_their_windows(turning, lengths, gap):
    exposures = Exposures(unequal(turning, lengths, gap))
    for window, sign in ((0, 1), (1, -1)):
        if lengths[1 - window] > 1.5 * lengths[window]:
            assert exposures.near(window) is None  # the neighbour has more blur
            continue
        (neighbour,) = exposures.near(window).neighbours
        first, *others = (sign * step.time for step in neighbour.steps)
        assert all(0 < time < 0.5 + 1 / 16 for time in (first, *others))
        distance = sum(lengths) / 2 + gap
        assert first * lengths[window] + sum(others) * min(lengths) == pytest.approx(distance)


@pytest.mark.parametrize("lengths", [(32, 96), (96, 32)])
def test_exposures_of_very_different_lengths_are_no_neighbours(turning, lengths):
    exposures = Exposures(unequal(turning, lengths, 0))
    assert exposures.near(0) is exposures.near(1) is None


def test_exposures_of_a_sample_more_or_less_are_on_one_clock(turning):
    windows = unequal(turning, (40, 39), 0)
    windows.t1[0] -= 0.9 / RATE
    windows.t1[1] += 0.9 / RATE
    assert Exposures(windows).near(0) is not None


def test_exposures_on_clocks_of_different_rates_are_no_neighbours(turning):
    windows = unequal(turning, (64, 64), 0)
    windows.t1[1] += 5 / RATE
    assert Exposures(windows).near(0) is None


def test_each_exposure_has_both_its_neighbours_and_the_ends_one(turning, monkeypatch):
    found = {}

    def near(exposures: Exposures, window: int):
        beside = known(exposures, window)
        neighbours = list(beside.neighbours)
        found[window] = len(neighbours)
        return Near(beside.motion, neighbours)

    known = Exposures.near
    monkeypatch.setattr(Exposures, "near", near)
    windows = Windows(turning)
    frames = dict(restored_frames(PathMethod(), windows))
    assert found == {0: 1, 1: 2, 2: 2, 3: 2, 4: 1}
    assert sorted(windows.asked) == [0, 1, 2, 3, 4]  # each was read once
    whole = PathMethod()(windows, MethodClip(0, 5, 0, 5))
    for i, frame in frames.items():
        np.testing.assert_array_equal(frame, to_uint8(whole[i]))


def test_few_exposures_are_kept(turning):
    exposures = Exposures(Windows(turning))
    for window in range(5):
        exposures.near(window)
    assert len(exposures._exposures) == 3
    assert len(exposures._connections) <= 3


def test_frames_apart_from_each_other_read_each_exposure_once(monkeypatch):
    windows = Windows(Scene(6, gap=0))
    monkeypatch.setattr(exposures, "threads_that_fit", lambda shape: 2)
    read, found = Exposures._read, []

    def counted(self, window):
        found.append(window)
        return read(self, window)

    monkeypatch.setattr(Exposures, "_read", counted)
    several = Exposures(windows)
    several.expect([1, 4])
    several.sharp(1)
    assert sorted(found) == list(range(6))
