"""`TRAIN`: length, pace and records of a run; `LOSS`: what it makes small."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator, ByteSize, Field

from .values import (
    Bool,
    Extent,
    Fraction,
    Int,
    Name,
    NaturalFloat,
    Number,
    PositiveFloat,
    PositiveInt,
    Section,
    Windows,
)

NaturalInt = Annotated[Int, Field(ge=0, le=10**9)]
Clips = Annotated[Int, Field(ge=1, le=100_000)]
Decays = Annotated[tuple[Fraction, ...], Field(min_length=1, max_length=8)]
VGGLayer = Literal["relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"]


def _amp_word(value: object) -> object:
    # YAML 1.1 reads a bare `off` as false; the field also writes `AMP: true`.
    if isinstance(value, bool):
        return "auto" if value else "off"
    return value


class OptimConfig(Section):
    """AdamW."""

    LR: PositiveFloat = 2e-4
    """Peak learning rate."""
    WEIGHT_DECAY: NaturalFloat = 1e-4
    """Decoupled weight decay."""
    FLOW_LR_SCALE: NaturalFloat = 1.0
    """Factor on the learning rate of the flow network (SpyNet); its authors' finetuning: 0.25."""
    BACKBONE_LR_SCALE: NaturalFloat = 1.0
    """Factor on the learning rate of the rest of the published network; for pretrained weights
    beside a new spike branch."""
    FLOW_FROZEN_STEPS: NaturalInt = 0
    """Steps at the start that leave the flow network unchanged."""
    BACKBONE_FROZEN_STEPS: NaturalInt = 0
    """Steps at the start that leave the published network unchanged, flow included, so that the
    spike branch alone is trained; for weights from `train --init` or MODEL.PRETRAINED."""


class SchedulerConfig(Section):
    """Learning rate over the run: linear warm-up, then down to MIN_LR at the last step."""

    TYPE: Literal["cosine", "wsd"] = "cosine"
    """How it falls. `cosine`: from the warm-up on, over the whole run. `wsd` (warm-up, stable,
    decay): only in the run's last part, DECAY; checkpoints/stable.pt is kept from before it, and a
    longer MAX_STEPS goes on from there, as if the run had been planned so long."""
    WARMUP_STEPS: NaturalInt = 1000
    """Optimizer steps from 0 to OPTIM.LR. With `cosine` at most half of the run, or 20 steps if
    that is more: a run of fewer steps does not reach OPTIM.LR. 0: no warm-up."""
    DECAY: Annotated[Number, Field(gt=0, lt=1)] = 0.2
    """Share of the run's steps, at its end, in which `wsd` takes the learning rate from OPTIM.LR to
    MIN_LR, as 1 minus the square root of the share that is done."""
    MIN_LR: NaturalFloat = 1e-7
    """Learning rate at the end."""


class PhaseConfig(Section):
    """Size of samples and batches from a step on. What is null is as in DATA and TRAIN."""

    FROM: NaturalInt
    """Steps before the phase. Phases before it end there; DATA and TRAIN hold before the first."""
    CROP_SIZE: Extent | None = None
    """Side of the square training crop, in pixels, as DATA.CROP_SIZE."""
    CLIP_LEN: Windows | None = None
    """Windows in a training clip, as DATA.CLIP_LEN."""
    BATCH_SIZE: Clips | None = None
    """Clips in a batch of one process."""
    GRADIENT_ACCUMULATION_STEPS: Clips | None = None
    """Batches a step."""


class TrainConfig(Section):
    """Length, pace and records of a run. A step is one update of the weights."""

    EPOCHS: PositiveInt = 80
    """Passes over the training windows; used where MAX_STEPS is null. One over several stores takes
    as many clips as all of them hold, by their weights."""
    MAX_STEPS: PositiveInt | None = None
    """Length of the run in steps, over EPOCHS; may grow when the run goes on. `--set
    TRAIN.EPOCHS=N` sets it to null unless it is given by `--set` as well."""
    BATCH_SIZE: Clips = 1
    """Clips in a batch of one process. A step has BATCH_SIZE * GRADIENT_ACCUMULATION_STEPS *
    processes clips, as the run begins; it keeps them, whatever number of processes go on with
    batches of what size."""
    NUM_WORKERS: Annotated[Int, Field(ge=0, le=1000)] | Literal["auto"] = 8
    """Loading processes of one training process, at most its share of the cores; 0 loads in
    the training process; `auto`: one core less than its share, at most 8."""
    PREFETCH_MB: Annotated[Int, Field(ge=1, le=10**6)] = 512
    """Memory for batches that workers have ready before they are needed, in MB a training
    process; a worker always has one under way."""
    GRADIENT_ACCUMULATION_STEPS: Clips = 6
    """Batches a step of each process, when the run begins."""
    PHASES: Annotated[tuple[PhaseConfig, ...], Field(max_length=100)] = ()
    """Other crops, clips and batches from given steps on, in rising order; validation and restoring
    keep DATA's. Phases that are not begun may change when the run goes on. Needs MAX_STEPS."""
    MEMORY_BUDGET: Literal["auto"] | Annotated[ByteSize, Field(ge=0, le=10**15)] | None = None
    """Memory that a training process may take, such as 16GB; GPU memory where there is a GPU.
    Trial steps before the first one choose what is recomputed in the backward pass: the fastest
    choice that stays within. `auto`: 0.9 of what is free. null: MODEL.RECOMPUTE and
    MODEL.USE_CHECKPOINT_* decide."""
    THREADS: Annotated[Int, Field(ge=1, le=1024)] | None = None
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
    """Compile the blocks of the network (torch.compile) for the shapes of the training clips: a
    while at the first start, for faster steps on a GPU. On a CPU it gains nothing."""
    EMA_DECAY: Fraction | Decays | None = 0.999
    """Decay a step of the averaged weights that are validated and kept; null: none. Averages of
    several decays, such as [0.99, 0.999], are all validated, and the best is kept."""
    SEED: Annotated[Int, Field(ge=0, le=2**63 - 1)] = 0
    """Seed of weights, order, crops and augmentation."""
    LOG_INTERVAL: PositiveInt = 50
    """Steps between lines of metrics.jsonl."""
    VAL_INTERVAL: PositiveInt = 1000
    """Steps between validations; there is one before the first step and one at the end too."""
    EARLY_STOP: PositiveInt | None = None
    """Validations in a row without a better one that end the run, that of the start being the first
    to beat; null: it takes all its steps.
    The learning rate falls over all of them, so a run that is ended early has not seen its end."""
    SAVE_INTERVAL: PositiveInt = 1000
    """Steps between writes of checkpoints/last.pt; there is one at the end too."""
    WANDB: Name | None = None
    """Project on Weights & Biases that gets the metrics too, by the extra `wandb`; null: none."""
    VAL_MAX_WINDOWS: PositiveInt | None = None
    """Validate on at most so many windows, evenly spread over the split, of several stores on one
    of each at least; null: all."""

    @property
    def ema_decays(self) -> tuple[float, ...]:
        """Decay of each average of the weights."""
        if self.EMA_DECAY is None:
            return ()
        return self.EMA_DECAY if isinstance(self.EMA_DECAY, tuple) else (self.EMA_DECAY,)

    def misfits(self) -> Iterator[str]:
        """Yield why values do not fit each other."""
        if len(set(self.ema_decays)) < len(self.ema_decays):
            yield f"EMA_DECAY: expected decays that differ, got two alike in {self.EMA_DECAY}"
        starts = [phase.FROM for phase in self.PHASES]
        if any(a >= b for a, b in itertools.pairwise(starts)):
            yield f"PHASES: expected FROM to rise from phase to phase, got {starts}"
        if starts and self.MAX_STEPS is None:
            yield (
                "PHASES: phases begin at steps, so the run's length is needed in steps too: "
                "expected MAX_STEPS, got null"
            )


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

    def misfits(self) -> Iterator[str]:
        """Yield why values do not fit each other."""
        if self.CHARBONNIER.WEIGHT == self.VGG_PERCEPTUAL.WEIGHT == 0:
            yield "expected a term with a WEIGHT above 0, got 0 for both"
