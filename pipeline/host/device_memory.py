"""Free and peak memory of a device, and an error that says which settings take less."""

from __future__ import annotations

import resource
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from ...errors import SpikeDeblurError
from .allocator import give_back_freed_memory
from .machine import free_main_memory


class NotEnoughMemoryError(SpikeDeblurError):
    """The device's memory does not suffice; the message says which settings take less."""


@contextmanager
def explained_shortage(doing: str, advice: str) -> Iterator[None]:
    """Turn an allocator's error into `NotEnoughMemoryError`.

    Args:
        doing: what is being done, for the message.
        advice: which settings help, and by how much.

    Raises:
        NotEnoughMemoryError: memory did not suffice.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # On a CPU, torch raises a plain RuntimeError.
        known = (MemoryError, torch.OutOfMemoryError)
        if not isinstance(error, known) and "can't allocate memory" not in str(error):
            raise
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NotEnoughMemoryError(f"{doing}: out of memory ({first}); {advice}") from error


def write_memory_snapshot(path: Path, device: torch.device) -> bool:
    """Write what holds a GPU's memory, and who took it where torch records that.

    Returns:
        False if nothing is written: the device is no GPU, or the file can't be.
    """
    if device.type != "cuda":
        return False
    try:
        torch.cuda.memory._dump_snapshot(str(path))
    except OSError:
        return False
    return True


def free_memory(device: torch.device) -> int:
    """Return the bytes that this process could still take on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_main_memory()


def peak_memory(device: torch.device) -> int:
    """Return the most bytes that this process ever held; on a GPU, the most that torch held."""
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
    """Call `run`, and return how many bytes more than before are held at its peak."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    give_back_freed_memory()  # memory that is merely taken again would not show
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
    """Have Linux count this process's peak of memory anew; False where that can't be asked."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
