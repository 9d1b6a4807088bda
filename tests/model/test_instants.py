"""Frames at other instants of an exposure than its middle."""

from __future__ import annotations

import pytest
import torch
from moving_texture import BINS, SIDE, inside, moving

from spikedeblur.model.instants import at_instant

TINT = torch.tensor([0.9, 0.3, 0.2])[:, None, None], torch.tensor([0.2, 0.3, 0.8])[:, None, None]


def relative(light: torch.Tensor) -> torch.Tensor:
    """Return voxels of luminance (1, K, H, W) that change a little: without spikes, none would."""
    mean = light.mean(1, keepdim=True)
    few = 1e-3 * torch.randn(light.shape, generator=torch.Generator().manual_seed(0))
    return (light - mean) / (mean + 0.05) + few


def error(found: torch.Tensor, sharp: torch.Tensor) -> float:
    return float(inside(found - sharp).square().mean().sqrt())


@pytest.mark.parametrize("bin_number", [1, 8, BINS - 2])
def test_a_frame_moves_on_as_the_scene_did(bin_number: int) -> None:
    light, middle = moving((9.0, -5.0))
    sharp, blur = middle.expand(3, SIDE, SIDE)[None], light.mean(1, keepdim=True)
    blur = blur.expand(1, 3, SIDE, SIDE)
    there = light[:, bin_number].expand(3, SIDE, SIDE)[None]
    time = (bin_number + 0.5) / BINS - 0.5
    found = at_instant(sharp, blur, relative(light), time)
    assert error(found, there) < 0.15 * error(sharp, there)
    assert error(found, there) < 0.2 * error(blur, there)


def test_the_middle_is_an_instant_like_any_other() -> None:
    light, middle = moving((9.0, -5.0))
    sharp, blur = middle.expand(3, SIDE, SIDE)[None], light.mean(1, keepdim=True)
    found = at_instant(sharp, blur.expand_as(sharp), relative(light), 0.0)
    torch.testing.assert_close(found, sharp, atol=0.02, rtol=0)


def test_what_was_hidden_in_the_middle_has_the_light_that_spikes_saw() -> None:
    """A red square crosses a still, blue texture."""
    texture, _ = moving((0.0, 0.0))
    at = torch.arange(SIDE) + 0.5 - SIDE / 2
    y, x = torch.meshgrid(at, at, indexing="ij")
    frames = []
    for k in range(BINS):
        time = (k + 0.5) / BINS - 0.5
        square = (((x - 24 * time).abs() < 12) & (y.abs() < 12)).float()
        frames.append(square * TINT[0] + (1 - square) * texture[0, k] * TINT[1])
    seen = torch.stack(frames)  # (K, 3, H, W)
    light = torch.einsum("kchw,c->khw", seen, torch.tensor([0.299, 0.587, 0.114]))[None]
    middle, blur = seen[BINS // 2 - 1 : BINS // 2 + 1].mean(0)[None], seen.mean(0)[None]
    last = BINS - 2
    found = at_instant(middle, blur, relative(light), (last + 0.5) / BINS - 0.5)
    uncovered = (x > -11) & (x < -3) & (y.abs() < 10)  # of the last bin, hidden in the middle
    wrong = (found[0] - seen[last]).abs()
    assert wrong[:, uncovered].mean() < 0.4 * (middle[0] - seen[last]).abs()[:, uncovered].mean()


def test_a_still_frame_stays_as_it_is() -> None:
    light, middle = moving((0.0, 0.0))
    sharp = middle.expand(3, SIDE, SIDE)[None]
    found = at_instant(sharp, sharp, relative(light), -0.4)
    torch.testing.assert_close(found, sharp, atol=2e-3, rtol=0)
