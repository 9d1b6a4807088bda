"""Light of clipped and black frames, from spikes: against pictures whose light is known."""

import math

import pytest
import torch
import torch.nn.functional as F

from spikedeblur.model.beyond_range import filled, within_range
from spikedeblur.model.normalize import luminance

BRIGHTEST = 253.5 / 255
ENDS = 0.5 / 255, BRIGHTEST
GAIN = 0.3


def lamp(most: float, colour: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> torch.Tensor:
    """Return (1, 3, 64, 96): a smooth wall of many brightnesses, and a round lamp."""
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(96.0), indexing="ij")
    wall = 0.35 + 0.25 * torch.sin(rows / 9) * torch.cos(columns / 7)
    round_ = torch.exp(-((rows - 30) ** 2 + (columns - 40) ** 2) / (2 * 9.0**2))
    tint = torch.tensor(colour)[:, None, None]
    return (
        (1 - round_) * wall * torch.tensor([1.0, 0.9, 0.8])[:, None, None] + round_ * most * tint
    )[None]


def rate_of(light: torch.Tensor) -> torch.Tensor:
    """Return spikes a sample (1, 1, 32, 48) of light (1, 3, 64, 96)."""
    return GAIN * F.avg_pool2d(luminance(light)[:, None], 2)


def codes(light: torch.Tensor) -> torch.Tensor:
    """Return 8-bit codes of light, as a camera shows them."""
    return (light.clamp(0, 1) * 255).round() / 255


def decibel(found: torch.Tensor, truth: torch.Tensor, inside: torch.Tensor) -> float:
    """Return PSNR inside, with the true maximum as peak."""
    error = (found - truth).square()[inside].mean()
    return 10 * math.log10(truth[inside].max() ** 2 / max(error.item(), 1e-12))


@pytest.mark.parametrize("colour", [(1.0, 1.0, 1.0), (1.0, 0.8, 0.5), (1.0, 0.3, 0.2)])
def test_a_clipped_lamp_has_the_light_that_spikes_saw(colour: tuple[float, float, float]) -> None:
    light = lamp(3.0, colour)
    blur = codes(light)
    inside = (blur >= BRIGHTEST).any(1, keepdim=True).expand_as(blur)
    found = filled(blur, rate_of(light), torch.zeros(1, 1, 32, 48), ENDS)
    assert decibel(found, light, inside) > decibel(blur, light, inside) + 6


def test_a_frame_within_its_range_is_returned_as_it_is() -> None:
    light = lamp(0.9)
    blur = codes(light).clamp(min=2 / 255)
    assert filled(blur, rate_of(3 * light), torch.zeros(1, 1, 32, 48), ENDS) is blur


def test_what_is_within_the_range_keeps_its_bits() -> None:
    light = lamp(3.0, (1.0, 0.4, 0.3))
    blur = codes(light)
    found = filled(blur, rate_of(light), torch.zeros(1, 1, 32, 48), ENDS)
    kept = blur < BRIGHTEST
    assert not kept.all()
    assert torch.equal(found[kept], blur[kept])


def test_a_frame_that_is_truly_white_stays_so() -> None:
    light = lamp(3.0).clamp(max=1)  # its spikes say 1, too
    blur = codes(light)
    noisy = rate_of(light) * (
        1 + 0.02 * torch.randn(1, 1, 32, 48, generator=torch.Generator().manual_seed(0))
    )
    found = filled(blur, noisy, torch.zeros(1, 1, 32, 48), ENDS)
    assert (found - blur).abs().max() < 0.03


def test_pixels_that_fire_in_every_sample_do_not_tell_how_bright_a_frame_is() -> None:
    light = lamp(3.0)
    rate = rate_of(light)
    broken = torch.zeros(1, 1, 32, 48)
    broken[..., 20:] = 1  # half of them
    found = filled(codes(light), torch.where(broken > 0, 1.0, rate), broken, ENDS)
    whole = filled(codes(light), rate, torch.zeros_like(broken), ENDS)
    assert (found - whole)[..., :38].abs().max() < 0.05


def test_black_is_filled_where_spikes_count_and_stays_black_where_they_do_not() -> None:
    light = lamp(0.9)
    light[..., :20] = 0.15
    light[..., 76:] = 0.0
    blur = codes(light)
    blur[..., :20] = 0.0  # a camera that shows no shadows
    found = filled(blur, rate_of(light), torch.zeros(1, 1, 32, 48), ENDS)
    assert (found[..., 2:16] - 0.15).abs().max() < 0.05
    assert found[..., 80:].max() < 0.01
    assert torch.equal(found[..., 20:76], blur[..., 20:76])


def test_a_frame_without_light_to_compare_is_returned_as_it_is() -> None:
    blur = torch.ones(1, 3, 64, 96)
    assert filled(blur, torch.ones(1, 1, 32, 48), torch.zeros(1, 1, 32, 48), ENDS) is blur


def test_restored_light_ends_at_white_unless_the_frame_is_filled() -> None:
    sharp = torch.full((1, 3, 64, 96), 1.7)
    still = F.avg_pool2d(luminance(lamp(3.0))[:, None], 2).expand(-1, 32, -1, -1)
    assert within_range(sharp, codes(lamp(3.0)), still).max() == 1
    assert within_range(sharp, lamp(3.0), still).max() == pytest.approx(1.7)
    assert within_range(sharp, lamp(3.0), still)[..., -8:].max() == 1


def test_what_passes_by_may_be_brighter_than_its_blur() -> None:
    sharp, blur = torch.full((1, 3, 64, 96), 3.0), codes(lamp(0.9))
    blur[..., 20:40, 30:50] = 1.1
    still = F.avg_pool2d(luminance(blur)[:, None], 2).expand(-1, 32, -1, -1)
    passing = still.clone()
    passing[:, 8:12, 10:20, 15:25] *= 3
    assert within_range(sharp, blur, still).max() == pytest.approx(1.1)
    assert within_range(sharp, blur, passing)[..., 24:36, 34:46].min() > 2
    assert within_range(sharp, codes(blur), passing).max() == 1
