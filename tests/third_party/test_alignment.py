from __future__ import annotations

import pytest
import torch

from spikedeblur.third_party.VRT import warping
from spikedeblur.third_party.VRT.spynet import SpyNet
from spikedeblur.third_party.VRT.warping import (
    DeformableAlignment,
    warp,
    warp_nearest4,
    with_both_neighbours,
)


def constant_flow(x: float, y: float, height: int = 6, width: int = 7) -> torch.Tensor:
    return torch.tensor([x, y], dtype=torch.float64).view(1, 2, 1, 1).expand(1, 2, height, width)


@pytest.fixture
def image() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, 2, 6, 7, generator=generator, dtype=torch.float64)


def test_warping_reads_at_position_plus_flow_and_zeros_outside(image):
    moved = warp(image, constant_flow(2, -1))
    torch.testing.assert_close(moved[..., 1:, :-2], image[..., :-1, 2:])
    for outside in (moved[..., 0, :], moved[..., -2:]):
        torch.testing.assert_close(outside, torch.zeros_like(outside))


def test_warping_between_pixels_is_linear(image):
    moved = warp(image, constant_flow(0.25, 0))
    torch.testing.assert_close(moved[..., :-1], 0.75 * image[..., :-1] + 0.25 * image[..., 1:])


def test_nearest_variants_come_in_the_stated_order(image):
    moved = warp_nearest4(image, image, constant_flow(0.5, 1.5))
    corners = [(0, 1), (0, 2), (1, 1), (1, 2)]  # whole (x, y): floor or ceil of each axis
    for variant, (x, y) in enumerate(corners):
        part = moved[:, 2 * variant : 2 * variant + 2]
        assert torch.equal(part[..., : 6 - y, : 7 - x], image[..., y:, x:])
        assert not part[..., 6 - y :, :].any()


@pytest.mark.parametrize("wild", [float("nan"), float("inf"), -1e30])
def test_a_wild_flow_reads_zeros(image, wild):
    assert not warp_nearest4(image, image, constant_flow(wild, 0)).any()


def test_neighbours_stand_beside_their_frame_and_zeros_at_the_ends():
    x = torch.arange(1.0, 4).view(1, 3, 1, 1, 1)
    flows = torch.zeros(1, 2, 2, 1, 1)
    beside = with_both_neighbours(x, flows, flows, lambda neighbour, *_: 10 * neighbour, width=1)
    assert beside.flatten(2).tolist() == [[[1, 20, 0], [2, 30, 10], [3, 0, 20]]]


def test_a_single_frame_has_no_neighbours():
    x = torch.ones(1, 1, 2, 3, 3)
    flows = torch.zeros(1, 0, 2, 3, 3)
    beside = with_both_neighbours(x, flows, flows, warp_nearest4, width=8)
    assert beside.shape == (1, 1, 18, 3, 3)
    assert torch.equal(beside[:, :, :2], x)
    assert not beside[:, :, 2:].any()


def test_alignment_starts_as_a_convolution_moved_by_the_flow(image):
    """With zero offsets and masks of one half."""
    align = DeformableAlignment(2, groups=1, reach=10).double()
    torch.nn.init.normal_(align.bias)
    moved = align(image, image, constant_flow(2, 1))
    plain = torch.nn.functional.conv2d(image, align.weight / 2, align.bias, padding=1)
    torch.testing.assert_close(moved[..., 1:-2, 1:-3], plain[..., 2:-1, 3:-1])


@pytest.mark.parametrize("size", [(1, 1), (7, 32), (33, 40), (64, 100)])
def test_flow_has_four_scales_at_any_size(size):
    net = SpyNet()
    image = torch.rand(2, 3, *size)
    flows = net(image, image)
    expected = [(2, 2, max(size[0] >> s, 1), max(size[1] >> s, 1)) for s in range(4)]
    assert [tuple(flow.shape) for flow in flows] == expected
    assert not any(flow.any() for flow in flows), "an untrained SpyNet starts with zero flow"


def test_scaled_flow_is_in_pixels_of_its_scale():
    """A constant update of the finest level given out at 1/8 shows the doubling of finer ones."""
    net = SpyNet()
    with torch.no_grad():
        net.basic_module[2].basic_module[-1].bias.copy_(torch.tensor([1.0, -2.0]))
    flows = net(torch.rand(1, 3, 48, 64), torch.rand(1, 3, 48, 64))
    for scale, flow in enumerate(flows):
        # 48 rows are worked on as 64, so a pixel of them is 3/4 as long
        expected = torch.tensor([1.0, -2.0 * 0.75]).view(1, 2, 1, 1) * 2 ** (3 - scale)
        torch.testing.assert_close(flow, expected.expand_as(flow))


def test_pairs_taken_a_few_at_a_time_align_alike(monkeypatch):
    torch.manual_seed(0)
    align = DeformableAlignment(8, groups=2, reach=10.0).double()
    for parameter in align.conv_offset[-1].parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    pairs = [torch.rand(5, n, 9, 7, dtype=torch.float64) for n in (8, 8, 2)]
    together = align(*pairs)
    grads = torch.autograd.grad(together.square().sum(), list(align.parameters()))
    monkeypatch.setattr(warping, "OFFSET_BYTES", (2 * 27 * 2 * 9 * 7 * 8, 0))  # two pairs
    apart = align(*pairs)
    torch.testing.assert_close(apart, together)
    others = torch.autograd.grad(apart.square().sum(), list(align.parameters()))
    for one, other in zip(grads, others, strict=True):
        torch.testing.assert_close(one, other)
