"""What a network is given, measured on a clip as a whole and shared by its parts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from spikedeblur.configs.schema import NormConfig
from spikedeblur.model import (
    RawWindows,
    gain_from_blur,
    measure_conditions,
    network_inputs,
    normalize_counts,
)

BINS, SIDE, WINDOWS = 32, 32, 3
RELATIVE = NormConfig(MODE="relative", CORRECT_LAG=True)
UNKNOWN = torch.full((WINDOWS,), float("nan"))


def recorded(late: int = 0, gain: float = 4.0) -> RawWindows:
    """A wave that moves, whose counts are late by some bins; frames of twice the size."""
    t = torch.arange(-BINS, 4 * BINS)[:, None, None].float()
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    light = 0.5 + 0.4 * torch.sin((x - 0.4 * t) / 7 + 0.2 * y)
    starts = [BINS + window * BINS for window in range(WINDOWS)]
    counts = torch.stack([gain * light[s - late : s - late + BINS] for s in starts])
    blur = torch.stack([light[s : s + BINS].mean(0) for s in starts])
    blur = blur[:, None].expand(-1, 3, -1, -1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    frames = (blur * 255).round().to(torch.uint8)
    return RawWindows(frames, counts.round().to(torch.uint8), torch.full((WINDOWS,), 10 * BINS))


def by_window(windows: RawWindows) -> list[RawWindows]:
    return [RawWindows(*(x[i : i + 1] for x in windows)) for i in range(WINDOWS)]


def unread() -> Iterator[RawWindows]:
    raise AssertionError("nothing is to be measured")
    yield


@pytest.mark.parametrize("late", [0, 3, -2])
def test_windows_read_one_by_one_and_clips_of_a_batch_have_the_same_conditions(late):
    windows = recorded(late)
    whole = measure_conditions([windows], UNKNOWN, RELATIVE)
    parts = measure_conditions(iter(by_window(windows)), UNKNOWN, RELATIVE)
    assert torch.equal(parts.gain, whole.gain)
    assert torch.equal(parts.late, whole.late)
    assert whole.late.round().item() == late
    batch = RawWindows(*(torch.stack(pair) for pair in zip(recorded(1), windows, strict=True)))
    both = measure_conditions([batch], UNKNOWN.expand(2, -1), RELATIVE)
    assert both.late.round().tolist() == [1, late]
    for given, expected in zip(
        network_inputs(batch, both, RELATIVE),
        network_inputs(windows, whole, RELATIVE),
        strict=True,
    ):
        torch.testing.assert_close(given[1], expected)


@pytest.mark.parametrize(
    ("norm", "gain"),
    [
        (NormConfig(), UNKNOWN),
        (NormConfig(MODE="rate"), torch.full((WINDOWS,), 0.5)),
        (NormConfig(MODE="relative"), torch.full((WINDOWS,), 0.5)),
        (NormConfig(MODE="relative", CURVE=(1.0, 0.0)), UNKNOWN),
    ],
)
def test_nothing_is_read_where_nothing_is_to_be_measured(norm, gain):
    conditions = measure_conditions(unread(), gain, norm)
    assert conditions.gain is gain
    assert conditions.late is None


def test_a_known_gain_stays_and_an_unknown_one_is_read_off_its_window():
    windows = recorded()
    norm = NormConfig(MODE="relative")
    gain = torch.tensor([0.5, float("nan"), 0.25])
    conditions = measure_conditions([windows], gain, norm)
    shown = gain_from_blur(windows.voxels, windows.samples, windows.blur.float() / 255)
    assert conditions.gain.tolist() == [0.5, shown[1].item(), 0.25]
    assert shown[1].item() == pytest.approx(4.0 / 10, rel=0.05)


@pytest.mark.parametrize("late", [0, 3])
@pytest.mark.parametrize(
    "norm",
    [
        NormConfig(CORRECT_LAG=True),
        NormConfig(MODE="rate", CORRECT_LAG=True),
        RELATIVE,
        NormConfig(MODE="relative", CORRECT_LAG=True, CURVE=(0.5, 2.0, 0.0)),
        NormConfig(MODE="relative"),
    ],
    ids=lambda norm: f"{norm.MODE}{'-curve' * bool(norm.CURVE)}{'-lag' * norm.CORRECT_LAG}",
)
def test_a_part_is_given_as_it_is_in_the_whole(norm, late):
    windows = recorded(late)
    gain = torch.full((WINDOWS,), 0.4) if norm.MODE == "rate" else UNKNOWN
    conditions = measure_conditions([windows], gain, norm)
    blur, voxels = network_inputs(windows, conditions, norm)
    assert blur.dtype == voxels.dtype == torch.float32
    torch.testing.assert_close(blur, windows.blur.float() / 255)
    box = (..., slice(8, 24), slice(4, 20))
    large = (..., slice(16, 48), slice(8, 40))
    part = windows._replace(blur=windows.blur[large], voxels=windows.voxels[box])
    for given, whole in zip(
        network_inputs(part, conditions, norm), (blur[large], voxels[box]), strict=True
    ):
        assert torch.equal(given, whole)
    second = network_inputs(by_window(windows)[1], conditions.of_window(1), norm)
    assert torch.equal(second[1], voxels[1:2])


def test_late_voxels_are_moved_before_they_are_normalised():
    late, in_time = recorded(3), recorded(0)
    conditions = measure_conditions([late], UNKNOWN, RELATIVE)
    moved = conditions.in_time(late.voxels)
    assert torch.equal(moved[:, :-3], in_time.voxels[:, :-3])
    assert torch.equal(moved[:, -3:], late.voxels[:, -1:].expand(-1, 3, -1, -1))
    expected = normalize_counts(moved, late.samples, conditions.gain, RELATIVE)
    assert torch.equal(network_inputs(late, conditions, RELATIVE)[1], expected)


def test_voxels_with_log1p_taken_stay_as_they_are():
    windows = recorded()
    done = windows._replace(voxels=windows.voxels.float().log1p())
    assert network_inputs(done, None, NormConfig())[1] is done.voxels


def test_frames_are_given_alike_as_bytes_and_as_floats():
    windows = recorded(2)
    floats = windows._replace(blur=windows.blur.float() / 255)
    for one, other in zip(
        *(
            network_inputs(w, measure_conditions([w], UNKNOWN, RELATIVE), RELATIVE)
            for w in (windows, floats)
        ),
        strict=True,
    ):
        assert torch.equal(one, other)
