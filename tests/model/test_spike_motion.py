from __future__ import annotations

import pytest
import torch
from moving_texture import BINS, inside, moving

from spikedeblur.model.spike_motion import INTEGRALS, along_motion, motion


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
    # Between four parts of 8 bins; interpolation takes away a part.
    assert 0.15 < inside(deviation).mean() * 8**0.5 < 0.3


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
