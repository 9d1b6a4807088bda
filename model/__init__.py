"""Torch modules and losses; no data files, no clocks."""

from .build import build_model, configured_recompute, outline_model
from .chunked import BaseChunkableAttention
from .fusion import MultiScaleTemporalCrossAttnFuse, TemporalCrossAttnFuseBlock
from .gain import gain_from_blur
from .inputs import Conditions, RawWindows, measure_conditions, network_inputs, unit_range
from .lag import delay
from .losses import CharbonnierLoss, VGGPerceptualLoss
from .normalize import normalize_counts
from .packed_spikes import counts_of_packed, light_of_packed
from .spike_attention import SpikeTemporalSA, SpikeTemporalSelfAttention
from .spike_encoder import SpikeEncoder3D
from .vrt_with_spike import VRTWithSpike, parameter_table

__all__ = [
    "BaseChunkableAttention",
    "CharbonnierLoss",
    "Conditions",
    "MultiScaleTemporalCrossAttnFuse",
    "RawWindows",
    "SpikeEncoder3D",
    "SpikeTemporalSA",
    "SpikeTemporalSelfAttention",
    "TemporalCrossAttnFuseBlock",
    "VGGPerceptualLoss",
    "VRTWithSpike",
    "build_model",
    "configured_recompute",
    "counts_of_packed",
    "delay",
    "gain_from_blur",
    "light_of_packed",
    "measure_conditions",
    "network_inputs",
    "normalize_counts",
    "outline_model",
    "parameter_table",
    "unit_range",
]
