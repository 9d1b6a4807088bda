from __future__ import annotations

import math

import pytest
import torch

from spikedeblur.model import spike_motion
from spikedeblur.model.spike_motion import (
    INTEGRALS,
    along_motion,
    bin_times,
    motion,
    sharp_along_motion,
)

SIDE, BINS = 64, 32


def texture(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return light at positions in pixels: a few waves of 6 to 30 pixels."""
    light = torch.full_like(x, 0.5)
    generator = torch.Generator().manual_seed(0)
    for length in (6, 9, 13, 19, 30, 40):
        angle, phase = (torch.rand(2, generator=generator) * 2 * math.pi).tolist()
        light = light + 0.06 * torch.sin(
            2 * math.pi / length * (x * math.cos(angle) + y * math.sin(angle)) + phase
        )
    return light


def moving(velocity: tuple[float, float], bend: tuple[float, float] = (0, 0), scale: int = 1):
    """Return light (1, K, h, w) of a texture that moves, and where pixels are at mid-exposure."""
    at = (torch.arange(SIDE * scale) + 0.5) / scale
    y, x = torch.meshgrid(at, at, indexing="ij")
    planes = [
        texture(x - velocity[0] * t - bend[0] * t * t, y - velocity[1] * t - bend[1] * t * t)
        for t in bin_times(BINS)
    ]
    return torch.stack(planes)[None], texture(x, y)


def inside(x: torch.Tensor, border: int = 10) -> torch.Tensor:
    return x[..., border:-border, border:-border]


@pytest.mark.parametrize("velocity", [(0.0, 0.0), (4.0, -2.0), (-9.0, 5.0), (0.5, 12.0)])
def test_motion_is_found(velocity):
    light, _ = moving(velocity)
    found, bend = motion(light)
    expected = torch.tensor(velocity)[:, None, None]
    error = inside(found[0] - expected).norm(dim=0)
    assert error.median() < 0.2
    assert inside(bend[0]).abs().median() < 0.4


def test_acceleration_is_found():
    light, _ = moving((3.0, 0.0), (-4.0, 4.0))
    velocity, bend = motion(light)
    assert inside(bend[0, 0]).median() == pytest.approx(-4, abs=1)
    assert inside(bend[0, 1]).median() == pytest.approx(4, abs=1)
    assert inside(velocity[0, 0]).median() == pytest.approx(3, abs=0.3)


@pytest.mark.parametrize("scale", [1, 2])
def test_light_summed_along_its_motion_is_sharp(scale):
    light, _ = moving((8.0, 5.0))
    _, sharp = moving((8.0, 5.0), scale=scale)
    whole, middle, deviation = along_motion(light, motion(light), scale)[0]
    still = light.mean(1)[0].repeat_interleave(scale, 0).repeat_interleave(scale, 1)

    def error(image: torch.Tensor) -> float:
        return float(inside(image - sharp, 12 * scale).square().mean().sqrt())

    assert error(whole) < 0.2 * error(still)
    assert error(middle) < 0.2 * error(still)
    assert inside(deviation, 12 * scale).mean() < 0.2 * light.std(1).mean()


def test_more_spikes_of_a_path_are_less_noise():
    light, sharp = moving((8.0, 0.0))
    torch.manual_seed(0)
    noisy = light + 0.3 * torch.randn_like(light)
    whole, middle, deviation = along_motion(noisy, motion(noisy), 1)[0]
    short = noisy[0, 14:18].mean(0)
    errors = [float(inside(x - sharp).square().mean().sqrt()) for x in (short, middle, whole)]
    assert errors[2] < errors[1] < errors[0]
    assert 0.15 < inside(deviation).mean() < 0.3  # interpolation takes away a part


def test_where_nothing_is_seen_nothing_moves():
    dark = torch.zeros(2, BINS, 16, 24)
    velocity, bend = motion(dark)
    assert velocity.abs().max() == 0
    assert bend.abs().max() == 0
    integrals = along_motion(dark, motion(dark), 2)
    assert integrals.shape == (2, INTEGRALS, 32, 48)
    assert integrals.abs().max() == 0


def test_windows_of_a_batch_are_independent():
    torch.manual_seed(0)
    light = torch.rand(3, 12, 16, 16)  # bins that do not divide into the usual groups
    together = along_motion(light, motion(light), 2)
    for i in range(3):
        torch.testing.assert_close(
            along_motion(light[i : i + 1], motion(light[i : i + 1]), 2)[0], together[i]
        )


def seen_by_both(velocity: tuple[float, float]):
    """Return a blurred coloured frame, relative voxels, and the sharp frame, of one texture."""
    light, sharp = moving(velocity)
    x = (torch.arange(SIDE) + 0.5) / SIDE
    tint = torch.stack([0.6 + 0.4 * x, torch.full_like(x, 0.8), 1.0 - 0.4 * x])[:, None]
    blur, mean = light.mean(1, keepdim=True) * tint, light.mean(1, keepdim=True)
    return blur, (light - mean) / (mean + 0.05), sharp * tint


def test_a_frame_is_sharp_along_its_motion():
    blur, voxels, sharp = seen_by_both((9.0, -5.0))
    found, maps = sharp_along_motion(blur, voxels)
    assert maps.shape == (1, INTEGRALS, SIDE, SIDE)

    def error(frame: torch.Tensor) -> float:
        return float(inside(frame - sharp).square().mean().sqrt())

    assert error(found) < 0.15 * error(blur)


def test_corrections_bring_the_frame_nearer(monkeypatch):
    blur, voxels, sharp = seen_by_both((9.0, -5.0))
    noise = torch.randn(voxels.shape, generator=torch.Generator().manual_seed(0))
    noisy = (voxels + 0.4 * noise).clamp(-3, 3)
    errors = []
    for corrections in (0, 2):
        monkeypatch.setattr(spike_motion, "CORRECTIONS", corrections)
        found, _ = sharp_along_motion(blur, noisy)
        errors.append(float(inside(found - sharp).square().mean()))
    assert errors[1] < 0.8 * errors[0]


def test_a_path_looked_at_too_coarsely_is_not_corrected(monkeypatch):
    blur, voxels, _ = seen_by_both((9.0, -5.0))
    far = torch.full((1, 2, SIDE, SIDE), 6 * spike_motion.INSTANTS / math.sqrt(2))
    monkeypatch.setattr(spike_motion, "motion", lambda light: (far, torch.zeros_like(far)))
    corrected, _ = sharp_along_motion(blur, voxels)
    monkeypatch.setattr(spike_motion, "CORRECTIONS", 0)
    divided, _ = sharp_along_motion(blur, voxels)
    torch.testing.assert_close(corrected, divided, atol=1e-4, rtol=0)


def test_what_leaves_the_picture_at_once_stays_as_it_is(monkeypatch):
    blur, voxels, _ = seen_by_both((0.0, 0.0))
    away = torch.full((1, 2, SIDE, SIDE), 1e4)
    monkeypatch.setattr(spike_motion, "motion", lambda light: (away, torch.zeros_like(away)))
    found, maps = sharp_along_motion(blur, voxels)
    torch.testing.assert_close(found, blur, atol=1e-4, rtol=0)
    assert maps.abs().max() < 3e-3


def test_a_still_frame_stays_as_it_is():
    blur, voxels, sharp = seen_by_both((0.0, 0.0))
    found, maps = sharp_along_motion(blur, voxels)
    torch.testing.assert_close(found[0], sharp, atol=1e-4, rtol=0)
    assert maps.abs().max() < 3e-3


def test_noise_alone_changes_a_still_frame_little():
    blur, _, sharp = seen_by_both((0.0, 0.0))
    noise = 0.5 * torch.randn(1, BINS, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    found, maps = sharp_along_motion(blur, noise - noise.mean(1, keepdim=True))
    assert (found[0] - sharp).abs().mean() < 0.5 * (maps[0, 0] * sharp).abs().mean()
