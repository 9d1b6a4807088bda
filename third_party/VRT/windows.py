"""Cutting features into windows and joining them: planned once for each shape, then a gather.

Features (B, D, H, W, C) are zero-padded at the ends to whole windows, rolled by minus the shift
and cut into windows; `WindowPlan.cut` does all of it by one gather of rows and `join` undoes it.
Windows are sorted by the kind of mask they need, since at most 8 kinds exist (last window or not,
along each shifted axis): attention then takes one small mask a kind, not one a window.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

MASKED = -100.0
"""Added to the logits of tokens that only the roll made neighbours."""

Size = tuple[int, int, int]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class WindowPlan:
    """How to cut features (B, D, H, W, C) into windows of N tokens and to join them again."""

    shape: tuple[int, int, int, int]
    """B, D, H, W."""
    window: Size
    """Frames, rows, columns of a window; N is their product."""
    tokens: Tensor
    """(windows * N,) int64: the row of the features, (B * D * H * W, C), that a token is."""
    padding: Tensor | None
    """(P,) int64: the tokens that are padding, if any."""
    rows: Tensor
    """(B * D * H * W,) int64: the token that a row is."""
    groups: tuple[tuple[int, Tensor | None], ...]
    """For each kind, in order: number of windows, and mask (N, N) float32 or None."""

    def cut(self, x: Tensor) -> Tensor:
        """(B, D, H, W, C) -> (windows, N, C); padded tokens are zeros."""
        rows = x.reshape(-1, x.shape[-1])
        tokens = _GatherRows.apply(rows, self.tokens, self.padding, self.rows, None)
        return tokens.view(-1, self.window[0] * self.window[1] * self.window[2], x.shape[-1])

    def join(self, tokens: Tensor) -> Tensor:
        """(windows, N, C) -> (B, D, H, W, C); padded tokens are dropped."""
        flat = tokens.reshape(-1, tokens.shape[-1])
        rows = _GatherRows.apply(flat, self.rows, None, self.tokens, self.padding)
        return rows.view(*self.shape, tokens.shape[-1])


def fit_window(size: Size, window: Size, shifted: bool, mutual: bool) -> tuple[Size, Size]:
    """Return the window and shift for features of `size` (D, H, W), each axis by itself.

    An axis no longer than its window is one window without shift. Mutual attention needs two
    frames: its window keeps them, so that the partner of a clip's only frame is padding, just as
    the partner of the last frame of an odd clip is.
    """
    fitted, shift = [], []
    for axis, (side, extent) in enumerate(zip(size, window, strict=True)):
        whole = side <= extent
        fitted.append(side if whole and not (mutual and axis == 0) else extent)
        shift.append(0 if whole or not shifted else extent // 2)
    return (fitted[0], fitted[1], fitted[2]), (shift[0], shift[1], shift[2])


_plans: dict[tuple[Any, ...], WindowPlan] = {}
_MOST_PLANS = 128  # one input shape needs at most 18: four scales, three windows, shifted or not


def plan_windows(
    shape: tuple[int, int, int, int], window: Size, shift: Size, device: torch.device
) -> WindowPlan:
    """Return the plan for features (B, D, H, W, C) with `shape` = (B, D, H, W).

    The latest plans are kept, in a dictionary because torch.compile can read one: a shape that
    the network saw before it was compiled then breaks no graph.
    """
    key = (shape, window, shift, device)
    if key not in _plans:
        if len(_plans) >= _MOST_PLANS:
            _plans.pop(next(iter(_plans)))
        _plans[key] = _plan(*key)
    return _plans[key]


def _plan(
    shape: tuple[int, int, int, int], window: Size, shift: Size, device: torch.device
) -> WindowPlan:
    batch, *size = shape
    missing = [-side % extent for side, extent in zip(size, window, strict=True)]
    padded = tuple(side + extra for side, extra in zip(size, missing, strict=True))
    per_clip = math.prod(size)
    position = np.pad(
        np.arange(per_clip).reshape(size), [(0, extra) for extra in missing], constant_values=-1
    )
    position = _cut(np.roll(position, [-s for s in shift], (0, 1, 2)), window)  # (windows, N)
    region, kind = _regions(padded, window, shift)

    order = np.argsort(kind, kind="stable")
    position, region, kind = position[order], region[order], kind[order]
    values, firsts, counts = np.unique(kind, return_index=True, return_counts=True)
    groups = []
    for value, first, count in zip(values, firsts, counts, strict=True):
        labels = region[first]
        mask = np.where(labels[:, None] == labels[None], 0.0, MASKED).astype(np.float32)
        groups.append((int(count) * batch, torch.from_numpy(mask).to(device) if value else None))

    clip = np.arange(batch).reshape(1, batch, 1) * per_clip
    inside = np.repeat((position >= 0)[:, None], batch, axis=1).ravel()
    tokens = (position.clip(min=0)[:, None] + clip).ravel()  # (windows * B * N,)
    rows = np.empty(batch * per_clip, np.int64)
    rows[tokens[inside]] = np.flatnonzero(inside)
    padding = np.flatnonzero(~inside)
    # Tensors made in inference mode could not be used again in training.
    with torch.inference_mode(False), torch.no_grad():
        return WindowPlan(
            shape=shape,
            window=window,
            tokens=torch.from_numpy(tokens).to(device),
            padding=torch.from_numpy(padding).to(device) if len(padding) else None,
            rows=torch.from_numpy(rows).to(device),
            groups=tuple(groups),
        )


def _regions(padded: tuple[int, ...], window: Size, shift: Size) -> tuple[Numbers, Numbers]:
    """Return each token's region (windows, N), equal for true neighbours, and each window's kind.

    Along a shifted axis of the rolled, padded size there are three regions: all but the last
    window, the last window less the shift, the last shift. A kind of 0 needs no mask.
    """
    region = np.zeros(padded, np.int64)
    for axis, (side, extent, moved) in enumerate(zip(padded, window, shift, strict=True)):
        if not moved:
            continue
        place = np.arange(side)
        label = (place >= side - extent).astype(np.int64) + (place >= side - moved)
        region = region * 3 + label.reshape([-1 if i == axis else 1 for i in range(3)])
    counts = [side // extent for side, extent in zip(padded, window, strict=True)]
    kind = [
        sum(
            (moved > 0 and i == n - 1) << axis
            for axis, (i, n, moved) in enumerate(zip(index, counts, shift, strict=True))
        )
        for index in itertools.product(*(range(n) for n in counts))
    ]
    return _cut(region, window), np.array(kind)


def _cut(x: Numbers, window: Size) -> Numbers:
    """(D, H, W) of whole windows -> (windows, N), tokens ordered frame, row, column."""
    d, h, w = window
    x = x.reshape(x.shape[0] // d, d, x.shape[1] // h, h, x.shape[2] // w, w)
    return x.transpose(0, 2, 4, 1, 3, 5).reshape(-1, d * h * w)


class _GatherRows(torch.autograd.Function):
    """`out[i] = rows[index[i]]`, zero where `i` is in `empty`; the gradient is a gather too.

    The index is a permutation but for padding, so the way back is a gather by its inverse, where
    autograd would scatter-add (3 times slower on CPU).
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        index: Tensor,
        empty: Tensor | None,
        inverse: Tensor,
        inverse_empty: Tensor | None,
    ) -> Tensor:
        ctx.inverse, ctx.inverse_empty = inverse, inverse_empty
        return _gather(rows, index, empty)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        return _gather(grad, ctx.inverse, ctx.inverse_empty), None, None, None, None


def _gather(rows: Tensor, index: Tensor, empty: Tensor | None) -> Tensor:
    out = rows.index_select(0, index)
    return out if empty is None else out.index_fill_(0, empty, 0)
