"""What a run would take, found without training."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...configs.schema import Config
from ...errors import SpikeDeblurError
from ...model import configured_recompute, outline_model
from ..host.reporter import Note
from .data.order import ClipIndex, StepPlan
from .data.splits import open_splits
from .distributed import process_group
from .memory_advice import require_room
from .memory_budget import fit_in_budget, try_step
from .optimizer import total_steps
from .precision import Precision


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """What a run on one process of this machine would do and take."""

    parameters: int
    """Of the network, that are trained."""
    device: str
    precision: str
    sequences: int
    """To train on."""
    clips: int
    """In them."""
    steps: int
    epochs: float
    clips_a_step: int
    recomputed: str
    """Parts of the network that a step computes twice."""
    peak_bytes: int
    """Of a step: all of the process; on a GPU, what torch takes there."""
    cache_bytes: int
    """Beside it at most: windows kept in memory, `DATA.CACHE_SIZE_GB`."""
    seconds_a_step: float
    """Without waiting for data."""
    seconds: float
    """Of all steps, without validation."""
    extrapolated: bool
    """Memory and time follow from smaller steps."""


def plan_run(config: Config, on_note: Note = lambda note: None) -> RunPlan:
    """Check configuration and data as `train` does, and try a step; nothing is written.

    Raises:
        SpikeDeblurError: `train` would not start, or would run out of memory.
    """
    with process_group() as group:
        device = group.device
        if config.TRAIN.THREADS is not None:
            torch.set_num_threads(config.TRAIN.THREADS)
        precision = Precision.choose(config.TRAIN.AMP, device)
        require_room(config)
        training, _ = open_splits(config)
        options, data = config.TRAIN, config.DATA
        index = ClipIndex.every_start([s.length for s in training], data.CLIP_LEN)
        plan = StepPlan(
            index,
            options.BATCH_SIZE,
            options.GRADIENT_ACCUMULATION_STEPS,
            options.SEED,
            group.rank,
            group.world,
        )
        steps = total_steps(options, plan.steps_an_epoch)
        model = outline_model(config)
        if options.MEMORY_BUDGET is not None:
            recompute, trial = fit_in_budget(config, device, on_note)
        else:
            recompute, found = configured_recompute(config.MODEL), try_step(config, device)
            if found is None:
                raise SpikeDeblurError(
                    "a step takes more memory than there is; set TRAIN.MEMORY_BUDGET=auto, or "
                    "lower TRAIN.BATCH_SIZE, DATA.CROP_SIZE or DATA.CLIP_LEN"
                )
            trial = found
        return RunPlan(
            parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            precision=str(precision.dtype or torch.float32).removeprefix("torch."),
            sequences=len(training),
            clips=len(index),
            steps=steps,
            epochs=steps / plan.steps_an_epoch,
            clips_a_step=plan.samples_a_step,
            recomputed=str(recompute),
            peak_bytes=trial.peak_bytes,
            cache_bytes=int(data.USE_RAM_CACHE * data.CACHE_SIZE_GB * 2**30),
            seconds_a_step=trial.seconds,
            seconds=steps * trial.seconds,
            extrapolated=trial.extrapolated,
        )
