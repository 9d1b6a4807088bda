"""How much memory there is and was, and an error that says what helps where it did not suffice."""

from __future__ import annotations

import resource
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import psutil
import torch

from ..configs.schema import Config, RecomputedPart
from ..errors import SpikeDeblurError
from ..model import outline_model
from .allocator import give_back_freed_memory
from .machine import free_main_memory

# What a step of deblurring VRT keeps for its backward pass, by part, of all that it keeps
# (float32, 3 frames of 64x64: 1.97 and 1.83 of 4.39 GB).
_KEPT_BY_FEED_FORWARD, _KEPT_BY_ATTENTION = 0.45, 0.42
# And by how much a step's peak falls when alignment, blocks and stages are recomputed too
# (6 frames of 64x64: 4.7 to 3.4 GB).
_LEFT_BY_BOTH = 0.27


class NotEnoughMemoryError(SpikeDeblurError):
    """The device's memory does not suffice; the message says which settings take less."""


@contextmanager
def explained_shortage(doing: str, advice: str) -> Iterator[None]:
    """Turn an allocator's error into ours.

    Args:
        doing: what was going on, for the message.
        advice: which settings help, and by how much.

    Raises:
        NotEnoughMemoryError: memory did not suffice.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # On a CPU, torch says it in a plain RuntimeError.
        known = (MemoryError, torch.OutOfMemoryError)
        if not isinstance(error, known) and "can't allocate memory" not in str(error):
            raise
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NotEnoughMemoryError(f"{doing}: out of memory ({first}); {advice}") from error


def training_advice(config: Config) -> str:
    """Return the settings that lower a step's memory, the cheapest first."""
    model, data, train = config.MODEL, config.DATA, config.TRAIN
    helps = []
    if train.BATCH_SIZE % 2 == 0:
        helps.append(
            f"TRAIN.BATCH_SIZE={train.BATCH_SIZE // 2} with TRAIN.GRADIENT_ACCUMULATION_STEPS="
            f"{2 * train.GRADIENT_ACCUMULATION_STEPS} (half, the same result)"
        )
    if model.RECOMPUTE is None and not model.USE_CHECKPOINT_FFN:
        helps.append(
            f"MODEL.USE_CHECKPOINT_FFN=true (about {_KEPT_BY_FEED_FORWARD:.0%} less, the same "
            "result)"
        )
    if model.RECOMPUTE is None and not model.USE_CHECKPOINT_ATTN:
        helps.append(
            f"MODEL.USE_CHECKPOINT_ATTN=true (about {_KEPT_BY_ATTENTION:.0%} less, the same result)"
        )
    parts = get_args(RecomputedPart)
    if set(model.RECOMPUTE or ()) != set(parts):
        helps.append(
            f"MODEL.RECOMPUTE='[{', '.join(parts)}]' (about {_LEFT_BY_BOTH:.0%} less than with "
            "both MODEL.USE_CHECKPOINT keys, the same result)"
        )
    if train.MEMORY_BUDGET is None and set(model.RECOMPUTE or ()) != set(parts):
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


def require_room(config: Config) -> None:
    """Refuse a network whose weights are larger than free main memory, before it is built.

    Raises:
        NotEnoughMemoryError: they are.
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


def free_memory(device: torch.device) -> int:
    """Return the bytes that this process could still take on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_main_memory()


def peak_memory(device: torch.device) -> int:
    """Return the most bytes that this process ever held; on a GPU, that torch held there."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    try:
        # Linux counts what an earlier program of the same process took into ru_maxrss.
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def memory_taken(run: Callable[[], object], device: torch.device) -> int:
    """Run something, and return how many bytes more than before were held at its peak."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    give_back_freed_memory()  # or what is taken again would not show
    process = psutil.Process()
    before = process.memory_info().rss
    if _forget_peak():
        run()
        return peak_memory(device) - before
    peak = before
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.002):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        run()
    finally:
        ended.set()
        watcher.join()
    return max(peak, process.memory_info().rss) - before


def _forget_peak() -> bool:
    """Let Linux count this process's peak of memory anew; False where it can't be asked to."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
