from __future__ import annotations

import pytest
import torch

from spikedeblur.model import delay, lag

BINS, SIDE = 32, 32


def recorded(late: int, *, gain: float = 4.0, still: bool = False, speed: float = 0.4):
    """Return counts (T, K, h, w) of a wave that moves, `late` bins late, and its blurred frames."""
    t = torch.arange(-BINS, 4 * BINS)[:, None, None].float()
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    light = 0.5 + 0.4 * torch.sin((x - speed * (not still) * t) / 7 + 0.2 * y)
    counts, blurs = [], []
    for window in range(3):
        start = BINS + window * BINS
        counts.append(gain * light[start - late : start - late + BINS])
        blurs.append(light[start : start + BINS].mean(0))
    blur = torch.stack(blurs)[:, None].expand(3, 3, SIDE, SIDE)
    return torch.stack(counts), blur.repeat_interleave(2, 2).repeat_interleave(2, 3)


def bins_late(counts: torch.Tensor, blur: torch.Tensor) -> torch.Tensor:
    return lag.lag_of_planes(lag.lag_planes(counts, blur)) * counts.shape[-3]


@pytest.mark.parametrize("late", [-5, -3, -1, 0, 1, 2, 5])
@pytest.mark.parametrize("gain", [4.0, 0.5])
def test_the_lag_is_told_by_the_blurred_frames(late, gain):
    counts, blur = recorded(late, gain=gain)
    assert bins_late(counts, blur).item() == pytest.approx(late, abs=0.5)


def test_fast_motion_understates_the_lag_until_it_is_found_again(monkeypatch):
    counts, blur = recorded(4, speed=1.0)
    found = bins_late(counts, blur).item()
    monkeypatch.setattr(lag, "_REPEATS", 0)
    once = bins_late(counts, blur).item()
    assert round(once) == 3
    assert round(found) == 4


def test_clips_have_a_lag_each():
    pairs = [recorded(late) for late in (3, 0, -2)]
    counts, blur = (torch.stack(x) for x in zip(*pairs, strict=True))
    lags = bins_late(counts, blur)
    assert lags.shape == (3,)
    assert lags.round().tolist() == [3, 0, -2]


def test_nothing_that_moves_and_no_likeness_are_no_lag():
    counts, blur = recorded(3, still=True)
    assert bins_late(counts, blur).item() == 0
    torch.manual_seed(0)
    assert bins_late(counts + torch.rand_like(counts), torch.rand_like(blur)).item() == 0
    assert bins_late(torch.zeros_like(counts), blur).item() == 0
    assert bins_late(counts, torch.zeros_like(blur)).item() == 0


def test_delay_repeats_the_bins_at_the_ends():
    counts = torch.arange(4)[None, None, :, None, None].expand(2, 1, 4, 1, 1)
    moved = delay(counts, torch.tensor([[1], [-2]]))
    assert moved.flatten(1).tolist() == [[0, 0, 1, 2], [2, 3, 3, 3]]
