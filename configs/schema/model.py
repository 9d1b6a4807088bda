"""`MODEL`: the published network, the spike branch beside it, and how they are joined."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from .values import Bool, Extent, Fraction, Int, Name, Number, PositiveInt, Section

MOST_STAGES = 128
MOST_BLOCKS = 1000
"""Attention blocks of a network, all stages together."""
MOST_TOKENS = 8192
"""Tokens of an attention window; what attention weighs is their square."""

Channels = Annotated[Int, Field(ge=1, le=20_000)]
Heads = Annotated[Int, Field(ge=1, le=1000)]
Stride = Annotated[Int, Field(ge=1, le=256)]
Widening = Annotated[Number, Field(gt=0, le=400)]
T = TypeVar("T")
PerStage = Annotated[tuple[T, ...], Field(max_length=MOST_STAGES)]
RecomputedPart = Literal["attention", "feed_forward", "warping", "block", "stage"]


class VRTOptions(Section):
    """Arguments of the published network, under its own names. Defaults: deblurring VRT."""

    upscale: Literal[1] = 1
    """Output pixels a input pixel; restoration at the input's size."""
    img_size: tuple[Extent, Extent, Extent] = (6, 192, 192)
    """Frames, rows, columns of a training clip, for information; changes no parameter."""
    window_size: tuple[Extent, Extent, Extent] = (6, 8, 8)
    """Attention window: frames, rows, columns of the trunk's features; at most 8192 tokens, their
    product."""
    depths: PerStage[Annotated[Int, Field(ge=0, le=MOST_BLOCKS)]] = (8,) * 7 + (4,) * 4
    """Attention blocks of stages 1 to 7, then of each group of stage 8; at most 1000 in all."""
    indep_reconsts: PerStage[Annotated[Int, Field(ge=0, lt=MOST_STAGES)]] = (9, 10)
    """Indices in `depths` whose windows see one frame only."""
    embed_dims: PerStage[Channels] = (96,) * 7 + (120,) * 4
    """Channels, one number for each of `depths`."""
    num_heads: PerStage[Heads] = (6,) * 11
    """Attention heads, one number for each of `depths`."""
    mul_attn_ratio: Annotated[Number, Field(ge=0, le=1)] = 0.75
    """Share of a stage's blocks (rounded down) with mutual attention."""
    mlp_ratio: Widening = 2.0
    """Hidden channels of a block's feed-forward, in multiples of its channels."""
    qkv_bias: Bool = True
    """Whether the query, key and value projections have a bias."""
    drop_path_rate: Fraction = 0.2
    """Probability of skipping the last block in training; rises linearly from 0."""
    pa_frames: Literal[0, 2] = 2
    """2: optical flow and alignment of both neighbours. 0 (ours): neither, a small trunk."""
    deformable_groups: Annotated[Int, Field(ge=1, le=2000)] = 16
    """Offset groups of the deformable alignment."""

    def misfits(self) -> Iterator[str]:
        """Yield why values do not fit each other."""
        n = len(self.depths)
        if n < 8 or len(self.embed_dims) != n or len(self.num_heads) != n:
            yield (
                "expected depths, embed_dims and num_heads of one length, at least 8 (seven "
                f"stages and a group of stage 8), got {n}, {len(self.embed_dims)} and "
                f"{len(self.num_heads)}"
            )
        if math.prod(self.window_size) > MOST_TOKENS:
            yield (
                f"window_size: expected a window of at most {MOST_TOKENS} tokens (frames * rows * "
                f"columns), got {list(self.window_size)}"
            )
        if sum(self.depths) > MOST_BLOCKS:
            yield f"depths: expected at most {MOST_BLOCKS} blocks in all, got {sum(self.depths)}"
        for channels, heads in zip(self.embed_dims, self.num_heads, strict=True):
            if channels % heads:
                yield f"num_heads: {heads} heads do not divide {channels} channels"
        stages, groups = list(self.embed_dims[:7]), list(self.embed_dims[7:])
        if stages[:3] != stages[:3:-1]:
            yield (
                "embed_dims: stages 5, 6, 7 add to stages 3, 2, 1, so expected "
                f"{stages[2::-1]} for them, got {stages[4:]}"
            )
        if len(set(groups)) != 1:
            yield f"embed_dims: expected one number for stage 8, got {groups}"
        if any(channels % 4 for channels in stages):
            yield f"embed_dims: expected multiples of 4 for stages 1 to 7, got {stages}"
        if any(not 7 <= index < n for index in self.indep_reconsts):
            yield (
                f"indep_reconsts: expected indices of stage 8's groups, 7 to {n - 1}, got "
                f"{list(self.indep_reconsts)}"
            )
        if self.pa_frames and any(channels % self.deformable_groups for channels in stages):
            yield (
                f"deformable_groups: {self.deformable_groups} groups do not divide {stages} "
                "channels"
            )


class SpikeEncoderConfig(Section):
    """Steps between the encoder's four scales."""

    TEMPORAL_STRIDES: tuple[Stride, Stride, Stride] | None = None
    """Frames a step. null: [1, 1, 1]. Fusion needs a spike feature for each frame, so
    anything else is refused."""
    SPATIAL_STRIDES: tuple[Stride, Stride, Stride] | None = None
    """Pixels a step. null: [2, 2, 2], the network's own scales; features of others are
    resized where they are fused."""
    SEES_BLUR: Bool = False
    """The blurred frame, folded to the network's size, goes in beside the bins, so that
    convolutions see both. false: spikes alone, as in the reference."""
    SEES_RESIDUES: Bool = False
    """With MODEL.SPIKE_MOTION, maps that show where the frame made sharp along the motion is unsure
    go in too: how long a point is hidden, what neither camera's light explains, and the speed."""


class AttentionConfig(Section):
    """Attention over time at each pixel, worked through in chunks of pixels."""

    ENABLED: Bool = True
    """false: this part is left out of the network, for measuring what it is worth. Without FUSE
    spikes enter by MODEL.SPIKE_SKIP alone."""
    HEADS: Heads = 4
    """Attention heads; must divide each of MODEL.CHANNELS_PER_SCALE."""
    DROPOUT: Fraction = 0.0
    """Dropout of attention weights and feed-forward, in training."""
    MLP_RATIO: Widening = 2.0
    """Hidden channels of the feed-forward, in multiples of the channels."""
    ADAPTIVE_CHUNK: Bool = True
    """Choose chunks so that MAX_CHUNK_MB and MAX_BATCH_TOKENS hold; false: always CHUNK_SIZE
    squared. No setting of chunks changes a result."""
    MAX_CHUNK_MB: Annotated[Int, Field(ge=1, le=10**6)] = 64
    """Limit of the memory that one chunk takes while it is worked through, in MB."""
    MAX_BATCH_TOKENS: PositiveInt = 49152
    """Limit of batch * rows * columns in one chunk, whatever their channels and frames."""
    CHUNK_SIZE: Extent = 64
    """Rows and columns of a fixed chunk, in pixels of the feature map."""
    CHUNK_SHAPE: Literal["square", "wide", "tall"] = "square"
    """Shape of an adaptive chunk."""


class FuseConfig(AttentionConfig):
    """Fusion of spikes into the frames' features after stages 1 to 4."""

    TYPE: Literal["TemporalCrossAttn"] = "TemporalCrossAttn"
    """Query: frames; key and value: spikes; attention over time at each pixel."""
    IDENTITY_INIT: Bool = True
    """Start as identity (output projections at zero), so that training starts from the
    network without spikes."""


class ModelConfig(Section):
    """The network."""

    USE_SPIKE: Bool = True
    """false: the control without spikes, no spike parameters; spike settings are ignored."""
    VRT_CFG: Name = "third_party/VRT/options/deblur/vrt_base.yaml"
    """YAML file with the published network's arguments. Looked for in the current folder,
    then in the installed package."""
    VRT: VRTOptions = VRTOptions()
    """Arguments that override VRT_CFG's. In a resolved configuration: all of them."""
    CHANNELS_PER_SCALE: tuple[Channels, Channels, Channels, Channels] = (96, 96, 96, 96)
    """Channels of the spike features; must be the network's embed_dims of stages 1 to 4."""
    SPIKE_ENCODER: SpikeEncoderConfig = SpikeEncoderConfig()
    """Spike encoder."""
    SPIKE_TSA: AttentionConfig = AttentionConfig()
    """Self-attention of spike features over time."""
    FUSE: FuseConfig = FuseConfig()
    """Cross-attention from frames to spikes."""
    TRUNK_SCALE: Literal[1, 2, 4] = 1
    """The network runs on frames folded by this factor (pixel unshuffle in, pixel shuffle
    out); the residual stays on the full-size frame. 1: as published."""
    RESIDUAL_BASE: Literal["blur", "sdm"] = "blur"
    """What the network corrects: the blurred frame, as published, or that frame after
    spike-guided division (short TFP over exposure TFP). sdm needs DATA.NORM.MODE relative."""
    SPIKE_SKIP: Bool = False
    """Add linear maps of the spike features, enlarged to full scale, before the last
    convolution."""
    SPIKE_SKIP_SCALES: Annotated[int, Field(ge=1, le=4)] = 1
    """How many of the features' scales the skip takes, full scale first."""
    SPIKE_MOTION: Bool = False
    """Find from the spikes how light moves within each exposure, and make the frame sharp along
    its paths, with nothing learnt: the result goes into the spike encoder, and is what the
    network corrects with RESIDUAL_BASE sdm. Needs DATA.NORM.MODE relative."""
    USE_CHECKPOINT_ATTN: Bool = True
    """Recompute attention in the backward pass: less memory, more time, same result."""
    USE_CHECKPOINT_FFN: Bool = True
    """Recompute feed-forwards in the backward pass: less memory, more time, same result."""
    RECOMPUTE: Annotated[tuple[RecomputedPart, ...], Field(max_length=5)] | None = None
    """Parts recomputed in the backward pass, instead of what the two keys above say: attention,
    feed_forward, warping (flow and alignment), block (each as a whole, and steps of the spike
    encoder), stage (the blocks of a stage together). All five: the least memory. null: as they
    say."""
    PRETRAINED: Name | None = None
    """File with weights of the published network (`params` key) to start from."""
