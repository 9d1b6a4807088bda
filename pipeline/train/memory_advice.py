"""Advice on the TRAIN, MODEL and DATA keys that lower a step's memory."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from ...configs.schema import Config
from ...configs.schema.model import RecomputedPart
from ...model import outline_model
from ..host.device_memory import NotEnoughMemoryError, write_memory_snapshot
from ..host.machine import free_main_memory
from .distributed import Group

# Shares of the memory that a step of deblurring VRT keeps for its backward pass
# (float32, 3 frames of 64x64: 1.97 and 1.83 of 4.39 GB).
_KEPT = {"USE_CHECKPOINT_FFN": 0.45, "USE_CHECKPOINT_ATTN": 0.42}
# Share by which a step's peak falls when alignment, blocks and stages are recomputed too
# (6 frames of 64x64: 4.7 to 3.4 GB).
_LEFT_BY_BOTH = 0.27


def training_advice(config: Config) -> str:
    """Return the settings that lower a step's memory, the cheapest first."""
    model, data, train = config.MODEL, config.DATA, config.TRAIN
    helps = []
    if train.BATCH_SIZE % 2 == 0:
        helps.append(
            f"TRAIN.BATCH_SIZE={train.BATCH_SIZE // 2} with TRAIN.GRADIENT_ACCUMULATION_STEPS="
            f"{2 * train.GRADIENT_ACCUMULATION_STEPS} (half, the same result)"
        )
    for key, share in _KEPT.items():
        if model.RECOMPUTE is None and not getattr(model, key):
            helps.append(f"MODEL.{key}=true (about {share:.0%} less, the same result)")
    parts = get_args(RecomputedPart)
    if set(model.RECOMPUTE or ()) != set(parts):
        helps.append(
            f"MODEL.RECOMPUTE='[{', '.join(parts)}]' (about {_LEFT_BY_BOTH:.0%} less than with "
            "both MODEL.USE_CHECKPOINT keys, the same result)"
        )
        if train.MEMORY_BUDGET is None:
            helps.append("TRAIN.MEMORY_BUDGET=auto without MODEL.RECOMPUTE (the fastest that fits)")
    smaller = data.CROP_SIZE // 2
    if smaller and smaller % (8 * model.TRUNK_SCALE) == 0:
        helps.append(f"DATA.CROP_SIZE={smaller} (a quarter)")
    if data.CLIP_LEN > 2:
        less = 1 - (data.CLIP_LEN - 1) / data.CLIP_LEN
        helps.append(f"DATA.CLIP_LEN={data.CLIP_LEN - 1} ({less:.0%} less)")
    if not helps:
        return "use a smaller network, or a device with more memory"
    return "set " + ", or ".join(helps)


def shortage_in_run(
    error: NotEnoughMemoryError, run: Path, step: int, group: Group
) -> NotEnoughMemoryError:
    """Return the error of a step that ran out of memory, with what is kept and where to look.

    Args:
        error: as the step raised it; it still holds what the step held, for the snapshot.
        run: folder of the run.
        step: steps before the one that failed; its checkpoint is written.
        group: the processes, and this one's device.
    """
    text = (
        f"{error}. The checkpoint of step {step} is written; go on with --resume and a setting "
        "that leaves the result the same"
    )
    snapshot = run / f"memory_{group.rank}.pickle"
    if write_memory_snapshot(snapshot, group.device):
        text += f". What held the memory: {snapshot} (a snapshot for pytorch.org/memory_viz)"
    return NotEnoughMemoryError(text)


def require_room(config: Config) -> None:
    """Refuse a network whose weights are larger than free main memory, before it is built.

    Raises:
        NotEnoughMemoryError: the weights are larger.
    """
    weights = outline_model(config).state_dict().values()
    taken = sum(weight.numel() * weight.element_size() for weight in weights)
    free = free_main_memory()
    if taken > free:
        raise NotEnoughMemoryError(
            f"the network's weights take {taken / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory "
            "are free; lower embed_dims, window_size or depths (--set MODEL.VRT.embed_dims=...), "
            "or DATA.K"
        )
