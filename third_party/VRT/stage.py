"""A stage of VRT's body: change of scale, two groups of blocks, parallel warping."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .attention import GEGLU, BlockGroup
from .recompute import Recomputable, run
from .warping import DeformableAlignment, with_both_neighbours


class Stage(Recomputable):
    """One of stages 1-7; features are (B, D, H, W, C) in and out.

    Args:
        reshape: "none", "down" (to half the size) or "up" (to twice the size), done first.
        downscale: The stage's scale relative to the input; offsets reach 10 / downscale pixels.
        mutual_depth: How many of the `depth` blocks have mutual attention; they come first.
        deformable_groups: Offset groups of the alignment; None: the stage has none.
        block: Further arguments of `Block`.
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        *,
        reshape: str,
        downscale: int,
        window: tuple[int, int, int],
        heads: int,
        depth: int,
        mutual_depth: int,
        drop_path: list[float],
        deformable_groups: int | None,
        **block: Any,
    ) -> None:
        super().__init__()
        self.reshape = _reshape(reshape, in_dim, dim)
        self.residual_group1 = BlockGroup(
            dim,
            window=(2, *window[1:]),
            heads=heads,
            mutual=True,
            drop_path=drop_path[:mutual_depth],
            depth=mutual_depth,
            **block,
        )
        self.linear1 = nn.Linear(dim, dim)
        self.residual_group2 = BlockGroup(
            dim,
            window=window,
            heads=heads,
            mutual=False,
            drop_path=drop_path[mutual_depth:],
            depth=depth - mutual_depth,
            **block,
        )
        self.linear2 = nn.Linear(dim, dim)
        self.pa_deform: DeformableAlignment | None = None
        if deformable_groups is not None:
            self.pa_deform = DeformableAlignment(dim, deformable_groups, reach=10 / downscale)
            self.pa_fuse = GEGLU(3 * dim, 3 * dim, dim)

    def forward(self, x: Tensor, flows: tuple[Tensor, Tensor] | None) -> Tensor:
        """Args: x (B, D, H', W', C'); flows (backward, forward), (B, D - 1, 2, H, W) each.

        Returns: (B, D, H, W, C).
        """
        x = run(self._groups, self.recompute.stage, x)
        if self.pa_deform is None:
            return x
        return run(self._aligned, self.recompute.warping, x, flows)

    def _groups(self, x: Tensor) -> Tensor:
        x = self.reshape(x)
        x = x + self.linear1(self.residual_group1(x))
        return x + self.linear2(self.residual_group2(x))

    def _aligned(self, x: Tensor, flows: tuple[Tensor, Tensor]) -> Tensor:
        assert self.pa_deform is not None
        frames = x.permute(0, 1, 4, 2, 3)  # (B, D, C, H, W)
        frames = with_both_neighbours(frames, *flows, self.pa_deform, width=x.shape[-1])
        return self.pa_fuse(frames.permute(0, 1, 3, 4, 2))  # from (B, D, H, W, 3C)


class ReconstructionGroup(Recomputable):
    """A group of blocks without mutual attention, with its residual."""

    def __init__(self, dim: int, **group: Any) -> None:
        super().__init__()
        self.residual_group = BlockGroup(dim, mutual=False, **group)
        self.linear = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W, C) -> (B, D, H, W, C)."""
        return x + run(self._group, self.recompute.stage, x)

    def _group(self, x: Tensor) -> Tensor:
        return self.linear(self.residual_group(x))


class GatherBlocks(nn.Module):
    """2x2 pixels become channels, in the order (column, row, channel)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, 2H, 2W, C) -> (B, D, H, W, 4C)."""
        x = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # (B, D, H, row, W, column, C)
        return x.permute(0, 1, 2, 4, 5, 3, 6).flatten(4)


class SpreadBlocks(nn.Module):
    """Channels in the order (column, row, channel) become 2x2 pixels."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W, 4C) -> (B, D, 2H, 2W, C)."""
        x = x.unflatten(4, (2, 2, -1))  # (B, D, H, W, column, row, C)
        return x.permute(0, 1, 2, 5, 3, 4, 6).flatten(4, 5).flatten(2, 3)


def _reshape(kind: str, in_dim: int, dim: int) -> nn.Sequential:
    """Return the change of scale; the published state dict has LayerNorm at 1, Linear at 2."""
    if kind == "down":
        return nn.Sequential(GatherBlocks(), nn.LayerNorm(4 * in_dim), nn.Linear(4 * in_dim, dim))
    if kind == "up":
        inner = in_dim // 4
        return nn.Sequential(SpreadBlocks(), nn.LayerNorm(inner), nn.Linear(inner, dim))
    assert kind == "none"
    assert in_dim == dim
    return nn.Sequential(nn.Identity(), nn.LayerNorm(dim))
