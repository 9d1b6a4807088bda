"""Search for the peak learning rate: a short run over rising ones.

Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017: the loss falls where the
learning rate does something, and rises where it is too much; a good peak lies a little below the
rise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...configs.schema import Config
from ...errors import SpikeDeblurError
from ..host.reporter import SILENT, Reporter
from .clock import Clock
from .data.loader import open_loader
from .distributed import process_group
from .session import Session
from .step import NonFiniteError

LOWEST, HIGHEST = 1e-6, 1.0
SMOOTHING = 0.9
DIVERGED = 2.0
"""Ratio of the loss to its least so far that ends the search."""


class RateRangeError(SpikeDeblurError):
    """No learning rate was better than another."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RateRange:
    """Loss at rising learning rates, and the learning rate that follows."""

    suggested: float
    """Third of the learning rate at which the smoothed loss was least."""
    rates: tuple[float, ...]
    """Learning rates of the steps, rising."""
    losses: tuple[float, ...]
    """Smoothed loss at each of `rates`."""
    diverged: bool
    """Whether the loss rose at learning rates that are too high."""


def find_rate(config: Config, steps: int = 100, *, reporter: Reporter = SILENT) -> RateRange:
    """Train a little, as configured but at learning rates from 1e-6 up; nothing is kept.

    Args:
        config: the whole configuration.
        steps: steps from the lowest learning rate to the highest.
        reporter: hears the steps done, and which parts are recomputed.

    Raises:
        RateRangeError: the loss never fell.
        SpikeDeblurError: `train` would not start.
    """
    learning_rates: list[float] = []
    losses: list[float] = []
    smoothed, diverged = 0.0, False
    with process_group() as group:
        session = Session.open(_from_random_weights(config), group, reporter=reporter)
        raw = session.training.sequences[0].windows_are_raw
        learner, clock = session.learner(), Clock(group.device)
        reporter.progress(0, steps)
        with open_loader(session.training, session.plan, 0, steps, workers=0, pin=False) as batches:
            for i, batch in enumerate(batches):
                learning_rate = LOWEST * (HIGHEST / LOWEST) ** (i / max(steps - 1, 1))
                try:
                    loss, *_ = learner.step(batch, i, learning_rate, clock, raw=raw)
                except NonFiniteError:
                    diverged = True
                    reporter.note(f"ended at step {i + 1} of {steps}: the loss is no number")
                    break
                smoothed = SMOOTHING * smoothed + (1 - SMOOTHING) * loss
                learning_rates.append(learning_rate)
                losses.append(smoothed / (1 - SMOOTHING ** (i + 1)))
                note = f"learning rate {learning_rate:.1e}, loss {losses[-1]:.4f}"
                reporter.progress(i + 1, steps, note)
                if losses[-1] > DIVERGED * min(losses):
                    diverged = True
                    reporter.note(f"ended after step {i + 1} of {steps}: {note}")
                    break
    return summarise(learning_rates, losses, diverged=diverged)


def _from_random_weights(config: Config) -> Config:
    """Return the configuration without the start at a base, whose loss falls too little to see."""
    if config.MODEL.RESIDUAL_BASE == "blur":
        return config
    fuse = config.MODEL.FUSE.model_copy(update={"IDENTITY_INIT": False})
    model = config.MODEL.model_copy(update={"FUSE": fuse})
    return config.model_copy(update={"MODEL": model})


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
