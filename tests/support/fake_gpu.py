"""A GPU without a GPU: what is on it has a shape and no contents, and its copies are seen.

Tensors on the CPU are real. Those on `cuda` are torch's fake tensors, which check shapes, types and
devices, so that a CPU tensor among them is an error. Plain fake tensors let `.cpu()` pass, and
constants that are copied to the device on each call. Both make a program wait for the GPU, and here
they are refused, but in functions that a test lists.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import spikedeblur
from spikedeblur.model import constants
from spikedeblur.third_party.VRT import windows

_PACKAGE = Path(spikedeblur.__file__).parent

_aten = torch.ops.aten
_NUMBERS = {_aten._local_scalar_dense.default, _aten.equal.default, _aten.is_nonzero.default}


class CopyError(AssertionError):
    """A copy between a GPU and main memory in a function that is not listed."""


class Copies(TorchDispatchMode):
    """Refuses copies between a GPU and main memory, but in listed functions; to be entered last.

    A listed function that asks for a number gets 0.5, 1 or False, and a copy to main memory is
    filled with these.
    """

    def __init__(self, listed: Collection[str], gpu: str = "cuda") -> None:
        """`gpu`: the device's type. Torch's `meta` has no contents either, but has gradients."""
        super().__init__()
        self.listed = listed
        self.gpu = gpu
        self.seen: Counter[str] = Counter()
        """Number of copies by place, such as `model/normalize.py luminance`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        there = [t for t in tensors if t.device.type == self.gpu]
        here = [t for t in tensors if t.device.type == "cpu"]
        asked = next((torch.device(x) for x in leaves if isinstance(x, torch.device)), None)
        on_gpu = bool(there) or (asked is not None and asked.type == self.gpu)
        if not on_gpu:
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if (
            func.namespace == "aten" and func._can_decompose()
        ):  # inference mode passes whole functions on
            with self:
                return func.decompose(*args, **kwargs)
        if func in _NUMBERS:
            self._note(func, "a number is read")
            return _plausible(there[0].dtype)
        if func is _aten._to_copy.default and there and asked is not None and asked.type == "cpu":
            self._note(func, "a copy to main memory")
            return _filled(there[0], kwargs.get("dtype") or there[0].dtype)
        if func is _aten.copy_.default and args[0].device.type == "cpu":
            self._note(func, "a copy to main memory")
            return args[0]
        if func is _aten._to_copy.default and here:
            if not kwargs.get("non_blocking"):
                self._note(func, "a copy from main memory")
            return torch.empty(
                here[0].shape, dtype=kwargs.get("dtype") or here[0].dtype, device=asked
            )
        if func is _aten.copy_.default and here:
            self._note(func, "a copy from main memory")
            return args[0]
        if func is _aten.index.Tensor and here:
            self._note(func, "an index from main memory")
        elif self.gpu == "meta" and any(t.ndim for t in here):  # fake tensors refuse it themselves
            raise CopyError(f"{_place()}: a tensor in main memory among others ({func})")
        if func is _aten.cudnn_grid_sampler.default:  # has no kernel without contents
            picture, grid = args
            return picture.new_empty(*picture.shape[:2], *grid.shape[1:3])
        return func(*args, **kwargs)

    def _note(self, func: Any, what: str) -> None:
        place = _place()
        self.seen[place] += 1
        if place not in self.listed:
            raise CopyError(f"{place}: {what} ({func})")


def _place() -> str:
    """Return the innermost function of the package on the stack.

    Modules are told by name: an environment inside the checkout has its files there too.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("spikedeblur.") and not module.startswith("spikedeblur.tests."):
            name = frame.f_code.co_qualname.split(".<")[0]
            return f"{Path(frame.f_code.co_filename).relative_to(_PACKAGE)} {name}"
        frame = frame.f_back
    return "a test"


def _plausible(dtype: torch.dtype) -> float | int | bool:
    if dtype == torch.bool:
        return False
    return 0.5 if dtype.is_floating_point else 1


def _filled(like: Tensor, dtype: torch.dtype) -> Tensor:
    with unset_fake_temporarily():
        return torch.full(tuple(like.shape), _plausible(dtype), dtype=dtype)


@contextmanager
def fake_gpu(listed: Collection[str]) -> Iterator[Copies]:
    """Make `cuda` a GPU without contents, which refuses copies but in listed functions."""
    with nothing_kept(), FakeTensorMode(allow_non_fake_inputs=True), Copies(listed) as copies:
        yield copies


@contextmanager
def nothing_kept() -> Iterator[None]:
    """Forget constants and plans of windows, before and after: some have no contents."""
    kept = constants._made, windows._plans
    for made in kept:
        made.clear()
    try:
        yield
    finally:
        for made in kept:
            made.clear()


def on_gpu(outline: nn.Module, device: str = "cuda") -> nn.Module:
    """Put a network without contents (`outline_model`) on the GPU, in place."""
    for module in outline.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                there = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
                module._parameters[name] = nn.Parameter(there, requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)
    return outline


@contextmanager
def autocast_on_gpu(dtype: torch.dtype | None) -> Iterator[None]:
    """Enter autocast for `cuda`, which `torch.autocast` switches off where there is none."""
    if dtype is None:
        yield
        return
    before = torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", dtype)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.set_autocast_dtype("cuda", before)
        torch.clear_autocast_cache()
