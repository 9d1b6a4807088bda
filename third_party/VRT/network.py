"""VRT as a whole: alignment by flow, a U-shaped body of seven stages, reconstruction.

Letters in shape comments: B clips, D frames, C channels, H and W rows and columns, s scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import SpikeDeblurError
from .recompute import Recompute, set_recompute
from .spynet import SpyNet
from .stage import ReconstructionGroup, Stage
from .warping import warp_nearest4, with_both_neighbours

# Called after each of stages 1-4 with (scale index 0-3, features (B, C, D, H_s, W_s)).
Fuse = Callable[[int, Tensor], Tensor]

SIZE_MULTIPLE = 8  # three halvings
STAGE_DOWNSCALES = (1, 2, 4, 8, 4, 2, 1)
STAGE_RESHAPES = ("none", "down", "down", "down", "up", "up", "up")


class VRTConfigError(SpikeDeblurError):
    """VRT's arguments are impossible, or do not fit each other."""


class VRT(nn.Module):
    """Video Restoration Transformer for deblurring (arXiv 2201.12288), two-frame alignment.

    Args:
        upscale: 1; super-resolution is not built.
        img_size: Training size (D, H, W) of the published configuration. Changes nothing.
        window_size: Attention window (D, H, W). An axis no longer than its window is one window.
        depths: Blocks of stages 1 to 7, then of each reconstruction group. 0 (ours) leaves the
            change of scale and the linear layers.
        indep_reconsts: Indices in `depths` of reconstruction groups whose window is one frame.
        embed_dims: Channels, one for each of `depths`.
        num_heads: Attention heads, one for each of `depths`.
        mul_attn_ratio: Share of a stage's blocks that have mutual attention, rounded down.
        mlp_ratio: Hidden width of a feed-forward part over its channels.
        qkv_bias: Whether the query, key and value layers have a bias.
        drop_path_rate: Probability of dropping the last block's branches in training; it rises
            linearly from 0 over all blocks.
        pa_frames: 2: neighbours are aligned by flow and deformable convolution. 0: a size of
            ours without flow, warping or their parameters; the first convolution sees the frame
            alone (not the published variant for interpolation).
        deformable_groups: Offset groups of the deformable convolutions.
        in_chans: 3 s^2. For s > 1 the input is a clip pixel-unshuffled by s (torch's channel
            order, c * s^2 + k); flows come from each colour's mean over its sub-pixels.
        out_chans: Channels out; None means `in_chans`. The input is added to the output only
            where both are equal, otherwise the residual is the caller's.
        use_checkpoint_attn: Recompute the attention parts in the backward pass, to save memory.
        use_checkpoint_ffn: The same for the feed-forward parts. Neither changes a result.
            `set_recompute` chooses more.

    Raises:
        VRTConfigError: A size is not possible.
    """

    stage1: Stage
    stage2: Stage
    stage3: Stage
    stage4: Stage
    stage5: Stage
    stage6: Stage
    stage7: Stage

    def __init__(
        self,
        upscale: int = 1,
        img_size: Sequence[int] = (6, 192, 192),
        window_size: Sequence[int] = (6, 8, 8),
        depths: Sequence[int] = (8, 8, 8, 8, 8, 8, 8, 4, 4, 4, 4),
        indep_reconsts: Sequence[int] = (9, 10),
        embed_dims: Sequence[int] = (96, 96, 96, 96, 96, 96, 96, 120, 120, 120, 120),
        num_heads: Sequence[int] = (6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6),
        mul_attn_ratio: float = 0.75,
        mlp_ratio: float = 2.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.2,
        pa_frames: int = 2,
        deformable_groups: int = 16,
        in_chans: int = 3,
        out_chans: int | None = None,
        use_checkpoint_attn: bool = False,
        use_checkpoint_ffn: bool = False,
    ) -> None:
        super().__init__()
        out_chans = in_chans if out_chans is None else out_chans
        _check_sizes(upscale, img_size, window_size, depths, indep_reconsts, embed_dims, num_heads)
        _check_alignment(pa_frames, deformable_groups, embed_dims)
        _check_channels(in_chans, out_chans)
        if not (0 <= mul_attn_ratio <= 1 and mlp_ratio > 0 and 0 <= drop_path_rate < 1):
            raise VRTConfigError(
                "expected 0 <= mul_attn_ratio <= 1, mlp_ratio > 0 and 0 <= drop_path_rate < 1, "
                f"got {mul_attn_ratio}, {mlp_ratio} and {drop_path_rate}"
            )

        self.in_chans = in_chans
        self.out_chans = out_chans
        self.pa_frames = pa_frames
        window = (window_size[0], window_size[1], window_size[2])
        width = embed_dims[0]
        rates = [drop_path_rate * i / max(sum(depths) - 1, 1) for i in range(sum(depths))]
        starts = [sum(depths[:i]) for i in range(len(depths))]
        block = {"mlp_ratio": mlp_ratio, "qkv_bias": qkv_bias}

        inputs = in_chans * (9 if pa_frames else 1)  # the frame, four variants of two neighbours
        self.conv_first = FrameConv(inputs, width)
        if pa_frames:
            self.spynet = SpyNet()
        for i in range(7):
            stage = Stage(
                embed_dims[max(i - 1, 0)],
                embed_dims[i],
                reshape=STAGE_RESHAPES[i],
                downscale=STAGE_DOWNSCALES[i],
                window=window,
                heads=num_heads[i],
                depth=depths[i],
                mutual_depth=int(depths[i] * mul_attn_ratio),
                drop_path=rates[starts[i] : starts[i] + depths[i]],
                deformable_groups=deformable_groups if pa_frames else None,
                **block,
            )
            self.add_module(f"stage{i + 1}", stage)
        last = embed_dims[7]
        self.stage8 = nn.ModuleList(
            # Linear sits at place 2, as in the published state dict.
            [nn.Sequential(nn.Identity(), nn.LayerNorm(width), nn.Linear(width, last))]
        )
        for i in range(7, len(depths)):
            self.stage8.append(
                ReconstructionGroup(
                    last,
                    window=(1, *window[1:]) if i in indep_reconsts else window,
                    heads=num_heads[i],
                    depth=depths[i],
                    drop_path=rates[starts[i] : starts[i] + depths[i]],
                    **block,
                )
            )
        self.norm = nn.LayerNorm(last)
        self.conv_after_body = nn.Linear(last, width)
        self.conv_last = FrameConv(width, out_chans)
        self.apply(_init_weights)
        set_recompute(self, Recompute(use_checkpoint_attn, use_checkpoint_ffn))

    def forward(self, x: Tensor, fuse: Fuse | None = None, skip: Tensor | None = None) -> Tensor:
        """Restore a clip.

        H and W are padded at their ends to multiples of 8 (see `pad_to_multiple`) and the result
        is cropped back, so any H, W, D >= 1 will do.

        Args:
            x: (B, D, in_chans, H, W), floating point in [0, 1].
            fuse: `fuse(scale_index, features) -> features`, called once after each of stages
                1-4 with scale index 0-3 and that stage's output (B, C, D, H_s, W_s), where
                H_s, W_s are the padded size over 2^scale_index. The result, of the same shape,
                replaces the output for the next stage and for the skip connections alike.
            skip: (B, C, D, H, W) with C = embed_dims[0], added to the features that enter the
                last convolution; padded like `x`.

        Returns:
            (B, D, out_chans, H, W).

        Raises:
            ValueError: `x`, `skip` or what `fuse` returned has another shape than stated.
        """
        self._check_clip(x)
        height, width = x.shape[-2:]
        clip = pad_to_multiple(x)

        flows: list[tuple[Tensor, Tensor]] | list[None] = [None] * 4
        inputs = clip
        if self.pa_frames:
            backward, forward = self.get_flows(clip)
            flows = list(zip(backward, forward, strict=True))
            inputs = with_both_neighbours(
                clip, backward[0], forward[0], warp_nearest4, width=4 * self.in_chans
            )  # (B, D, 9 * in_chans, H, W)
        first = self.conv_first(inputs).permute(0, 1, 3, 4, 2).contiguous()  # (B, D, H, W, C)

        body = self._body(first, flows, fuse)
        features = first + self.conv_after_body(body)
        if skip is not None:
            features = features + self._channels_last_skip(skip, features)
        out = self.conv_last(features.permute(0, 1, 4, 2, 3))  # (B, D, out_chans, H, W)
        if self.out_chans == self.in_chans:
            out = out + clip
        return out[..., :height, :width]

    def get_flows(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Estimate the optical flow between neighbouring frames at four scales.

        Args:
            x: (B, D, in_chans, H, W).

        Returns:
            backward, forward: lists of four flows (B, D - 1, 2, H // 2^s, W // 2^s), at least
            one pixel a side, channels (x, y) in pixels of their scale. `backward[s][:, i]`
            brings frame i + 1 to frame i, `forward[s][:, i]` frame i to frame i + 1.

        Raises:
            VRTConfigError: The network has no flow (`pa_frames` is 0).
            ValueError: `x` has another shape.
        """
        if not self.pa_frames:
            raise VRTConfigError("this VRT was built with pa_frames=0 and has no flow network")
        self._check_clip(x)
        batch, frames, channels, height, width = x.shape
        sub_pixels = channels // 3
        colour = x.reshape(batch, frames, 3, sub_pixels, height, width).mean(3)
        # (B, D, 3, H, W)
        if frames == 1:
            sizes = [(max(height // 2**s, 1), max(width // 2**s, 1)) for s in range(4)]
            empty = [x.new_zeros(batch, 0, 2, *size) for size in sizes]
            return empty, list(empty)
        earlier, later = colour[:, :-1], colour[:, 1:]
        reference = torch.stack([earlier, later])  # (2, B, D - 1, 3, H, W): both directions
        support = torch.stack([later, earlier])
        flows = self.spynet(reference.flatten(0, 2), support.flatten(0, 2))
        pairs = [flow.unflatten(0, (2, batch, frames - 1)) for flow in flows]
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]

    def _body(
        self, first: Tensor, flows: Sequence[tuple[Tensor, Tensor] | None], fuse: Fuse | None
    ) -> Tensor:
        """(B, D, H, W, C) -> (B, D, H, W, C of stage 8)."""
        x1 = _fused(fuse, 0, self.stage1(first, flows[0]))
        x2 = _fused(fuse, 1, self.stage2(x1, flows[1]))
        x3 = _fused(fuse, 2, self.stage3(x2, flows[2]))
        x4 = _fused(fuse, 3, self.stage4(x3, flows[3]))
        y = self.stage5(x4, flows[2])
        y = self.stage6(y + x3, flows[1])
        y = self.stage7(y + x2, flows[0])
        y = y + x1
        for part in self.stage8:
            y = part(y)
        return self.norm(y)

    def _channels_last_skip(self, skip: Tensor, features: Tensor) -> Tensor:
        padded = pad_to_multiple(skip).permute(0, 2, 3, 4, 1)  # (B, D, H, W, C)
        if padded.shape != features.shape:
            raise ValueError(
                f"expected skip features (B, {features.shape[-1]}, D, H, W) of the clip's size, "
                f"got {tuple(skip.shape)}"
            )
        return padded

    def _check_clip(self, x: Tensor) -> None:
        if x.ndim != 5 or x.shape[2] != self.in_chans or 0 in x.shape:
            raise ValueError(
                f"expected a clip (B, D, {self.in_chans}, H, W) with no empty side, "
                f"got {tuple(x.shape)}"
            )


class FrameConv(nn.Conv3d):
    """A 3x3 convolution of each frame by itself.

    The weight is the published Conv3d's, (C_out, C_in, 1, 3, 3).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, (1, 3, 3), padding=(0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, C_in, H, W) -> (B, D, C_out, H, W)."""
        frames = F.conv2d(x.flatten(0, 1), self.weight.squeeze(2), self.bias, padding=1)
        return frames.unflatten(0, x.shape[:2])


def pad_to_multiple(x: Tensor, multiple: int = SIZE_MULTIPLE) -> Tensor:
    """Pad H and W at their ends to the next multiple.

    An axis is reflected about its last pixel where it is longer than what is added to it, and
    its last pixel is repeated where it is not.

    Args:
        x: (..., H, W), at least three axes.

    Returns:
        (..., H', W'); `x` itself where nothing is missing.
    """
    missing_rows = -x.shape[-2] % multiple
    missing_columns = -x.shape[-1] % multiple
    if not missing_rows and not missing_columns:
        return x
    frames = x.reshape(-1, 1, *x.shape[-2:])
    frames = F.pad(frames, (0, missing_columns, 0, 0), _pad_mode(x.shape[-1], missing_columns))
    frames = F.pad(frames, (0, 0, 0, missing_rows), _pad_mode(x.shape[-2], missing_rows))
    return frames.reshape(*x.shape[:-2], *frames.shape[-2:])


def _pad_mode(side: int, missing: int) -> str:
    return "reflect" if side > missing else "replicate"


def _fused(fuse: Fuse | None, scale: int, features: Tensor) -> Tensor:
    """Let `fuse` replace features (B, D, H, W, C), which it gets as (B, C, D, H, W)."""
    if fuse is None:
        return features
    given = features.permute(0, 4, 1, 2, 3)  # (B, C, D, H, W)
    replaced = fuse(scale, given)
    if replaced.shape != given.shape:
        raise ValueError(
            f"fuse must keep the shape of its features: expected {tuple(given.shape)} at scale "
            f"{scale}, got {tuple(replaced.shape)}"
        )
    return replaced.permute(0, 2, 3, 4, 1).contiguous()


def _init_weights(module: nn.Module) -> None:
    """Start Linear layers as transformers do; other layers start themselves."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, Stage) and module.pa_deform is not None:
        # A stage is visited after its layers. Nothing bypasses this fusion, so small weights at
        # the start would shrink the signal at every stage, to nothing in a narrow network.
        for layer in (module.pa_fuse.fc11, module.pa_fuse.fc12, module.pa_fuse.fc2):
            nn.init.trunc_normal_(layer.weight, std=layer.in_features**-0.5)


def _check_sizes(
    upscale: int,
    img_size: Sequence[int],
    window_size: Sequence[int],
    depths: Sequence[int],
    indep_reconsts: Sequence[int],
    embed_dims: Sequence[int],
    num_heads: Sequence[int],
) -> None:
    if upscale != 1:
        raise VRTConfigError(f"expected upscale 1 (deblurring), got {upscale}")
    for name, sizes in (("img_size", img_size), ("window_size", window_size)):
        if len(sizes) != 3 or min(sizes) < 1:
            raise VRTConfigError(f"expected three positive {name} (D, H, W), got {list(sizes)}")
    if not len(depths) == len(embed_dims) == len(num_heads) or len(depths) < 8:
        raise VRTConfigError(
            "expected depths, embed_dims and num_heads of one length, at least 8 (stages 1-7 "
            "and one or more reconstruction groups), got lengths "
            f"{len(depths)}, {len(embed_dims)} and {len(num_heads)}"
        )
    if min(depths) < 0 or min(*embed_dims, *num_heads) < 1:
        raise VRTConfigError(
            "expected depths of at least 0, positive embed_dims and num_heads, got "
            f"{list(depths)}, {list(embed_dims)} and {list(num_heads)}"
        )
    for dim, heads in zip(embed_dims, num_heads, strict=True):
        if dim % heads:
            raise VRTConfigError(f"expected embed_dims divisible by num_heads, got {dim} / {heads}")
    # The sine code has a row half and a column half; going up spreads channels over 2x2 pixels.
    if any(dim % 4 for dim in embed_dims[:7]):
        raise VRTConfigError(
            f"expected the first seven embed_dims divisible by 4, got {list(embed_dims[:7])}"
        )
    if list(embed_dims[4:7]) != [embed_dims[2], embed_dims[1], embed_dims[0]]:
        raise VRTConfigError(
            "expected embed_dims of stages 5, 6, 7 equal to those of stages 3, 2, 1 (skip "
            f"connections), got {list(embed_dims[:7])}"
        )
    if len(set(embed_dims[7:])) != 1:
        raise VRTConfigError(
            f"expected equal embed_dims from the eighth on, got {list(embed_dims[7:])}"
        )
    if any(not 7 <= index < len(depths) for index in indep_reconsts):
        raise VRTConfigError(
            f"expected indep_reconsts to be indices 7 to {len(depths) - 1} of depths, "
            f"got {list(indep_reconsts)}"
        )


def _check_alignment(pa_frames: int, groups: int, embed_dims: Sequence[int]) -> None:
    if pa_frames not in (0, 2):
        raise VRTConfigError(
            f"expected pa_frames 2 (two-frame alignment) or 0 (none), got {pa_frames}; "
            "the published variants with 4 and 6 frames are not built"
        )
    if pa_frames and (groups < 1 or any(dim % groups for dim in embed_dims[:7])):
        raise VRTConfigError(
            "expected deformable_groups to divide the first seven embed_dims, got "
            f"{groups} and {list(embed_dims[:7])}"
        )


def _check_channels(in_chans: int, out_chans: int) -> None:
    side = math.isqrt(max(in_chans, 0) // 3)
    if in_chans < 3 or in_chans != 3 * side * side:
        raise VRTConfigError(
            "expected in_chans 3 s^2 for a whole s (3; 12, 27, 48 ... for a clip pixel-unshuffled "
            f"by 2, 3, 4 ...), got {in_chans}"
        )
    if out_chans < 1:
        raise VRTConfigError(f"expected positive out_chans, got {out_chans}")
