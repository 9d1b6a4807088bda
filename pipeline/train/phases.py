"""Phases of a run: its crop, clip length and batch by step (TRAIN.PHASES).

A phase counts its steps and its epochs from its own start, and draws from a seed of its own; the
first has the run's. So the samples of a step follow from its number, as in a run of one phase.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...configs.schema import Config
from .data.loader import Batch, open_loader
from .data.order import StepPlan
from .data.samples import ClipSamples

_PHASE_SEED = 4


@dataclass(frozen=True)
class Phase:
    """Steps of a run with samples of one size."""

    start: int
    """Steps of the run before its first."""
    config: Config
    """The run's configuration, with the crop, clip and batch of this phase."""
    training: ClipSamples
    plan: StepPlan
    """Clips of each step, the phase's first being 0."""

    def facts(self) -> list[int]:
        """Return what decides on its samples, as a checkpoint holds it."""
        data = self.config.DATA
        return [self.start, data.CROP_SIZE, data.CLIP_LEN, self.plan.samples_a_step]


def phase_configs(config: Config) -> list[tuple[int, Config]]:
    """Return the first step of each phase, and the configuration of its steps."""
    phases = []
    if not config.TRAIN.PHASES or config.TRAIN.PHASES[0].FROM > 0:
        phases.append((0, _with(config, {}, {})))
    for phase in config.TRAIN.PHASES:
        values = phase.model_dump(exclude={"FROM"}, exclude_none=True)
        data: dict[str, Any] = {
            key: values.pop(key) for key in ("CROP_SIZE", "CLIP_LEN") if key in values
        }
        phases.append((phase.FROM, _with(config, data, values)))
    return phases


def _with(config: Config, data: dict[str, Any], train: dict[str, Any]) -> Config:
    return config.model_copy(
        update={
            "DATA": config.DATA.model_copy(update=data),
            "TRAIN": config.TRAIN.model_copy(update=train | {"PHASES": ()}),
        }
    )


def largest_phase(config: Config) -> Config:
    """Return the configuration of the phase whose steps take the most memory."""
    return max((settings for _, settings in phase_configs(config)), key=pixels)


def pixels(config: Config) -> int:
    """Return the pixels of a batch: clips, windows and both sides of the crop."""
    return config.TRAIN.BATCH_SIZE * config.DATA.CLIP_LEN * config.DATA.CROP_SIZE**2


def phase_seed(seed: int, start: int) -> int:
    """Return the seed of a phase: the run's own for its first steps."""
    if start == 0:
        return seed
    drawn = np.random.SeedSequence([seed, _PHASE_SEED, start])
    return int(drawn.generate_state(1, np.uint64)[0] >> 1)


def spans(
    phases: Sequence[Phase], from_step: int, to_step: int
) -> Iterator[tuple[Phase, int, int]]:
    """Yield each phase with steps in [from_step, to_step): it, its first step, one past its last.

    Steps are counted from the phase's start.
    """
    stops = [phase.start for phase in phases[1:]] + [to_step]
    for phase, stop in zip(phases, stops, strict=True):
        first, last = max(from_step, phase.start), min(stop, to_step)
        if first < last:
            yield phase, first - phase.start, last - phase.start


def epochs_at(phases: Sequence[Phase], step: int) -> float:
    """Return the passes over the training windows in the steps before one."""
    return sum((last / phase.plan.steps_an_epoch for phase, _, last in spans(phases, 0, step)), 0.0)


def relative_time(phases: Sequence[Phase], from_step: int, to_step: int) -> float:
    """Return the time of steps [from_step, to_step), in steps of the largest phase."""
    largest = max(phases, key=lambda phase: pixels(phase.config))
    whole = pixels(largest.config) * largest.plan.batches_a_step
    return sum(
        (last - first) * (pixels(phase.config) * phase.plan.batches_a_step / whole)
        for phase, first, last in spans(phases, from_step, to_step)
    )


@contextmanager
def open_phases(
    phases: Sequence[Phase], from_step: int, to_step: int, **how: Any
) -> Iterator[Iterator[list[Batch]]]:
    """Yield an iterator over steps, as `open_loader`, through all phases.

    Args:
        phases: in the order of their steps; the cache of the first serves all.
        from_step: first step, counted from the run's start.
        to_step: one past the last step.
        how: further arguments of `open_loader`.
    """
    for phase in phases[1:]:
        phase.training.cache = phases[0].training.cache
    left = list(spans(phases, from_step, to_step))
    with ExitStack() as opened:

        def loaded(phase: Phase, first: int, last: int) -> Iterator[list[Batch]]:
            opened.close()  # the loading processes of the phase before end first
            return opened.enter_context(open_loader(phase.training, phase.plan, first, last, **how))

        # The first phase's workers begin at once, while the start is validated.
        begun = [loaded(*span) for span in left[:1]]

        def steps() -> Iterator[list[Batch]]:
            for steps_of_phase in begun:
                yield from steps_of_phase
            for span in left[1:]:
                yield from loaded(*span)

        yield steps()
