"""Which token of which window is which pixel of which frame: planned once a shape, then a gather.

Features (B, D, H, W, C) are zero-padded at the ends to whole windows, rolled by minus the shift
and cut into windows; `WindowPlan.cut` does all of it by one gather of rows and `join` undoes it.
Windows are sorted by the kind of mask they need, since at most 8 kinds exist (last window or not,
along each shifted axis): attention then takes one small mask a kind, not one a window.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

MASKED = -100.0  # added to the logits of tokens that the roll made neighbours

Size = tuple[int, int, int]


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


# One input shape needs at most 18 plans (four scales, three windows, shifted or not).
@lru_cache(maxsize=128)
def plan_windows(
    shape: tuple[int, int, int, int], window: Size, shift: Size, device: torch.device
) -> WindowPlan:
    """Plan the windows of features (B, D, H, W, C) with `shape` = (B, D, H, W)."""
    batch, *size = shape
    # Tensors made in inference mode could not be used again in training.
    with torch.inference_mode(False), torch.no_grad():
        missing = [-side % extent for side, extent in zip(size, window, strict=True)]
        padded = tuple(side + extra for side, extra in zip(size, missing, strict=True))
        position = torch.arange(size[0] * size[1] * size[2]).view(*size)
        ends = (0, missing[2], 0, missing[1], 0, missing[0])
        position = F.pad(position, ends, value=-1)
        position = _cut(position.roll([-s for s in shift], (0, 1, 2)), window)  # (windows, N)
        region, kind = _regions(padded, window, shift)

        order = torch.argsort(kind, stable=True)
        position, region, kind = position[order], region[order], kind[order]
        groups = []
        for value, count in zip(*torch.unique_consecutive(kind, return_counts=True), strict=True):
            labels = region[torch.nonzero(kind == value)[0, 0]]
            mask = torch.where(labels[:, None] == labels[None], 0.0, MASKED).to(device)
            groups.append((int(count) * batch, mask if value else None))

        per_clip = size[0] * size[1] * size[2]
        clip = torch.arange(batch).view(1, batch, 1) * per_clip
        inside = (position >= 0)[:, None].expand(-1, batch, -1).flatten()
        tokens = (position.clamp(min=0)[:, None] + clip).flatten()  # (windows * B * N,)
        rows = torch.empty(batch * per_clip, dtype=torch.int64)
        rows[tokens[inside]] = torch.nonzero(inside).flatten()
        padding = torch.nonzero(~inside).flatten()
        return WindowPlan(
            shape=shape,
            window=window,
            tokens=tokens.to(device),
            padding=padding.to(device) if len(padding) else None,
            rows=rows.to(device),
            groups=tuple(groups),
        )


def _regions(padded: tuple[int, ...], window: Size, shift: Size) -> tuple[Tensor, Tensor]:
    """Return each token's region (windows, N), equal for true neighbours, and each window's kind.

    Along a shifted axis of the rolled, padded size there are three regions: all but the last
    window, the last window less the shift, the last shift. A kind of 0 needs no mask.
    """
    region = torch.zeros(padded, dtype=torch.int64)
    for axis, (side, extent, moved) in enumerate(zip(padded, window, shift, strict=True)):
        if not moved:
            continue
        place = torch.arange(side)
        label = (place >= side - extent).long() + (place >= side - moved).long()
        region = region * 3 + label.view([-1 if i == axis else 1 for i in range(3)])
    counts = [side // extent for side, extent in zip(padded, window, strict=True)]
    kind = [
        sum(
            (moved > 0 and i == n - 1) << axis
            for axis, (i, n, moved) in enumerate(zip(index, counts, shift, strict=True))
        )
        for index in itertools.product(*(range(n) for n in counts))
    ]
    return _cut(region, window), torch.tensor(kind)


def _cut(x: Tensor, window: Size) -> Tensor:
    """(D, H, W) of whole windows -> (windows, N), tokens ordered frame, row, column."""
    d, h, w = window
    x = x.view(x.shape[0] // d, d, x.shape[1] // h, h, x.shape[2] // w, w)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(-1, d * h * w)


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
