"""One training process, or several that `launch` or torchrun started, with the same code."""

from __future__ import annotations

import datetime
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import psutil
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ...errors import SpikeDeblurError
from .launch import MEETING

T = TypeVar("T")

_PRETENDED = "fake"  # PyTorch's own backend for processes that are not there
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
        with warnings.catch_warnings():
            # Releases from 2.14 on have another name for it, which those before don't know.
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
            wrapped = DistributedDataParallel(
                model, device_ids=ids, broadcast_buffers=False, find_unused_parameters=some_unused
            )
        if dist.get_backend() == _PRETENDED:
            wrapped.register_comm_hook(None, _exchanged_with_nobody)
        return wrapped


@contextmanager
def process_group() -> Iterator[Group]:
    """Yield the group of this process, by the environment that `launch` or torchrun gave it.

    Without such an environment, it is alone.

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
            f"process {local + 1} was started here, but there are {torch.cuda.device_count()} "
            "GPUs; start one process for each (torchrun: --nproc-per-node)"
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


@contextmanager
def pretended_group(world: int, device: torch.device | None = None) -> Iterator[Group]:
    """Yield the group of the first of several processes of one machine; the others are not there.

    What it would exchange with them is left as it is.

    Args:
        world: number of processes; 1: it is alone.
        device: its device; None: the first GPU, or the CPU.
    """
    if device is None:
        device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    if world == 1:
        yield Group(0, 1, device)
        return
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group(_PRETENDED, store=FakeStore(), rank=0, world_size=world)
    try:
        yield Group(0, world, device, world)
    finally:
        dist.destroy_process_group()


def _exchanged_with_nobody(state, bucket):  # DDP refuses types that are words
    future: torch.futures.Future[Tensor] = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


def _loopback() -> str:
    """Return the name of the interface that leads to this machine alone."""
    return next(
        name
        for name, addresses in psutil.net_if_addrs().items()
        if "127.0.0.1" in [address.address for address in addresses]
    )
