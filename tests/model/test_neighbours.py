"""Neighbouring exposures of a texture in closed form, whose motion turns between exposures."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from moving_texture import BINS, SIDE, inside

from spikedeblur.model.motion_deblur import sharp_along_motion
from spikedeblur.model.neighbours import (
    INSTANTS,
    Motion,
    Near,
    Neighbour,
    Step,
    light_in,
    motion_in,
    ways_into,
)
from spikedeblur.model.paths import DEGREE, bin_times

SPEED = 16.0
"""Pixels an exposure: to the right in the own one, downwards before and after it."""

NOISE = 0.15
"""Deviation of the noise in each bin's light, relative to it."""


def texture(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return light at positions in pixels: waves of 4 to 40 pixels in all directions."""
    light = torch.full_like(x, 0.5)
    generator = torch.Generator().manual_seed(0)
    for length in (4, 4.5, 5, 5.5, 6, 6.5, 7, 8, 9, 11, 13, 19, 30, 40):
        angle, phase = (torch.rand(2, generator=generator) * 2 * math.pi).tolist()
        light = light + 0.035 * torch.sin(
            2 * math.pi / length * (x * math.cos(angle) + y * math.sin(angle)) + phase
        )
    return light


def place(time: float) -> tuple[float, float]:
    """Return where the texture is, in pixels; time in exposures since the own middle."""
    within = min(max(time, -0.5), 0.5)
    return SPEED * within, SPEED * (time - within)


def seen_about(middle: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the blurred frame and relative voxels of an exposure."""
    at = torch.arange(SIDE) + 0.5
    y, x = torch.meshgrid(at, at, indexing="ij")
    planes = []
    for time in bin_times(BINS):
        right, down = place(middle + time)
        planes.append(texture(x - right, y - down))
    light = 0.9 * torch.stack(planes)[None]
    coarse = F.avg_pool2d(light, 2)
    mean = coarse.mean(1, keepdim=True)
    noise = torch.randn(coarse.shape, generator=torch.Generator().manual_seed(round(middle) + 1))
    voxels = (coarse - mean) / (mean + 0.05) + NOISE * noise
    return light.mean(1, keepdim=True).expand(1, 3, SIDE, SIDE), voxels


def sharp() -> torch.Tensor:
    at = torch.arange(SIDE) + 0.5
    y, x = torch.meshgrid(at, at, indexing="ij")
    return 0.9 * texture(x, y)


def straight(right: float, down: float) -> torch.Tensor:
    """Paths at the spikes' size, of a velocity in frames' pixels an exposure."""
    paths = torch.zeros(1, DEGREE, 2, SIDE // 2, SIDE // 2)
    paths[:, 0] = torch.tensor([right, down])[:, None, None] / 4
    return paths


def own_motion() -> Motion:
    paths = straight(SPEED, 0)
    return Motion(paths, torch.zeros_like(paths[:, :, 0]))


def neighbour(side: int, right: float = 0.0, down: float = 0.0) -> Neighbour:
    """Return the next exposure, or with -1 the one before, and a way that is beside the truth."""
    blur, voxels = seen_about(side)
    steps = (
        Step(straight(SPEED + 2 * side * right, 2 * side * down), side / 2),
        Step(straight(0, SPEED), side / 2),
    )
    return Neighbour(blur, 1.0, light_in(blur, voxels), straight(0, SPEED), steps)


def psnr(found: torch.Tensor) -> float:
    return float(-10 * inside(found - sharp(), 16).square().mean().log10())


def restored(*neighbours: Neighbour) -> float:
    return psnr(sharp_along_motion(*seen_about(0), Near(own_motion(), neighbours))[0])


def test_a_neighbour_that_turns_adds_detail():
    alone, after, both = restored(), restored(neighbour(1)), restored(neighbour(-1), neighbour(1))
    print(f"alone {alone:.2f} dB, one {after:.2f}, both {both:.2f}")
    assert after > alone + 0.6
    assert both > alone + 0.6


@pytest.mark.parametrize("side", [-1, 1])
def test_a_way_that_ends_beside_the_point_is_moved_to_it(side):
    mean = F.avg_pool2d(sharp()[None, None], 2)
    shift, seen = ways_into(neighbour(side, 1.5, -1.0), mean)
    true = torch.tensor([place(side + time) for time in bin_times(INSTANTS)]) / 2
    missed = (shift - true[None, :, :, None, None]).square().sum(2).sqrt()
    assert inside(missed, 6).mean() < 0.15
    assert inside(seen, 6).mean() > 0.9


def test_what_is_hidden_in_a_neighbour_is_not_seen_there():
    other = neighbour(1)
    light = other.light.clone()
    light[..., 14:28, 14:28] = 0.05  # something dark came before it
    _, seen = ways_into(replace(other, light=light), F.avg_pool2d(sharp()[None, None], 2))
    assert seen[..., 12:16, 12:16].mean() < 0.1
    assert seen[..., :6, :6].mean() > 0.8


def test_where_a_neighbour_is_clipped_it_takes_no_light_away():
    alone, brightest = restored(), 0.5
    clipped = [
        replace(other, blur=other.blur.clamp(max=brightest), brightest=brightest)
        for other in (neighbour(-1), neighbour(1))
    ]
    assert restored(*clipped) > alone
    unknown = [replace(other, brightest=1.0) for other in clipped]
    assert restored(*clipped) > restored(*unknown) + 0.5


def test_without_neighbours_nothing_changes():
    blur, voxels = seen_about(0)
    alone, maps = sharp_along_motion(blur, voxels)
    found, same = sharp_along_motion(blur, voxels, Near(motion_in(light_in(blur, voxels)), ()))
    assert torch.equal(found, alone)
    assert torch.equal(same, maps)
