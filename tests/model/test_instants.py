"""Frames at other instants of an exposure than its middle."""

from __future__ import annotations

import pytest
import torch
from moving_texture import BINS, SIDE, inside, moving

from spikedeblur.configs import load_config
from spikedeblur.model import build_model
from spikedeblur.model.corrections import gray
from spikedeblur.model.instants import about_instant, moved_to
from spikedeblur.model.motion_deblur import MAPS, sharp_along_motion
from spikedeblur.model.normalize import DARK

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
    found, _ = moved_to(sharp, None, blur, relative(light), time)
    assert error(found, there) < 0.15 * error(sharp, there)
    assert error(found, there) < 0.2 * error(blur, there)


def test_the_middle_is_an_instant_like_any_other() -> None:
    light, middle = moving((9.0, -5.0))
    sharp, blur = middle.expand(3, SIDE, SIDE)[None], light.mean(1, keepdim=True)
    found, _ = moved_to(sharp, None, blur.expand_as(sharp), relative(light), 0.0)
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
    found, _ = moved_to(middle, None, blur, relative(light), (last + 0.5) / BINS - 0.5)
    uncovered = (x > -11) & (x < -3) & (y.abs() < 10)  # of the last bin, hidden in the middle
    wrong = (found[0] - seen[last]).abs()
    assert wrong[:, uncovered].mean() < 0.4 * (middle[0] - seen[last]).abs()[:, uncovered].mean()


def test_a_still_frame_stays_as_it_is() -> None:
    light, middle = moving((0.0, 0.0))
    sharp = middle.expand(3, SIDE, SIDE)[None]
    found, _ = moved_to(sharp, None, sharp, relative(light), -0.4)
    torch.testing.assert_close(found, sharp, atol=2e-3, rtol=0)


@pytest.mark.parametrize("bin_number", [1, 8, BINS - 2])
def test_maps_move_with_their_points_and_stay_relative_to_the_blurred_frame(bin_number) -> None:
    light, _ = moving((9.0, -5.0))
    blur = light.mean(1, keepdim=True).expand(1, 3, SIDE, SIDE)
    voxels, time = relative(light), (bin_number + 0.5) / BINS - 0.5
    sharp, maps = sharp_along_motion(blur, voxels)
    frame, moved = moved_to(sharp, maps, blur, voxels, time)
    assert moved is not None
    assert moved.shape == maps.shape == (1, MAPS, SIDE, SIDE)
    assert torch.equal(frame, moved_to(sharp, None, blur, voxels, time)[0])
    there, seen = light[:, bin_number : bin_number + 1], gray(blur)

    def along(found: torch.Tensor) -> torch.Tensor:
        return found[:, :1] * (seen + DARK) + seen

    assert error(along(moved), there) < 0.3 * error(along(maps), there)
    hidden = 3
    assert inside(moved[:, hidden]).mean() < 0.1
    # What came in since the middle is unsure: it moves to the right and up.
    edge = (moved[:, hidden, :, :2] if time > 0 else moved[:, hidden, :, -2:]).mean()
    assert edge > 0.8 * min(1, abs(9 * time) / 2)


def test_voxels_about_an_instant_have_it_in_their_middle() -> None:
    voxels = torch.arange(8.0)[:, None, None].expand(2, 8, 3, 3)
    for time, expected in (
        (0.0, [0, 1, 2, 3, 4, 5, 6, 7]),
        (0.25, [2, 3, 4, 5, 6, 7, 7, 7]),
        (-0.3, [0, 0, 0, 1, 2, 3, 4, 5]),
        (0.5, [4, 5, 6, 7, 7, 7, 7, 7]),
    ):
        found = about_instant(voxels, time)
        assert found.shape == voxels.shape
        assert found[1, :, 0, 2].tolist() == expected


def test_each_clip_of_a_batch_is_of_its_own_instant() -> None:
    model = build_model(load_config("configs/deblur/quickstart.yaml"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    light, _ = moving((6.0, 3.0))
    blur = light.mean(1, keepdim=True).expand(1, 3, SIDE, SIDE)
    voxels = relative(light)[..., ::2, ::2]
    clips = [x[None].expand(3, 2, *x.shape[1:]) for x in (blur[0][None], voxels[0][None])]
    model.eval()
    with torch.no_grad():
        together = model(*clips, instants=[0.3, 0.0, -0.3])
        for clip, time in enumerate((0.3, 0.0, -0.3)):
            alone = model(*(x[:1] for x in clips), instants=[time] if time else ())
            torch.testing.assert_close(together[clip], alone[0], atol=1e-5, rtol=0)
    for clip in (0, 2):
        assert (together[clip] - together[1]).abs().mean() > 0.01
