from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from moving_texture import BINS, SIDE, inside, moving
from numpy.polynomial.legendre import legval

from spikedeblur.model import spike_motion
from spikedeblur.model.paths import DEGREE, bin_times, shifts, speed
from spikedeblur.model.spike_motion import (
    GROUPS,
    INTEGRALS,
    along_motion,
    grouped,
    motion,
    visibility,
    weights_at,
)


def path_points(paths: torch.Tensor, times: list[float]) -> torch.Tensor:
    """Where paths (1, DEGREE, 2, h, w) are at times, less where they are in the middle."""
    return shifts(paths, times)[0]


@pytest.mark.parametrize("velocity", [(0.0, 0.0), (4.0, -2.0), (-9.0, 5.0), (0.5, 12.0)])
def test_motion_is_found(velocity):
    light, _ = moving(velocity)
    found = path_points(motion(light)[0], [-0.5, 0.5])
    for time, moved in zip((-0.5, 0.5), found, strict=True):
        expected = time * torch.tensor(velocity)[:, None, None]
        assert inside(moved - expected).norm(dim=0).median() < 0.2


def test_acceleration_is_found():
    light, _ = moving((3.0, 0.0), (-4.0, 4.0))
    before, after = path_points(motion(light)[0], [-0.5, 0.5])
    expected_before, expected_after = torch.tensor([-2.5, 1.0]), torch.tensor([0.5, 1.0])
    assert (inside(before).flatten(1).median(1).values - expected_before).abs().max() < 0.3
    assert (inside(after).flatten(1).median(1).values - expected_after).abs().max() < 0.3


def test_paths_begin_in_the_middle_and_follow_legendre_polynomials():
    paths = torch.zeros(1, DEGREE, 2, 1, 1)
    paths[0, :, 0, 0, 0] = torch.tensor([1.0, 2.0, -1.0, 0.5])
    times = [-0.5, -0.2, 0.0, 0.4]
    x = 2 * torch.tensor(times, dtype=torch.float64)
    values = torch.from_numpy(np.asarray(legval(x.numpy(), [0, 1.0, 2.0, -1.0, 0.5])))
    expected = values - legval(0.0, [0, 1.0, 2.0, -1.0, 0.5])
    found = shifts(paths, times)[0, :, 0, 0, 0]
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=0)
    assert found[2] == 0


def test_speed_is_the_root_mean_square_along_the_path():
    paths = torch.zeros(1, DEGREE, 2, 1, 1)
    paths[0, 0, :, 0, 0] = torch.tensor([3.0, 4.0])  # P_1(2 t) = 2 t
    torch.testing.assert_close(speed(paths), torch.full((1, 1, 1, 1), 10.0))


def crossing(half: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Light (1, K, h, w) of a bright square that crosses a still texture, and its mask."""
    light, _ = moving((0.0, 0.0))
    at = torch.arange(SIDE) + 0.5 - SIDE / 2
    y, x = torch.meshgrid(at, at, indexing="ij")
    square = torch.stack(
        [((x - 24 * time).abs() < half) & (y.abs() < half) for time in bin_times(BINS)]
    )
    return torch.where(square, light + 0.6, light[:, :1]), square


def test_what_is_hidden_for_a_while_is_seen_to_be():
    light, square = crossing()
    still = torch.zeros(1, DEGREE, 2, SIDE, SIDE)
    visible = visibility(light, still)[0][0]
    covered = square.unflatten(0, (len(visible), -1)).float().mean(1)  # share of each group
    behind = ~square[BINS // 2 - 1 : BINS // 2 + 1].any(0)  # background in the middle
    assert visible[:, behind][covered[:, behind] == 1].mean() < 0.05
    never = F.max_pool2d(square.any(0)[None].float(), 5, 1, 2)[0] == 0
    assert visible[:, never].min() > 0.95


def test_weights_between_groups_are_linear():
    visible = torch.tensor([0.0, 1.0, 1.0, 0.0])[None, :, None, None]
    found = weights_at(visible, [-0.5, -0.375, -0.25, 0.0, 0.5]).flatten()
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, 0.5, 1.0, 0.0]))


def test_paths_are_taken_from_pixels_that_move_alike():
    light, square = crossing()
    wrong = torch.zeros(1, DEGREE, 2, SIDE, SIDE)
    wrong[:, 0, 0, :, 16:48] = 12.0  # 24 pixels an exposure: right on the square only
    found = spike_motion._best_of_neighbours(grouped(light, GROUPS), wrong)
    far = shifts(found, [0.5])[0, 0, 0]
    assert far[square[BINS // 2]].median() == 12
    assert far[:16, 20:44].median() == 0


def along_its_motion(light: torch.Tensor, scale: int) -> torch.Tensor:
    paths = motion(light)[0]
    return along_motion(light, paths, scale, visibility(light, paths)[0])


@pytest.mark.parametrize("scale", [1, 2])
def test_light_summed_along_its_motion_is_sharp(scale):
    light, _ = moving((8.0, 5.0))
    _, sharp = moving((8.0, 5.0), scale=scale)
    whole, middle, deviation = along_its_motion(light, scale)[0]
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
    whole, middle, deviation = along_its_motion(noisy, 1)[0]
    short = noisy[0, 14:18].mean(0)
    errors = [float(inside(x - sharp).square().mean().sqrt()) for x in (short, middle, whole)]
    assert errors[2] < errors[1] < errors[0]
    # Between four parts of 8 bins; interpolation and visibility take away a part.
    assert 0.12 < inside(deviation).mean() * 8**0.5 < 0.3


def test_where_nothing_is_seen_nothing_moves():
    dark = torch.zeros(2, BINS, 16, 24)
    assert motion(dark)[0].abs().max() == 0
    integrals = along_its_motion(dark, 2)
    assert integrals.shape == (2, INTEGRALS, 32, 48)
    assert integrals.abs().max() == 0


def test_windows_of_a_batch_are_independent():
    torch.manual_seed(0)
    light = torch.rand(3, 12, 16, 16)  # bins that do not divide into the usual groups
    together = along_its_motion(light, 2)
    for i in range(3):
        # Deviations are roots of small differences, which the order of sums changes.
        alone = along_its_motion(light[i : i + 1], 2)[0]
        torch.testing.assert_close(alone, together[i], atol=5e-5, rtol=1e-5)
