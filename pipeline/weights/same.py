"""Whether two configurations are of one run."""

from __future__ import annotations

from typing import Any

from ...configs.schema import Config

HARMLESS = frozenset(
    {
        "DATA.ROOT",
        "DATA.ALIGN_LOG_PATHS",
        "DATA.USE_RAM_CACHE",
        "DATA.CACHE_SIZE_GB",
        "DATA.VERIFY",
        "DATA.SPIKES_ON_DEVICE",
        "MODEL.VRT_CFG",
        "MODEL.PRETRAINED",
        "TRAIN.BATCH_SIZE",
        "TRAIN.GRADIENT_ACCUMULATION_STEPS",
        "MODEL.USE_CHECKPOINT_ATTN",
        "MODEL.USE_CHECKPOINT_FFN",
        "MODEL.RECOMPUTE",
        "TRAIN.MEMORY_BUDGET",
        "TRAIN.EARLY_STOP",
        "TRAIN.NUM_WORKERS",
        "TRAIN.NON_FINITE",
        "TRAIN.PREFETCH_MB",
        "TRAIN.LOG_INTERVAL",
        "TRAIN.SAVE_INTERVAL",
    }
)
"""Keys that may differ within one run: they change no weight, or their effect is compared
instead (the data's content). Clips a step are the run's own, whatever batches they come in."""

STEERING = frozenset(
    {
        "TRAIN.MAX_STEPS",
        "TRAIN.EPOCHS",
        "TRAIN.OPTIM.LR",
        "TRAIN.OPTIM.WEIGHT_DECAY",
        "TRAIN.OPTIM.FLOW_LR_SCALE",
        "TRAIN.OPTIM.BACKBONE_LR_SCALE",
        "TRAIN.OPTIM.FLOW_FROZEN_STEPS",
        "TRAIN.OPTIM.BACKBONE_FROZEN_STEPS",
        "TRAIN.SCHEDULER.WARMUP_STEPS",
        "TRAIN.SCHEDULER.MIN_LR",
        "TRAIN.SCHEDULER.DECAY",
        "TRAIN.PHASES",
        "TRAIN.GRAD_CLIP",
        "TRAIN.AMP",
        "TRAIN.COMPILE",
        "TRAIN.THREADS",
        "TRAIN.ON_ERROR",
        "TRAIN.VAL_INTERVAL",
        "TRAIN.VAL_MAX_WINDOWS",
        "TRAIN.WANDB",
    }
)
"""Keys that may be set anew when a run goes on: they change the steps to come, as asked. Phases
that have begun are compared."""


def differences(before: Config, now: Config) -> list[str]:
    """Return each key that no run may have two values of and that differs, with both values."""
    return [
        f"{key} ({old!r} before, {new!r} now)"
        for key, (old, new) in changes(before, now).items()
        if key not in HARMLESS | STEERING
    ]


def changes(before: Config, now: Config) -> dict[str, tuple[Any, Any]]:
    """Return each key that differs, with its value before and now."""
    old, new = leaves(before.model_dump(mode="json")), leaves(now.model_dump(mode="json"))
    return {
        key: (old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    }


def leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return the values of a tree of dictionaries by their names, joined by dots."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        key: value
        for name, below in tree.items()
        for key, value in leaves(below, f"{prefix}.{name}" if prefix else name).items()
    }
