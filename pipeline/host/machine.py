"""Cores and memory that a command may use, by the machine, its container and the user."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
from pydantic import ByteSize, TypeAdapter, ValidationError

from ...errors import SpikeDeblurError

MEMORY = "SPIKEDEBLUR_MEMORY"
"""Environment variable: memory that a command may take with all its processes, such as 8GB."""

SHARE_OF_MEMORY = 0.8
"""Share of the free memory that worker processes take; the rest is for other programs."""


class MachineError(SpikeDeblurError):
    """A setting about the machine can't be read."""


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_gpu() -> bool:
    """Whether a driver of NVIDIA or AMD offers a GPU; loads no torch, which takes seconds."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()


def free_main_memory() -> int:
    """Return the bytes of main memory that this command could still take.

    Raises:
        MachineError: `SPIKEDEBLUR_MEMORY` is no size.
    """
    free: int = psutil.virtual_memory().available
    limit, used = cgroup_value("memory.max"), cgroup_value("memory.current")
    if limit.isdigit() and used.isdigit():
        free = min(free, int(limit) - int(used))
    wanted = size_from_environment(MEMORY, "8GB")
    return free if wanted is None else min(free, wanted)


def size_from_environment(variable: str, example: str) -> int | None:
    """Return the bytes that an environment variable names, or None where it is not set.

    Args:
        variable: its name.
        example: a fitting value, for the message.

    Raises:
        MachineError: its value is no size.
    """
    wanted = os.environ.get(variable)
    if not wanted:
        return None
    try:
        return TypeAdapter(ByteSize).validate_python(wanted)
    except ValidationError as error:
        raise MachineError(
            f"{variable}: expected a size such as {example}, found {wanted!r}"
        ) from error


def workers_that_fit(worker_bytes: int) -> int:
    """Return how many processes to start by default: one a core, or fewer if memory is short.

    Args:
        worker_bytes: memory that one process takes, in bytes.

    Raises:
        MachineError: `SPIKEDEBLUR_MEMORY` is no size.
    """
    fit = int(SHARE_OF_MEMORY * free_main_memory()) // worker_bytes
    return max(1, min(available_cores(), fit))


def cgroup_value(name: str) -> str:
    """Return what a file of the container's limits holds; empty where there is none."""
    try:
        return Path("/sys/fs/cgroup", name).read_text().strip()
    except OSError:
        return ""
