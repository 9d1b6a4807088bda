"""From a configuration to the network: all sizes meet here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

from ..configs.schema import Config
from ..configs.schema.model import AttentionConfig, ModelConfig
from ..third_party.VRT import VRT, Recompute, load_pretrained, set_recompute
from .vrt_with_spike import VRTWithSpike

_logger = logging.getLogger(__name__)


def build_model(config: Config, *, note: Callable[[str], object] = _logger.info) -> VRTWithSpike:
    """Build the network of a configuration, with published weights if it names a file.

    Args:
        config: The whole configuration.
        note: Hears what was done to find the weights in that file.

    Raises:
        SpikeDeblurError: Sizes do not fit, or `MODEL.PRETRAINED` can't be loaded.
    """
    network = _assembled(config)
    if config.MODEL.PRETRAINED is not None:
        load_pretrained(network.vrt, config.MODEL.PRETRAINED, note=note)
    return network


def outline_model(config: Config) -> VRTWithSpike:
    """Return the network of a configuration without memory for its tensors.

    Names, shapes and dtypes are those of `build_model`, on torch's device `meta`; there are no
    values, and no file is read. For counting, and for comparing what comes from outside before
    anything of its size is made.
    """
    with torch.device("meta"):
        return _assembled(config)


def _assembled(config: Config) -> VRTWithSpike:
    model = config.MODEL
    backbone = VRT(**model.VRT.model_dump(), in_chans=3 * model.TRUNK_SCALE**2)
    tsa, fuse = model.SPIKE_TSA, model.FUSE
    network = VRTWithSpike(
        backbone,
        spike_bins=config.DATA.K,
        channels_per_scale=model.CHANNELS_PER_SCALE,
        temporal_strides=model.SPIKE_ENCODER.TEMPORAL_STRIDES,
        spatial_strides=model.SPIKE_ENCODER.SPATIAL_STRIDES,
        tsa_heads=tsa.HEADS,
        tsa_dropout=tsa.DROPOUT,
        tsa_mlp_ratio=tsa.MLP_RATIO,
        tsa_chunk_cfg=_chunks(tsa),
        fuse_heads=fuse.HEADS,
        fuse_dropout=fuse.DROPOUT,
        fuse_mlp_ratio=fuse.MLP_RATIO,
        fuse_chunk_cfg=_chunks(fuse),
        use_spike=model.USE_SPIKE,
        trunk_scale=model.TRUNK_SCALE,
        spike_skip=model.SPIKE_SKIP_SCALES if model.SPIKE_SKIP else 0,
        encoder_sees_blur=model.SPIKE_ENCODER.SEES_BLUR,
        spike_motion=model.SPIKE_MOTION,
        encoder_sees_residues=model.SPIKE_ENCODER.SEES_RESIDUES,
        spike_trust=config.DATA.NORM.TRUST,
        identity_init=fuse.IDENTITY_INIT,
        residual_base=model.RESIDUAL_BASE,
        temporal_attention=tsa.ENABLED,
        fusion=fuse.ENABLED,
    )
    set_recompute(network, configured_recompute(model))
    return network


def configured_recompute(model: ModelConfig) -> Recompute:
    """Return what a configuration recomputes in the backward pass."""
    if model.RECOMPUTE is None:
        return Recompute(model.USE_CHECKPOINT_ATTN, model.USE_CHECKPOINT_FFN)
    return Recompute(**dict.fromkeys(model.RECOMPUTE, True))


def _chunks(attention: AttentionConfig) -> dict[str, Any]:
    keys = ("ADAPTIVE_CHUNK", "MAX_CHUNK_MB", "MAX_BATCH_TOKENS", "CHUNK_SIZE", "CHUNK_SHAPE")
    return {key: getattr(attention, key) for key in keys}
