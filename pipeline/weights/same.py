"""Whether two configurations train the same weights."""

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


def differences(before: Config, now: Config) -> list[str]:
    """Return each key that changes a run's result and differs, with both values."""
    old, new = leaves(before.model_dump(mode="json")), leaves(now.model_dump(mode="json"))
    return [
        f"{key} ({old.get(key)!r} before, {new.get(key)!r} now)"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and key not in HARMLESS
    ]


def leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return the values of a tree of dictionaries by their names, joined by dots."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        key: value
        for name, below in tree.items()
        for key, value in leaves(below, f"{prefix}.{name}" if prefix else name).items()
    }
