import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spikedeblur.model import (
    MultiScaleTemporalCrossAttnFuse,
    SpikeEncoder3D,
    SpikeTemporalSA,
    TemporalCrossAttnFuseBlock,
)
from spikedeblur.model.spike_encoder import Conv3d, ResidualBlock3D


def test_encoder_gives_four_scales():
    encoder = SpikeEncoder3D(in_bins=6, channels_per_scale=(4, 8, 12, 16))
    shapes = [tuple(x.shape) for x in encoder(torch.zeros(2, 3, 6, 16, 24))]
    assert shapes == [
        (2, 4, 3, 16, 24),
        (2, 8, 3, 8, 12),
        (2, 12, 3, 4, 6),
        (2, 16, 3, 2, 3),
    ]


def test_encoder_takes_strides():
    encoder = SpikeEncoder3D(2, (4,) * 4, temporal_strides=[2, 1, 1], spatial_strides=[1, 4, 1])
    shapes = [tuple(x.shape[2:]) for x in encoder(torch.zeros(1, 4, 2, 8, 8))]
    assert shapes == [(4, 8, 8), (2, 8, 8), (2, 2, 2), (2, 2, 2)]


def test_encoder_has_the_layers_of_the_reference():
    encoder = SpikeEncoder3D(in_bins=5, channels_per_scale=(4, 8, 4, 8))
    convolutions = [m for m in encoder.modules() if isinstance(m, nn.Conv3d)]
    assert all(m.kernel_size == (3, 3, 3) for m in convolutions)
    # A projection or a step, and two residual blocks of two convolutions, at each scale.
    assert [(m.in_channels, m.out_channels) for m in convolutions] == [
        *[(5, 4), (4, 4), (4, 4), (4, 4), (4, 4)],
        *[(4, 8), (8, 8), (8, 8), (8, 8), (8, 8)],
        *[(8, 4), (4, 4), (4, 4), (4, 4), (4, 4)],
        *[(4, 8), (8, 8), (8, 8), (8, 8), (8, 8)],
    ]


def test_residual_block_is_conv_relu_conv_add_relu():
    torch.manual_seed(0)
    block = ResidualBlock3D(3)
    x = torch.randn(1, 3, 2, 4, 4)
    a, b = block.conv1, block.conv2
    inner = F.conv3d(x, a.weight, a.bias, padding=1).clamp(min=0)
    expected = (x + F.conv3d(inner, b.weight, b.bias, padding=1)).clamp(min=0)
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("clips", [1, 2])
@pytest.mark.parametrize("stride", [1, (1, 2, 2)])
def test_one_clip_is_convolved_like_several(clips, stride):
    torch.manual_seed(0)
    conv = Conv3d(4, 6, 3, stride=stride, padding=1)
    x = torch.randn(clips, 4, 3, 8, 10, requires_grad=True)
    exact = [p.detach().double().requires_grad_() for p in (x, *conv.parameters())]
    expected = F.conv3d(*exact, stride=stride, padding=1)
    expected.square().sum().backward()
    y = conv(x)
    y.square().sum().backward()
    torch.testing.assert_close(y, expected.float())
    for ours, wanted in zip((x, *conv.parameters()), exact, strict=True):
        torch.testing.assert_close(ours.grad, wanted.grad.float(), rtol=1e-4, atol=1e-4)
    with torch.inference_mode():
        torch.testing.assert_close(conv(x), expected.float())


def test_encoder_refuses_a_wrong_number_of_strides():
    with pytest.raises(ValueError, match="expected 3 strides"):
        SpikeEncoder3D(2, (4,) * 4, spatial_strides=[2, 2])


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_encoder_has_the_gradients_of_float32_in_bf16(frames):
    torch.manual_seed(0)
    encoder = SpikeEncoder3D(in_bins=32, channels_per_scale=(16, 16, 16, 16))
    voxels = torch.randn(1, frames, 32, 16, 16)

    def gradients(bf16: bool) -> list[torch.Tensor]:
        encoder.zero_grad()
        del [torch.full((size,), float("nan")) for size in (100, 10_000, 1_000_000)][:]
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = sum(x.float().square().mean() for x in encoder(voxels))
        loss.backward()
        return [p.grad.clone() for p in encoder.parameters()]

    for found, expected in zip(gradients(True), gradients(False), strict=True):
        assert (found - expected).norm() < 0.1 * expected.norm()


def test_self_attention_mixes_frames_of_a_pixel_and_nothing_else():
    torch.manual_seed(0)
    attention = SpikeTemporalSA((8, 8), heads=2)
    features = [torch.randn(2, 8, 3, 4, 4), torch.randn(2, 8, 3, 2, 2)]
    before = attention(features)
    features[0] = features[0].clone()
    features[0][1, 5, 2, 1, 3] += 1
    changed = [(a - b).abs().amax(1) > 0 for a, b in zip(attention(features), before, strict=True)]
    expected = torch.zeros(2, 3, 4, 4, dtype=torch.bool)
    expected[1, :, 1, 3] = True  # all frames of that clip's pixel
    assert torch.equal(changed[0], expected)
    assert not changed[1].any()


def block_by_definition(block, frames, spikes):
    """The reference's three lines, with torch's own attention."""
    dim = frames.shape[2]
    attention = nn.MultiheadAttention(dim, block.attn.heads, batch_first=True)
    attention.load_state_dict(block.attn.state_dict())
    out = torch.empty_like(frames)
    for b in range(frames.shape[0]):
        for r in range(frames.shape[3]):
            for c in range(frames.shape[4]):
                rgb, spike = frames[b, :, :, r, c], spikes[b, :, :, r, c]  # (T, C)
                source = block.norm_kv(spike)
                x = rgb + attention(block.norm_q(rgb), source, source, need_weights=False)[0]
                out[b, :, :, r, c] = x + block.ffn(block.norm_ffn(x))
    return out


def test_fusion_block_computes_what_the_reference_states():
    torch.manual_seed(0)
    block = TemporalCrossAttnFuseBlock(8, heads=4, identity_init=False)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    frames, spikes = torch.randn(2, 2, 3, 8, 2, 3)
    with torch.no_grad():
        expected = block_by_definition(block, frames, spikes)
        torch.testing.assert_close(block(frames, spikes), expected, rtol=1e-4, atol=1e-5)


def test_identity_start_returns_the_frames_exactly():
    frames, spikes = torch.randn(2, 2, 3, 8, 4, 5)
    assert torch.equal(TemporalCrossAttnFuseBlock(8)(frames, spikes), frames)
    assert not torch.equal(
        TemporalCrossAttnFuseBlock(8, identity_init=False)(frames, spikes), frames
    )


def test_multi_scale_fusion_fuses_each_scale_by_its_own_block():
    torch.manual_seed(0)
    fuse = MultiScaleTemporalCrossAttnFuse((8, 16), heads=4, identity_init=False)
    frames = [torch.randn(1, 2, 8, 4, 4), torch.randn(1, 2, 16, 2, 2)]
    spikes = [torch.randn_like(x) for x in frames]
    expected = [b(f, s) for b, f, s in zip(fuse.fuse_blocks, frames, spikes, strict=True)]
    for a, b in zip(fuse(frames, spikes), expected, strict=True):
        assert torch.equal(a, b)


def test_fusion_refuses_features_that_do_not_fit():
    with pytest.raises(ValueError, match="equal but for T"):
        TemporalCrossAttnFuseBlock(8)(torch.zeros(1, 2, 8, 4, 4), torch.zeros(1, 2, 8, 2, 2))


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_gradients_of_mixed_precision_on_a_cpu_are_those_of_float32(frames):
    """Whatever is in the memory that a convolution is given to work in."""

    def gradient(mixed: bool) -> torch.Tensor:
        torch.manual_seed(0)
        conv = Conv3d(32, 32, 3, padding=1)
        x = torch.randn(3, 32, frames, 64, 64)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            y = conv(x)
        for size in range(12, 23, 2):
            del [torch.full((2**size,), math.nan) for _ in range(8)][:]
        y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(1)))
        return conv.weight.grad

    torch.testing.assert_close(gradient(True), gradient(False))
