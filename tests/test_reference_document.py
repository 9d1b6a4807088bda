"""The reference document's classes and functions, called as it calls them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from spikedeblur.configs import load_config
from spikedeblur.model import (
    BaseChunkableAttention,
    CharbonnierLoss,
    MultiScaleTemporalCrossAttnFuse,
    SpikeEncoder3D,
    SpikeTemporalSA,
    VGGPerceptualLoss,
    VRTWithSpike,
)
from spikedeblur.pipeline.spikes import spike_to_voxel, voxelize
from spikedeblur.pipeline.train.data.cache import LRUCache
from spikedeblur.third_party.VRT import VRT

VGG_CHANNELS = (3, 64, 64, 128, 128, 256, 256, 256)
CHUNKS = {
    "ADAPTIVE_CHUNK": True,
    "MAX_BATCH_TOKENS": 49152,
    "CHUNK_SIZE": 64,
    "CHUNK_SHAPE": "square",
}


def small_network() -> VRTWithSpike:
    """The document's call of both classes, with a small network's numbers."""
    vrt = VRT(
        upscale=1,
        in_chans=3,
        out_chans=3,
        img_size=[2, 16, 16],
        window_size=[2, 8, 8],
        depths=[1] * 8,
        indep_reconsts=[],
        embed_dims=[16] * 8,
        num_heads=[2] * 8,
        pa_frames=0,
        use_checkpoint_attn=True,
        use_checkpoint_ffn=True,
    )
    return VRTWithSpike(
        vrt_backbone=vrt,
        spike_bins=32,
        channels_per_scale=[16, 16, 16, 16],
        temporal_strides=[1, 1, 1],
        spatial_strides=[2, 2, 2],
        tsa_heads=4,
        tsa_dropout=0.0,
        tsa_mlp_ratio=2,
        tsa_chunk_cfg=CHUNKS,
        fuse_heads=4,
        fuse_dropout=0.0,
        fuse_mlp_ratio=2,
        fuse_chunk_cfg=CHUNKS,
    )


def test_network_takes_its_inputs_by_name() -> None:
    model = small_network().eval()
    rgb, voxels = torch.rand(1, 2, 3, 16, 16), torch.rand(1, 2, 32, 16, 16)
    with torch.no_grad():
        out = model(rgb_clip=rgb, spike_vox=voxels)
        assert out.shape == (1, 2, 3, 16, 16)
        # Section 4.4, step by step.
        features = model.spike_temporal_sa(model.spike_encoder(voxels))
        assert [tuple(f.shape) for f in features] == [
            (1, 16, 2, 16 // scale, 16 // scale) for scale in (1, 2, 4, 8)
        ]
        assert len(model.cross_attn_fuse.fuse_blocks) == 4
        assert torch.equal(out, model.forward(rgb, voxels))


def test_network_of_the_document_is_built_as_it_builds_it() -> None:
    with torch.device("meta"):
        vrt = VRT(
            upscale=1,
            in_chans=3,
            out_chans=3,
            img_size=[6, 192, 192],
            window_size=[6, 8, 8],
            embed_dims=[96] * 7 + [120] * 4,
            use_checkpoint_attn=True,
            use_checkpoint_ffn=True,
        )
        model = VRTWithSpike(vrt_backbone=vrt, channels_per_scale=[96, 96, 96, 96])
    assert sum(p.numel() for p in model.parameters()) == 23_731_719


def test_parts_take_their_arguments_by_name() -> None:
    channels = [8, 8, 8, 8]
    encoder = SpikeEncoder3D(
        in_bins=4,
        channels_per_scale=channels,
        temporal_strides=[1, 1, 1],
        spatial_strides=[2, 2, 2],
    )
    attention = SpikeTemporalSA(
        channels_per_scale=channels, heads=4, dropout=0.0, mlp_ratio=2, chunk_cfg=CHUNKS
    )
    fuse = MultiScaleTemporalCrossAttnFuse(
        channels_per_scale=channels, heads=4, dropout=0.0, mlp_ratio=2, chunk_cfg=CHUNKS
    )
    spikes = [f.permute(0, 2, 1, 3, 4) for f in attention(encoder(torch.rand(1, 2, 4, 8, 8)))]
    assert [f.shape for f in fuse(spikes, spikes)] == [f.shape for f in spikes]
    strided = SpikeEncoder3D(4, channels, temporal_strides=[1, 2, 1])
    assert [f.shape[2] for f in strided(torch.rand(1, 4, 4, 8, 8))] == [4, 4, 2, 2]


def test_chunks_are_told_by_the_keys_of_the_yaml() -> None:
    keys = {"ADAPTIVE_CHUNK": False, "MAX_BATCH_TOKENS": 7, "CHUNK_SIZE": 3, "CHUNK_SHAPE": "tall"}
    for names in (keys, {key.lower(): value for key, value in keys.items()}):
        for part in (
            SpikeTemporalSA([8] * 4, chunk_cfg=names).blocks[0],
            MultiScaleTemporalCrossAttnFuse([8] * 4, chunk_cfg=names).fuse_blocks[3],
        ):
            assert isinstance(part, BaseChunkableAttention)
            assert (part.adaptive_chunk, part.max_batch_tokens) == (False, 7)
            assert (part.chunk_size, part.chunk_shape) == (3, "tall")


def test_charbonnier_loss_takes_input_and_target() -> None:
    charbonnier_loss = CharbonnierLoss(delta=0.001)
    output, target = torch.zeros(1, 2, 3, 4, 4), torch.ones(1, 2, 3, 4, 4)
    loss = charbonnier_loss(input=output, target=target) * 1.0
    assert torch.equal(loss, charbonnier_loss.forward(output, target))
    torch.testing.assert_close(loss, torch.tensor((1 + 1e-6) ** 0.5))


def test_cache_has_a_limit_in_gigabytes_and_tells_its_figures() -> None:
    cache = LRUCache(max_memory_gb=4.0)
    assert cache.get("clip/0031") is None
    window = (np.zeros((2, 8, 8, 3), np.uint8), np.ones((2, 4, 8, 8), np.uint8))
    cache.put("clip/0031", window)
    np.testing.assert_equal(cache.get("clip/0031"), window)
    assert cache.get_stats() == {
        "items": 1,
        "memory_gb": (384 + 512) / 2**30,
        "max_memory_gb": 4.0,
        "hits": 1,
        "misses": 1,
        "evictions": 0,
        "hit_rate": 0.5,
    }
    assert LRUCache().get_stats()["max_memory_gb"] == 50.0


def test_voxels_are_counted_with_the_documents_arguments() -> None:
    events = np.array([[0.0, 1, 2], [0.5, 1, 2], [0.9, 0, 0], [1.5, 0, 0]])  # t, y, x
    counts = voxelize(events, 0.0, 1.0, 2, 3, bins=2, apply_log1p=False)
    assert counts.shape == (2, 2, 3)
    assert counts[0, 1, 2] == counts[1, 1, 2] == counts[1, 0, 0] == 1, "the last is outside"
    voxels = voxelize(events, 0.0, 1.0, 2, 3, bins=2, apply_log1p=True, mean=0.5, std=2.0)
    np.testing.assert_allclose(voxels, (np.log1p(counts) - 0.5) / 2, rtol=1e-6)
    spikes = np.ones((4, 2, 3), np.uint8)
    np.testing.assert_array_equal(spike_to_voxel(spikes, bins=2), np.full((2, 2, 3), 2.0))


def test_perceptual_loss_takes_its_layers_and_two_clips() -> None:
    weights = {}
    for i, (below, channels) in zip((0, 2, 5, 7, 10, 12, 14), pairwise(VGG_CHANNELS), strict=True):
        weights[f"features.{i}.weight"] = torch.full((channels, below, 3, 3), 0.01)
        weights[f"features.{i}.bias"] = torch.zeros(channels)
    vgg_loss = VGGPerceptualLoss(layers=["relu3_3"], weights=weights)
    output, target = torch.zeros(1, 2, 3, 16, 16), torch.ones(1, 2, 3, 16, 16)
    assert vgg_loss(output, target).ndim == 0
    assert vgg_loss(output, output) == 0


def test_optimizer_and_loss_of_section_7_are_the_defaults() -> None:
    config = load_config("configs/deblur/vrt_spike_baseline.yaml")
    assert (config.TRAIN.OPTIM.LR, config.TRAIN.OPTIM.WEIGHT_DECAY) == (2e-4, 1e-4)
    assert (config.LOSS.CHARBONNIER.WEIGHT, config.LOSS.VGG_PERCEPTUAL.WEIGHT) == (1.0, 0.1)
