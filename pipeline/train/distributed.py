"""One training process, or several that torchrun started, with the same code."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import psutil
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ...errors import SpikeDeblurError

T = TypeVar("T")

MEETING = "SPIKEDEBLUR_MEETING"
"""Environment variable: a private file in which the processes of one machine find each other."""

_PATIENCE = datetime.timedelta(hours=1)  # the first process may preload or validate meanwhile


@dataclass(frozen=True, slots=True)
class Group:
    """Processes that train one model together: the rank and the device of this one."""

    rank: int
    world: int
    device: torch.device
    local_world: int = 1
    """Processes on this machine, which share its cores."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and reports."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sums over all processes, in float64."""
        if self.world == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        return cast(list[float], sums.tolist())

    def any(self, value: bool) -> bool:
        """Return whether `value` is true on any process."""
        return self.sum([float(value)])[0] > 0

    def gather(self, value: T) -> list[T]:
        """Return every process's value, in the order of rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def on_first(self, function: Callable[[], T]) -> T:
        """Call a function on the first process; all return its result, or raise its error."""
        if self.world == 1:
            return function()
        outcome: list[Any] = [None, None]
        if self.is_first:
            try:
                outcome[0] = function()
            except Exception as error:
                dist.broadcast_object_list([None, str(error)])
                raise
        dist.broadcast_object_list(outcome)
        if outcome[1] is not None:
            raise SpikeDeblurError(f"stopped, as the first process did: {outcome[1]}")
        return cast(T, outcome[0])

    def wrap(self, model: nn.Module, *, some_unused: bool) -> nn.Module:
        """Return the model with its gradients averaged over the processes.

        Args:
            model: the model on this process's device.
            some_unused: some parameters may get no gradient in a step; looking for them costs.
        """
        if self.world == 1:
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(
            model, device_ids=ids, broadcast_buffers=False, find_unused_parameters=some_unused
        )


@contextmanager
def process_group() -> Iterator[Group]:
    """Yield the group of this process, by torchrun's environment; without it, of one process.

    Each process has a GPU with nccl, or the CPU with gloo. If all are on this machine, they listen
    on its loopback only.

    Raises:
        SpikeDeblurError: more processes on this machine than GPUs.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if not torch.cuda.is_available():
        device = torch.device("cpu")
    elif local < torch.cuda.device_count():
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    else:
        raise SpikeDeblurError(
            f"torchrun started process {local + 1} here, but there are "
            f"{torch.cuda.device_count()} GPUs; use --nproc-per-node {torch.cuda.device_count()}"
        )
    if world == 1:
        yield Group(0, 1, device)
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    local_world = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if local_world == world:
        for library in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", _loopback())
    meeting = os.environ.get(MEETING)
    store = None if meeting is None else dist.FileStore(meeting, world)  # None: torchrun's port
    rank = int(os.environ["RANK"])
    dist.init_process_group(backend, timeout=_PATIENCE, store=store, rank=rank, world_size=world)
    try:
        yield Group(dist.get_rank(), dist.get_world_size(), device, local_world)
    finally:
        dist.destroy_process_group()


def _loopback() -> str:
    """Return the name of the interface that leads to this machine alone."""
    return next(
        name
        for name, addresses in psutil.net_if_addrs().items()
        if "127.0.0.1" in [address.address for address in addresses]
    )
