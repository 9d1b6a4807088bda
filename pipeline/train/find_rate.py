"""Which learning rate to begin with: a short run over rising ones.

Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017: the loss falls where the
learning rate does something, and rises where it is too much; a good peak lies a little below the
rise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from ...configs.schema import Config
from ...errors import SpikeDeblurError
from ...model import build_model
from ..host.reporter import Progress
from .clock import Clock
from .data.loader import open_loader
from .data.order import ClipIndex, StepPlan
from .data.samples import ClipSamples
from .data.splits import open_splits, seen_by
from .distributed import process_group
from .memory_advice import require_room
from .objective import Objective
from .precision import Precision
from .step import Learner, NonFiniteError

LOWEST, HIGHEST = 1e-6, 1.0
SMOOTHING = 0.9
DIVERGED = 2.0
"""Times the least loss so far that ends the search."""


class RateRangeError(SpikeDeblurError):
    """No learning rate was better than another."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RateRange:
    """What a search found."""

    suggested: float
    """A third of the learning rate at which the smoothed loss was least."""
    rates: tuple[float, ...]
    """Learning rates, rising."""
    losses: tuple[float, ...]
    """Smoothed, at each of `rates`."""
    diverged: bool
    """Whether the search met learning rates that are too high."""


def find_rate(config: Config, steps: int = 100, on_progress: Progress | None = None) -> RateRange:
    """Train a little, as configured but at learning rates from 1e-6 up; nothing is kept.

    Args:
        config: as for `train`.
        steps: from the lowest learning rate to the highest.
        on_progress: told after each step.

    Raises:
        RateRangeError: the loss never fell.
        SpikeDeblurError: `train` would not start.
    """
    with process_group() as group:
        options, data = config.TRAIN, config.DATA
        if options.THREADS is not None:
            torch.set_num_threads(options.THREADS)
        require_room(config)
        training, _ = open_splits(config)
        index = ClipIndex.every_start([s.length for s in training], data.CLIP_LEN)
        accumulation = options.GRADIENT_ACCUMULATION_STEPS
        plan = StepPlan(index, options.BATCH_SIZE, accumulation, options.SEED, 0, 1)
        samples = ClipSamples(
            seen_by(data.NORM, training),
            index,
            crop_size=data.CROP_SIZE,
            augment=data.AUGMENT,
            seed=options.SEED,
        )
        torch.manual_seed(options.SEED)
        learner = Learner.start(
            config,
            group,
            build_model(config).to(group.device),
            Objective(config.LOSS).to(group.device),
            Precision.choose(options.AMP, group.device),
        )
        clock = Clock(group.device)
        learning_rates: list[float] = []
        losses: list[float] = []
        smoothed, diverged = 0.0, False
        with open_loader(samples, plan, 0, steps, workers=0, pin=False) as batches:
            for i, batch in enumerate(batches):
                learning_rate = LOWEST * (HIGHEST / LOWEST) ** (i / max(steps - 1, 1))
                try:
                    loss, *_ = learner.step(
                        batch, i, learning_rate, clock, raw=training[0].windows_are_raw
                    )
                except NonFiniteError:
                    diverged = True
                    break
                smoothed = SMOOTHING * smoothed + (1 - SMOOTHING) * loss
                learning_rates.append(learning_rate)
                losses.append(smoothed / (1 - SMOOTHING ** (i + 1)))
                if on_progress is not None:
                    on_progress(
                        i + 1, steps, f"learning rate {learning_rate:.1e}, loss {losses[-1]:.4f}"
                    )
                if losses[-1] > DIVERGED * min(losses):
                    diverged = True
                    break
    return summarise(learning_rates, losses, diverged=diverged)


def summarise(learning_rates: list[float], losses: list[float], *, diverged: bool) -> RateRange:
    """Judge smoothed losses at rising learning rates.

    Raises:
        RateRangeError: the loss never fell.
    """
    if not losses or int(np.argmin(losses)) == 0:
        raise RateRangeError(
            f"the loss did not fall at any learning rate from {LOWEST:g} up; check the data "
            "with `spikedeblur check`, or set TRAIN.AMP=off"
        )
    suggested = learning_rates[int(np.argmin(losses))] / 3
    digits = 1 - math.floor(math.log10(suggested))
    return RateRange(
        suggested=round(suggested, digits),
        rates=tuple(learning_rates),
        losses=tuple(losses),
        diverged=diverged,
    )
