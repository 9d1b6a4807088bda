"""What this machine, its container and the user leave to a command: cores and memory."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
from pydantic import ByteSize, TypeAdapter, ValidationError

from ...errors import SpikeDeblurError

MEMORY = "SPIKEDEBLUR_MEMORY"
"""Environment variable: memory that a command may take with all its processes, such as 8GB."""

SHARE_OF_MEMORY = 0.8
"""Of the free memory, that worker processes take; the rest is for other programs."""


class MachineError(SpikeDeblurError):
    """What is said of the machine can't be read."""


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_gpu() -> bool:
    """Return whether a driver of NVIDIA or AMD offers a GPU, without torch, which takes seconds."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()


def free_main_memory() -> int:
    """Return the bytes of main memory that this command could still take.

    Raises:
        MachineError: `SPIKEDEBLUR_MEMORY` is no size.
    """
    free: int = psutil.virtual_memory().available
    limit, used = (_cgroup_bytes(name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None:
        free = min(free, limit - used)
    said = os.environ.get(MEMORY)
    if not said:
        return free
    try:
        return min(free, TypeAdapter(ByteSize).validate_python(said))
    except ValidationError as error:
        raise MachineError(f"{MEMORY}: expected a size such as 8GB, found {said!r}") from error


def workers_that_fit(worker_bytes: int) -> int:
    """Return how many processes to start where nobody said: one a core, if memory holds them.

    Args:
        worker_bytes: what one comes to hold.

    Raises:
        MachineError: as `free_main_memory`.
    """
    fit = int(SHARE_OF_MEMORY * free_main_memory()) // worker_bytes
    return max(1, min(available_cores(), fit))


def _cgroup_bytes(name: str) -> int | None:
    """Return a limit of the container that this process is in; None where there is none."""
    try:
        text = Path("/sys/fs/cgroup", name).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
