"""Length of a run, its learning rates by step and by part of the network, the average's decay.

All follow from the configuration and the step's number, so resuming needs no state.
"""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from ...configs.schema.train import OptimConfig, TrainConfig

LEAST_WARMUP = 20
"""Warm-up of the shortest runs, in steps, where WARMUP_STEPS is no less. Runs of fewer steps end
within it, so none begins at the full learning rate."""


def total_steps(train: TrainConfig, steps_an_epoch: int) -> int:
    """Return the run's length in steps: MAX_STEPS or, where it is null, EPOCHS in steps."""
    return train.MAX_STEPS or train.EPOCHS * steps_an_epoch


def warmup_steps(train: TrainConfig, total: int) -> int:
    """Return the warm-up's length: WARMUP_STEPS, with cosine at most half the run or LEAST_WARMUP.

    With wsd it is WARMUP_STEPS whatever the run's length, which may grow.
    """
    if train.SCHEDULER.TYPE == "wsd":
        return train.SCHEDULER.WARMUP_STEPS
    return min(train.SCHEDULER.WARMUP_STEPS, max(LEAST_WARMUP, total // 2))


def decay_start(train: TrainConfig, total: int) -> int:
    """Return how many steps a run takes before the last, falling part of its wsd schedule.

    With cosine the learning rate of every step follows from the run's length: 0.
    """
    if train.SCHEDULER.TYPE == "cosine":
        return 0
    return total - max(1, round(train.SCHEDULER.DECAY * total))


def learning_rate_at(train: TrainConfig, step: int, total: int) -> float:
    """Return the learning rate of step 0, ..., total - 1: linear warm-up, then SCHEDULER.TYPE.

    The warm-up's last step has OPTIM.LR, the run's last step SCHEDULER.MIN_LR. Cosine: Loshchilov
    and Hutter, arXiv 1608.03983, without restarts. wsd: Hu et al., arXiv 2404.06395, with the decay
    that Haegele et al., arXiv 2405.18392, found best.
    """
    if train.SCHEDULER.TYPE == "wsd":
        return _stable_then_decay(train, step, total)
    peak, least = train.OPTIM.LR, train.SCHEDULER.MIN_LR
    warmup = warmup_steps(train, total)
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(total - 1 - warmup, 1)
    return least + (peak - least) * (1 + math.cos(math.pi * done)) / 2


def _stable_then_decay(train: TrainConfig, step: int, total: int) -> float:
    start, warmup = decay_start(train, total), train.SCHEDULER.WARMUP_STEPS
    reached = min(step, start) + 1
    stable = train.OPTIM.LR * (reached / warmup if reached < warmup else 1.0)
    if step < start:
        return stable
    least = min(train.SCHEDULER.MIN_LR, stable)
    done = (step + 1 - start) / (total - start)
    return least + (stable - least) * (1 - math.sqrt(done))


def ema_decay(decay: float, step: int) -> float:
    """Return the decay at a step: low at first, so that random first weights are forgotten."""
    return min(decay, (1 + step) / (10 + step))


def parameter_groups(model: nn.Module, optim: OptimConfig) -> list[dict[str, Any]]:
    """Return AdamW's groups: parts of the network, each with the `scale` of its learning rate."""
    scales = {"flow": optim.FLOW_LR_SCALE, "backbone": optim.BACKBONE_LR_SCALE, "rest": 1.0}
    parts: dict[str, list[nn.Parameter]] = {part: [] for part in scales}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            flow = name.startswith("vrt.spynet.")
            part = "flow" if flow else "backbone" if name.startswith("vrt.") else "rest"
            parts[part].append(parameter)
    return [
        {"params": parameters, "part": part, "scale": scales[part]}
        for part, parameters in parts.items()
        if parameters
    ]
