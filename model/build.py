"""From a configuration to the network: all sizes meet here."""

from __future__ import annotations

from typing import Any

from ..configs.schema import AttentionConfig, Config
from ..third_party.VRT import VRT, load_pretrained
from .vrt_with_spike import VRTWithSpike


def build_model(config: Config) -> VRTWithSpike:
    """Build the network of a configuration, with published weights if it names a file.

    Raises:
        SpikeDeblurError: Sizes do not fit, or `MODEL.PRETRAINED` can't be loaded.
    """
    model = config.MODEL
    backbone = VRT(
        **model.VRT.model_dump(),
        in_chans=3 * model.TRUNK_SCALE**2,
        use_checkpoint_attn=model.USE_CHECKPOINT_ATTN,
        use_checkpoint_ffn=model.USE_CHECKPOINT_FFN,
    )
    if model.PRETRAINED is not None:
        load_pretrained(backbone, model.PRETRAINED)
    tsa, fuse = model.SPIKE_TSA, model.FUSE
    return VRTWithSpike(
        backbone,
        spike_bins=config.DATA.K,
        channels_per_scale=model.CHANNELS_PER_SCALE,
        temporal_strides=model.SPIKE_ENCODER.TEMPORAL_STRIDES,
        spatial_strides=model.SPIKE_ENCODER.SPATIAL_STRIDES,
        tsa_heads=tsa.HEADS,
        tsa_dropout=tsa.DROPOUT,
        tsa_mlp_ratio=tsa.MLP_RATIO,
        tsa_chunk_cfg=_chunks(tsa, model.USE_CHECKPOINT_ATTN),
        fuse_heads=fuse.HEADS,
        fuse_dropout=fuse.DROPOUT,
        fuse_mlp_ratio=fuse.MLP_RATIO,
        fuse_chunk_cfg=_chunks(fuse, model.USE_CHECKPOINT_ATTN),
        use_spike=model.USE_SPIKE,
        trunk_scale=model.TRUNK_SCALE,
        spike_skip=model.SPIKE_SKIP,
        identity_init=fuse.IDENTITY_INIT,
    )


def _chunks(attention: AttentionConfig, use_checkpoint: bool) -> dict[str, Any]:
    return {
        "adaptive_chunk": attention.ADAPTIVE_CHUNK,
        "max_batch_tokens": attention.MAX_BATCH_TOKENS,
        "chunk_size": attention.CHUNK_SIZE,
        "chunk_shape": attention.CHUNK_SHAPE,
        "use_checkpoint": use_checkpoint,
    }
