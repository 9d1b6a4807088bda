"""Tiles by free memory."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from spikedeblur.configs.schema import Config
from spikedeblur.pipeline.host import device_memory as memory
from spikedeblur.pipeline.host.allocator import keep_freed_memory, keep_share_of_freed_memory
from spikedeblur.pipeline.host.device_memory import memory_taken
from spikedeblur.pipeline.methods import tiling as tile_memory

BYTES_A_PIXEL = 8000


class Hungry(nn.Module):
    """Takes a known number of bytes for each pixel of a clip."""

    def forward(self, rgb: torch.Tensor, voxels: torch.Tensor) -> torch.Tensor:
        assert rgb.shape[1:3] == (5, 3)
        assert voxels.shape[-1] == rgb.shape[-1]
        held = torch.ones(rgb.shape[-2] * rgb.shape[-1], BYTES_A_PIXEL, dtype=torch.uint8)
        return rgb + held[0, 0]


def chosen(monkeypatch: pytest.MonkeyPatch, free: float, shape: tuple[int, int]) -> int | None:
    monkeypatch.setattr(tile_memory, "free_memory", lambda device: int(free))
    return tile_memory.choose_tile(Hungry(), Config(), shape, torch.device("cpu"), 5)


@pytest.mark.parametrize(
    ("pixels", "side"),
    [(600 * 600, None), (500 * 500, 256), (256 * 256 - 9000, 192), (145 * 145, 128), (9, 64)],
)
def test_the_largest_that_fits_in_half_of_free_memory(monkeypatch, pixels, side) -> None:
    assert chosen(monkeypatch, 2 * BYTES_A_PIXEL * pixels, (512, 512)) == side


def test_frames_of_hd_are_never_whole_on_a_cpu(monkeypatch) -> None:
    assert chosen(monkeypatch, 1e15, (720, 1280)) == 256


def test_small_frames_need_no_trial(monkeypatch) -> None:
    assert chosen(monkeypatch, 0, (128, 128)) is None


def test_memory_taken_is_the_peak_and_not_what_is_left() -> None:
    device = torch.device("cpu")
    taken = memory_taken(lambda: float(torch.ones(75_000_000).sum()), device)
    assert taken == pytest.approx(300e6, rel=0.1)


def test_memory_taken_is_watched_where_linux_does_not_tell_the_peak(monkeypatch) -> None:
    def held_for_a_while() -> None:
        held = torch.ones(75_000_000)
        time.sleep(0.3)
        del held

    monkeypatch.setattr(memory, "_forget_peak", lambda: False)
    taken = memory_taken(held_for_a_while, torch.device("cpu"))
    assert taken == pytest.approx(300e6, rel=0.1)


def test_memory_taken_again_after_it_was_freed_counts() -> None:
    keep_freed_memory()
    try:
        held = [torch.ones(6_000_000) for _ in range(8)]
        del held
        taken = memory_taken(lambda: [torch.ones(6_000_000) for _ in range(8)], torch.device("cpu"))
    finally:
        keep_share_of_freed_memory(1)
    assert taken == pytest.approx(8 * 24e6, rel=0.15)
