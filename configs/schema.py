"""What a training configuration may say: every key, its unit, its default, its effect.

Keys are UPPER_CASE as in the YAML, except the arguments of the published network under
`MODEL.VRT`, which keep their own names. Unknown keys are refused, and values that can't
work together are refused here, before any data is read.

A configuration may come from outside, inside a model file say. So every number has an upper
bound, and every text and list a greatest length: about a hundred times what is in use.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    model_validator,
)


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("expected a number, got a truth value")
    return value


def _amp_word(value: object) -> object:
    # YAML 1.1 reads a bare `off` as false; the field also writes `AMP: true`.
    if isinstance(value, bool):
        return "auto" if value else "off"
    return value


Bool = Annotated[bool, Strict()]
PositiveInt = Annotated[int, Strict(), Field(ge=1, le=10**9)]
NaturalInt = Annotated[int, Strict(), Field(ge=0, le=10**9)]
Float = Annotated[float, BeforeValidator(_no_bool), Field(ge=-1e15, le=1e15)]
PositiveFloat = Annotated[float, BeforeValidator(_no_bool), Field(gt=0, le=1e9)]
NaturalFloat = Annotated[float, BeforeValidator(_no_bool), Field(ge=0, le=1e9)]
Fraction = Annotated[float, BeforeValidator(_no_bool), Field(ge=0, lt=1)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Extension = Annotated[str, StringConstraints(pattern=r"^\.[A-Za-z0-9]+$", max_length=16)]

Extent = Annotated[int, Strict(), Field(ge=1, le=2**15)]
Frames = Annotated[int, Strict(), Field(ge=1, le=2000)]
Bins = Annotated[int, Strict(), Field(ge=1, le=4096)]
Channels = Annotated[int, Strict(), Field(ge=1, le=20_000)]
Heads = Annotated[int, Strict(), Field(ge=1, le=1000)]
Stride = Annotated[int, Strict(), Field(ge=1, le=256)]
Widening = Annotated[float, BeforeValidator(_no_bool), Field(gt=0, le=400)]
Clips = Annotated[int, Strict(), Field(ge=1, le=100_000)]
Megabytes = Annotated[int, Strict(), Field(ge=1, le=10**6)]
MOST_STAGES = 128
MOST_BLOCKS = 1000
"""Attention blocks of a network, all stages together."""
MOST_TOKENS = 8192
"""Tokens of an attention window; what attention weighs is their square."""
RecomputedPart = Literal["attention", "feed_forward", "warping", "block", "stage"]
VGGLayer = Literal["relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"]


class Section(BaseModel):
    """A part of the configuration: immutable, unknown keys refused, finite numbers only."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_section(cls, data: Any) -> Any:
        # A heading whose keys are all commented out is null in YAML.
        return {} if data is None else data


class NormConfig(Section):
    """How voxel counts become the numbers the spike encoder sees."""

    MODE: Literal["log1p", "rate", "relative"] = "log1p"
    """`log1p`: log(1 + count), as the field does, whatever the gain. `rate`: spikes a
    sample divided by the gain, that is luminance. `relative`: deviation of the rate from
    its mean over the bins, divided by that mean + 0.05, within [-3, 3]; a wrong gain
    nearly cancels. Each spike counts over the time since the one before it: by its very
    sample where the spikes are at hand (.dat, stores of kind packed), else by its bin."""
    MEAN: Float | None = 0.0
    """Subtracted after the mode's own scaling (not in `relative`). 0 with STD 1 changes
    nothing; null with STD null switches the step off."""
    STD: NaturalFloat | None = 1.0
    """Divided by after MEAN is subtracted; at least 1e-12 is used."""
    CURVE: Annotated[tuple[Float, ...], Field(min_length=2, max_length=6)] | None = None
    """Of `relative`, one camera's own: luminance as a polynomial of the spikes a sample, highest
    power first, in place of the gain. `adapt` fits it, so that false spikes and light that is not
    linear are accounted for. null: luminance is spikes a sample over the gain."""
    CORRECT_LAG: Bool = False
    """Raw counts are moved, by whole bins, by as much as the blurred frames tell that the spikes
    of a clip come late or early. For frames of linear light."""
    TRUST: Annotated[PositiveFloat, Field(le=1)] = 1.0
    """Of `relative`: the network sees deviations multiplied by it. `adapt` lowers it for a camera
    whose spikes are noisier than those of training."""

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.MEAN is None) != (self.STD is None):
            raise ValueError(
                f"expected MEAN and STD both given or both null, got MEAN {self.MEAN}, "
                f"STD {self.STD}; correct one of them"
            )
        if self.MODE == "relative" and (self.MEAN, self.STD) not in ((0, 1), (None, None)):
            raise ValueError(
                "MODE relative has its own scale, so expected MEAN 0 and STD 1 (or null), got "
                f"{self.MEAN} and {self.STD}"
            )
        if self.MODE != "relative" and (self.CURVE is not None or self.TRUST != 1):
            raise ValueError(
                f"CURVE and TRUST are for MODE relative, got {self.MODE}; set them to null and 1"
            )
        return self


class SpikeAugmentConfig(Section):
    """Spikes of training clips changed as if another camera had recorded them. Off by default."""

    CHANCE: Annotated[float, BeforeValidator(_no_bool), Field(ge=0, le=1)] = 0.5
    """Share of the clips that are changed."""
    THRESHOLD: Annotated[float, BeforeValidator(_no_bool), Field(ge=1, le=1000)] = 1.0
    """Largest factor of the camera's threshold, from 1 on; the gain falls by it. 1: off."""
    NOISE: Fraction = 0.0
    """Largest share of samples without a spike that get a false one. 0: off."""
    DEAD: Fraction = 0.0
    """Largest share of pixels that never spike. 0: off."""
    ROWS: Fraction = 0.0
    """Largest share of rows that never spike. 0: off."""
    LATE: Fraction = 0.0
    """Largest share of the exposure by which spikes come late or early, in whole bins. 0: off."""
    TINT: Fraction = 0.0
    """Largest share by which each colour of the frames, blurred and sharp alike, gets darker than
    what the spikes saw: another exposure and another white. 0: off."""
    GRAIN: Fraction = 0.0
    """Largest standard deviation of noise in the blurred frames, whose range is 1. 0: off."""
    THIN: Fraction = 0.0
    """Share of the steps that see only some windows of their clips, at random: as of exposures
    further apart, and of single ones. Whatever CHANCE is. 0: off."""

    @property
    def changes_clips(self) -> bool:
        """Whether anything but THIN is on."""
        shares = (self.NOISE, self.DEAD, self.ROWS, self.LATE, self.TINT, self.GRAIN)
        return self.CHANCE > 0 and (self.THRESHOLD > 1 or max(shares) > 0)


class DataConfig(Section):
    """Where samples come from and how they are cut."""

    ROOT: Name = "data/processed/gopro_spike_unified"
    """A Zarr store, or a folder in the unified layout
    `<ROOT>/<split>/<sequence>/{blur,sharp,spike}/`. Relative to the current folder."""
    TRAIN_SPLIT: Name = "train"
    """Split to train on."""
    VAL_SPLIT: Name = "val"
    """Split to validate on; never trained on."""
    SPIKE_DIR: Name = "spike"
    """Unified layout: folder of the `.dat` files in each sequence."""
    VOXEL_CACHE_DIRNAME: Name = "spike_vox"
    """Unified layout: folder of the precomputed `.npy` voxels in each sequence."""
    USE_PRECOMPUTED_VOXELS: Bool = False
    """Unified layout: true reads `.npy` voxels, false counts the `.dat` when read."""
    ALIGN_LOG_PATHS: Annotated[tuple[Name, ...], Field(max_length=1000)] = (
        "outputs/logs/align_x4k1000fps.txt",
    )
    """Unified layout: alignment logs that give each frame's exposure [t0, t1] in seconds."""
    CLIP_LEN: Frames = 5
    """Windows (frames) in a training clip, T. A shorter sequence is used whole."""
    CROP_SIZE: Extent = 256
    """Side of the square training crop, in pixels of the blurred frame. A multiple of
    8 * MODEL.TRUNK_SCALE."""
    K: Bins = 32
    """Time bins of a voxel grid. Must be what the store was made with. Not given: as
    NUM_VOXEL_BINS."""
    NUM_VOXEL_BINS: Bins = 32
    """The same number under the reference's second name. Not given: as K."""
    IMAGE_EXTS: Annotated[tuple[Extension, ...], Field(max_length=100)] = (
        ".png",
        ".jpg",
        ".jpeg",
        ".bmp",
    )
    """Unified layout: file name endings that are frames."""
    NORM: NormConfig = NormConfig()
    """Scaling of the counts."""
    USE_RAM_CACHE: Bool = True
    """Keep what was read in memory, least recently used out first."""
    CACHE_SIZE_GB: Annotated[float, BeforeValidator(_no_bool), Field(ge=0, le=1e6)] = 4.0
    """Limit of that memory, in GiB a training process."""
    AUGMENT: Bool = True
    """Random flips and quarter turns of training clips, alike for frames and spikes."""
    SPIKE_AUGMENT: SpikeAugmentConfig = SpikeAugmentConfig()
    """Other cameras."""

    @model_validator(mode="before")
    @classmethod
    def _one_number_of_bins(cls, data: Any) -> Any:
        if isinstance(data, dict) and ("K" in data) != ("NUM_VOXEL_BINS" in data):
            bins = data["K"] if "K" in data else data["NUM_VOXEL_BINS"]
            return {**data, "K": bins, "NUM_VOXEL_BINS": bins}
        return data

    @model_validator(mode="after")
    def _same_number_of_bins(self) -> Self:
        if self.K != self.NUM_VOXEL_BINS:
            raise ValueError(
                f"expected K and NUM_VOXEL_BINS equal, got {self.K} and "
                f"{self.NUM_VOXEL_BINS}; set both, or only one of them"
            )
        return self


class VRTOptions(Section):
    """Arguments of the published network, under its own names. Defaults: deblurring VRT."""

    upscale: Literal[1] = 1
    """Output pixels a input pixel; restoration at the input's size."""
    img_size: tuple[Extent, Extent, Extent] = (6, 192, 192)
    """Frames, rows, columns of a training clip, for information; changes no parameter."""
    window_size: tuple[Extent, Extent, Extent] = (6, 8, 8)
    """Attention window: frames, rows, columns of the trunk's features; at most 8192 tokens, their
    product."""
    depths: Annotated[
        tuple[Annotated[int, Strict(), Field(ge=0, le=MOST_BLOCKS)], ...],
        Field(max_length=MOST_STAGES),
    ] = (8, 8, 8, 8, 8, 8, 8, 4, 4, 4, 4)
    """Attention blocks of stages 1 to 7, then of each group of stage 8; at most 1000 in all."""
    indep_reconsts: Annotated[
        tuple[Annotated[int, Strict(), Field(ge=0, lt=MOST_STAGES)], ...],
        Field(max_length=MOST_STAGES),
    ] = (9, 10)
    """Indices in `depths` whose windows see one frame only."""
    embed_dims: Annotated[tuple[Channels, ...], Field(max_length=MOST_STAGES)] = (96,) * 7 + (
        120,
    ) * 4
    """Channels, one number for each of `depths`."""
    num_heads: Annotated[tuple[Heads, ...], Field(max_length=MOST_STAGES)] = (6,) * 11
    """Attention heads, one number for each of `depths`."""
    mul_attn_ratio: Annotated[float, BeforeValidator(_no_bool), Field(ge=0, le=1)] = 0.75
    """Share of a stage's blocks (rounded down) with mutual attention."""
    mlp_ratio: Widening = 2.0
    """Hidden channels of a block's feed-forward, in multiples of its channels."""
    qkv_bias: Bool = True
    """Whether the query, key and value projections have a bias."""
    drop_path_rate: Fraction = 0.2
    """Probability of skipping the last block in training; rises linearly from 0."""
    pa_frames: Literal[0, 2] = 2
    """2: optical flow and alignment of both neighbours. 0 (ours): neither, a small trunk."""
    deformable_groups: Annotated[int, Strict(), Field(ge=1, le=2000)] = 16
    """Offset groups of the deformable alignment."""

    @model_validator(mode="after")
    def _fits_the_architecture(self) -> Self:
        n = len(self.depths)
        if n < 8 or len(self.embed_dims) != n or len(self.num_heads) != n:
            raise ValueError(
                "expected depths, embed_dims and num_heads of one length, at least 8 (seven "
                f"stages and a group of stage 8), got {n}, {len(self.embed_dims)} and "
                f"{len(self.num_heads)}"
            )
        if math.prod(self.window_size) > MOST_TOKENS:
            raise ValueError(
                f"window_size: expected a window of at most {MOST_TOKENS} tokens (frames * rows * "
                f"columns), got {list(self.window_size)}"
            )
        if sum(self.depths) > MOST_BLOCKS:
            raise ValueError(
                f"depths: expected at most {MOST_BLOCKS} blocks in all, got {sum(self.depths)}"
            )
        for channels, heads in zip(self.embed_dims, self.num_heads, strict=True):
            if channels % heads:
                raise ValueError(f"num_heads: {heads} heads do not divide {channels} channels")
        if self.embed_dims[:3] != self.embed_dims[6:3:-1]:
            raise ValueError(
                "embed_dims: stages 5, 6, 7 add to stages 3, 2, 1, so expected "
                f"{list(self.embed_dims[2::-1])} for them, got {list(self.embed_dims[4:7])}"
            )
        if len(set(self.embed_dims[7:])) != 1:
            raise ValueError(
                f"embed_dims: expected one number for stage 8, got {list(self.embed_dims[7:])}"
            )
        if any(channels % 4 for channels in self.embed_dims[:7]):
            raise ValueError(
                "embed_dims: expected multiples of 4 for stages 1 to 7, got "
                f"{list(self.embed_dims[:7])}"
            )
        if any(not 7 <= index < n for index in self.indep_reconsts):
            raise ValueError(
                f"indep_reconsts: expected indices of stage 8's groups, 7 to {n - 1}, got "
                f"{list(self.indep_reconsts)}"
            )
        if self.pa_frames and any(c % self.deformable_groups for c in self.embed_dims[:7]):
            raise ValueError(
                f"deformable_groups: {self.deformable_groups} groups do not divide "
                f"{list(self.embed_dims[:7])} channels"
            )
        return self


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
    MAX_CHUNK_MB: Megabytes = 64
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
    CHANNELS_PER_SCALE: tuple[Channels, Channels, Channels, Channels] = (
        96,
        96,
        96,
        96,
    )
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


class OptimConfig(Section):
    """AdamW."""

    LR: PositiveFloat = 2e-4
    """Peak learning rate."""
    WEIGHT_DECAY: NaturalFloat = 1e-4
    """Decoupled weight decay."""
    FLOW_LR_SCALE: NaturalFloat = 1.0
    """Of the learning rate, that the flow network (SpyNet) has; its authors' finetuning: 0.25."""
    BACKBONE_LR_SCALE: NaturalFloat = 1.0
    """Of the learning rate, that the rest of the published network has; for pretrained weights
    beside a new spike branch."""
    FLOW_FROZEN_STEPS: NaturalInt = 0
    """Steps at the start that leave the flow network as it is."""


class SchedulerConfig(Section):
    """Learning rate over the run: linear warm-up, then cosine to MIN_LR at the last step."""

    WARMUP_STEPS: NaturalInt = 1000
    """Optimizer steps from 0 to OPTIM.LR; at most half of the run."""
    MIN_LR: NaturalFloat = 1e-7
    """Learning rate at the end."""


class TrainConfig(Section):
    """Length, pace and records of a run. A step is one update of the weights."""

    EPOCHS: PositiveInt = 80
    """Passes over the training windows; used where MAX_STEPS is null."""
    MAX_STEPS: PositiveInt | None = None
    """Length of the run in steps, over EPOCHS. `--set TRAIN.EPOCHS=N` sets it to null
    unless it is given by `--set` as well."""
    BATCH_SIZE: Clips = 1
    """Clips in a batch of one process."""
    NUM_WORKERS: Annotated[int, Strict(), Field(ge=0, le=1000)] | Literal["auto"] = 8
    """Loading processes of one training process, at most its share of the cores; 0 loads in
    the training process; `auto`: one core less than its share, at most 8."""
    PREFETCH_MB: Megabytes = 512
    """Memory for batches that workers have ready before they are needed, in MB a training
    process; a worker always has one under way."""
    GRADIENT_ACCUMULATION_STEPS: Clips = 6
    """Batches a step."""
    MEMORY_BUDGET: Literal["auto"] | Annotated[ByteSize, Field(ge=0, le=10**15)] | None = None
    """Memory that a training process may take, such as 16GB: what is recomputed in the backward
    pass is then chosen by trial steps before the first one, the fastest that stays within. On a
    GPU: of its memory. `auto`: 0.9 of what is free. null: as MODEL.RECOMPUTE and
    MODEL.USE_CHECKPOINT_* say."""
    THREADS: Annotated[int, Strict(), Field(ge=1, le=1024)] | None = None
    """CPU threads of one training process; null: torch's own choice, all cores."""
    OPTIM: OptimConfig = OptimConfig()
    """Optimizer."""
    SCHEDULER: SchedulerConfig = SchedulerConfig()
    """Learning-rate schedule."""
    GRAD_CLIP: PositiveFloat | None = 1.0
    """Largest norm of the gradient; null: no clipping."""
    NON_FINITE: Literal["stop", "skip"] = "stop"
    """A step whose loss or gradient is not finite: stop the run, with a checkpoint from before it,
    or leave the step out, which is noted; ten in a row stop the run as well."""
    ON_ERROR: Literal["stop", "skip"] = "stop"
    """A clip that can't be read once the run has begun: stop, with a checkpoint, or take the next
    clip that can in its place; such a run names what was left out and ends with exit code 1."""
    AMP: Annotated[Literal["off", "bf16", "fp16", "auto"], BeforeValidator(_amp_word)] = "auto"
    """Mixed precision. `auto`: bf16 where the GPU or the CPU has instructions for it, fp16 on
    other GPUs, off on other CPUs. true means `auto`, false `off`."""
    COMPILE: Bool = False
    """Compile the network (torch.compile) for the shape of the training clips: minutes at the
    start, for faster steps on a GPU. On a CPU it gains nothing."""
    EMA_DECAY: Fraction | None = 0.999
    """Decay a step of the averaged weights that are validated and kept; null: none."""
    SEED: Annotated[int, Strict(), Field(ge=0, le=2**63 - 1)] = 0
    """Of weights, order, crops and augmentation."""
    LOG_INTERVAL: PositiveInt = 50
    """Steps between lines of metrics.jsonl."""
    VAL_INTERVAL: PositiveInt = 1000
    """Steps between validations; there is one at the end too."""
    EARLY_STOP: PositiveInt | None = None
    """Validations in a row without a better one that end the run; null: it takes all its steps.
    The learning rate falls over all of them, so a run that is ended early has not seen its end."""
    SAVE_INTERVAL: PositiveInt = 1000
    """Steps between writes of checkpoints/last.pt; there is one at the end too."""
    WANDB: Name | None = None
    """Project on Weights & Biases that gets the metrics too, by the extra `wandb`; null: none."""
    VAL_MAX_WINDOWS: PositiveInt | None = None
    """Validate on at most so many windows, evenly spread over the split; null: all."""


class CharbonnierConfig(Section):
    """mean(sqrt((x - y)^2 + DELTA^2))."""

    DELTA: PositiveFloat = 1e-3
    """Where the loss turns from quadratic to linear, in units of the image range [0, 1]."""
    WEIGHT: NaturalFloat = 1.0
    """Weight in the total; 0 switches the term off."""


class VGGPerceptualConfig(Section):
    """L1 distance of VGG16 features."""

    LAYERS: Annotated[tuple[VGGLayer, ...], Field(min_length=1, max_length=5)] = ("relu3_3",)
    """Layers whose distances are averaged."""
    WEIGHT: NaturalFloat = 0.1
    """Weight in the total; 0 switches the term off and needs no VGG weights."""
    WEIGHTS: Name | None = None
    """File with torchvision's VGG16 weights (.pth or .safetensors). null: torchvision's
    own ImageNet weights, downloaded once."""


class LossConfig(Section):
    """The sum of weighted terms."""

    CHARBONNIER: CharbonnierConfig = CharbonnierConfig()
    """Pixel term."""
    VGG_PERCEPTUAL: VGGPerceptualConfig = VGGPerceptualConfig()
    """Perceptual term."""

    @model_validator(mode="after")
    def _something_to_minimise(self) -> Self:
        if self.CHARBONNIER.WEIGHT == 0 and self.VGG_PERCEPTUAL.WEIGHT == 0:
            raise ValueError("expected a term with a WEIGHT above 0, got 0 for both")
        return self


class Config(Section):
    """A training configuration."""

    DATA: DataConfig = DataConfig()
    """Samples."""
    MODEL: ModelConfig = ModelConfig()
    """Network."""
    TRAIN: TrainConfig = TrainConfig()
    """Run."""
    LOSS: LossConfig = LossConfig()
    """Objective."""

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        model, multiple = self.MODEL, 8 * self.MODEL.TRUNK_SCALE
        if self.DATA.CROP_SIZE % multiple:
            raise ValueError(
                f"DATA.CROP_SIZE: expected a multiple of {multiple} (8 * MODEL.TRUNK_SCALE), "
                f"got {self.DATA.CROP_SIZE}"
            )
        if self.TRAIN.SCHEDULER.MIN_LR > self.TRAIN.OPTIM.LR:
            raise ValueError(
                f"TRAIN.SCHEDULER.MIN_LR: expected at most TRAIN.OPTIM.LR "
                f"({self.TRAIN.OPTIM.LR:g}), got {self.TRAIN.SCHEDULER.MIN_LR:g}"
            )
        if model.RECOMPUTE is not None and self.TRAIN.MEMORY_BUDGET is not None:
            raise ValueError(
                "expected MODEL.RECOMPUTE or TRAIN.MEMORY_BUDGET, which chooses it, got both; set "
                "one of them to null"
            )
        if not model.USE_SPIKE:
            return self
        if model.RESIDUAL_BASE == "sdm" and self.DATA.NORM.MODE != "relative":
            raise ValueError(
                "MODEL.RESIDUAL_BASE: sdm needs DATA.NORM.MODE relative, got "
                f"{self.DATA.NORM.MODE}; set one of them"
            )
        if model.SPIKE_MOTION and self.DATA.NORM.MODE != "relative":
            raise ValueError(
                f"MODEL.SPIKE_MOTION needs DATA.NORM.MODE relative, got {self.DATA.NORM.MODE}; set "
                "one of them"
            )
        channels = model.VRT.embed_dims[:4]
        if channels != model.CHANNELS_PER_SCALE:
            raise ValueError(
                "MODEL.CHANNELS_PER_SCALE: expected the network's embed_dims of stages 1 to 4, "
                f"{list(channels)}, got {list(model.CHANNELS_PER_SCALE)}"
            )
        if not model.FUSE.ENABLED and not model.SPIKE_SKIP:
            raise ValueError(
                "MODEL.FUSE.ENABLED: false leaves only MODEL.SPIKE_SKIP for spikes to enter by, "
                "which is false; set it true, or MODEL.USE_SPIKE false"
            )
        for name, part in (("SPIKE_TSA", model.SPIKE_TSA), ("FUSE", model.FUSE)):
            if any(channels % part.HEADS for channels in model.CHANNELS_PER_SCALE):
                raise ValueError(
                    f"MODEL.{name}.HEADS: {part.HEADS} heads do not divide "
                    f"MODEL.CHANNELS_PER_SCALE {list(model.CHANNELS_PER_SCALE)}"
                )
        if set(model.SPIKE_ENCODER.TEMPORAL_STRIDES or (1,)) != {1}:
            raise ValueError(
                "MODEL.SPIKE_ENCODER.TEMPORAL_STRIDES: fusion needs a spike feature for each "
                "frame, so expected [1, 1, 1] or null, got "
                f"{list(model.SPIKE_ENCODER.TEMPORAL_STRIDES or ())}"
            )
        return self
