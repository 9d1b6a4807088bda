"""VRT for deblurring in the plain style in which such networks are published: a speed baseline.

It computes what `spikedeblur.third_party.VRT` computes, under the same state-dict names, with
standard operations: rolled windows, explicit softmax attention, one warping after the other.
Written from the same specification, not from the published code.

Features between parts are (B, C, D, H, W): clips, channels, frames, rows, columns. In attention,
n counts windows of all clips, N the tokens of a window, h heads, c = C / h.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import StochasticDepth, deform_conv2d

Size = tuple[int, int, int]


def sample(x: Tensor, position: Tensor, mode: str = "bilinear", padding: str = "zeros") -> Tensor:
    """Read `x` (B, C, H, W) at `position` (B, H, W, 2), x and y in pixels."""
    height, width = x.shape[-2:]
    last = position.new_tensor([max(width - 1, 1), max(height - 1, 1)])
    grid = 2 * position / last - 1
    return F.grid_sample(x, grid, mode=mode, padding_mode=padding, align_corners=True)


def moved_positions(flow: Tensor) -> Tensor:
    """Return each pixel's place plus its flow (B, 2, H, W): (B, H, W, 2)."""
    rows = torch.arange(flow.shape[2], device=flow.device, dtype=flow.dtype)
    columns = torch.arange(flow.shape[3], device=flow.device, dtype=flow.dtype)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y], -1) + flow.permute(0, 2, 3, 1)


def warp(x: Tensor, flow: Tensor, padding: str = "zeros") -> Tensor:
    """Warp `x` (B, C, H, W) by `flow` (B, 2, H, W), bilinearly."""
    return sample(x, moved_positions(flow), padding=padding)


def warp_nearest4(x: Tensor, target: Tensor, flow: Tensor) -> Tensor:
    """Warp `x` to each of the four whole pixels around its place: (B, 4C, H, W)."""
    x_place, y_place = moved_positions(flow).unbind(-1)  # (B, H, W) each
    corners = [
        torch.stack([column, row], -1)
        for column in (x_place.floor(), x_place.ceil())
        for row in (y_place.floor(), y_place.ceil())
    ]
    return torch.cat([sample(x, corner, mode="nearest") for corner in corners], 1)


def align_neighbours(
    x: Tensor, backward: Tensor, forward: Tensor, align: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> Tensor:
    """Join to each frame of (B, C, D, H, W) its next and previous one: (B, C + 2C', D, H, W).

    `align` gets neighbour, target and flow of one pair. A missing neighbour is zeros.
    """
    frames = x.unbind(2)
    pairs = range(len(frames) - 1)
    from_next = [align(frames[i + 1], frames[i], backward[:, i]) for i in pairs]
    from_previous = [align(frames[i], frames[i + 1], forward[:, i]) for i in pairs]
    nothing = torch.zeros_like(from_next[0])
    following = torch.stack([*from_next, nothing], 2)  # (B, C', D, H, W)
    previous = torch.stack([nothing, *from_previous], 2)
    return torch.cat([x, following, previous], 1)


class FlowUpdate(nn.Module):
    """One level of SpyNet: (B, 8, H, W) -> (B, 2, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for narrow, wide in pairwise((8, 32, 64, 32, 16, 2)):
            layers += [nn.Conv2d(narrow, wide, 7, padding=3), nn.ReLU(inplace=True)]
        self.basic_module = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.basic_module(x)


class SpyNet(nn.Module):
    """Optical flow from `ref` to `supp` (B, 3, H, W) at scales 1, 1/2, 1/4 and 1/8."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.basic_module = nn.ModuleList(FlowUpdate() for _ in range(6))
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, ref: Tensor, supp: Tensor) -> list[Tensor]:
        height, width = ref.shape[-2:]
        refs, supps = self.pyramid(ref), self.pyramid(supp)  # coarsest first
        flow = torch.zeros_like(refs[0][:, :2])
        flows: list[Tensor] = []
        for level, module in enumerate(self.basic_module):
            if level > 0:
                flow = 2 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)
            warped = warp(supps[level], flow, padding="border")
            flow = flow + module(torch.cat([refs[level], warped, flow], 1))
            flows.insert(0, flow)  # finest first
        return [resize_flow(flows[s], height // 2**s, width // 2**s) for s in range(4)]

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """Resize to multiples of 32, normalise, halve five times."""
        size = [math.ceil(side / 32) * 32 for side in image.shape[-2:]]
        image = F.interpolate(image, size=size, mode="bilinear", align_corners=False)
        levels = [(image - self.mean) / self.std]
        for _ in range(5):
            levels.insert(0, F.avg_pool2d(levels[0], 2))
        return levels


def resize_flow(flow: Tensor, height: int, width: int) -> Tensor:
    """Resize (B, 2, H, W), and its vectors by the same ratio."""
    ratio = flow.new_tensor([width / flow.shape[3], height / flow.shape[2]]).view(1, 2, 1, 1)
    return ratio * F.interpolate(flow, (height, width), mode="bilinear", align_corners=False)


class DeformableAlignment(nn.Module):
    """Modulated deformable convolution of a neighbour (B, C, H, W), its offsets around the flow."""

    def __init__(self, dim: int, groups: int, reach: float) -> None:
        super().__init__()
        self.groups = groups
        self.reach = reach
        self.weight = nn.Parameter(torch.empty(dim, dim, 3, 3))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.conv_offset = nn.Sequential(
            nn.Conv2d(2 * dim + 2, dim, 3, padding=1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(dim, dim, 3, padding=1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(dim, dim, 3, padding=1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(dim, 27 * groups, 3, padding=1),
        )
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        nn.init.zeros_(self.conv_offset[-1].weight)
        nn.init.zeros_(self.conv_offset[-1].bias)

    def forward(self, neighbour: Tensor, target: Tensor, flow: Tensor) -> Tensor:
        seen = torch.cat([warp(neighbour, flow), target, flow], 1)  # (B, 2C + 2, H, W)
        first, second, mask = self.conv_offset(seen).chunk(3, 1)  # (B, 9 groups, H, W) each
        offset = self.reach * torch.tanh(torch.cat([first, second], 1))
        offset = offset + flow.flip(1).repeat(1, 9 * self.groups, 1, 1)  # (y, x) of each tap
        mask = torch.sigmoid(mask)
        return deform_conv2d(neighbour, offset, self.weight, self.bias, padding=1, mask=mask)


def cut_windows(x: Tensor, window: Size) -> Tensor:
    """(B, D, H, W, C) of whole windows -> (n, N, C)."""
    b, d, h, w, c = x.shape
    wd, wh, ww = window
    x = x.view(b, d // wd, wd, h // wh, wh, w // ww, ww, c)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, wd * wh * ww, c)  # (n, N, C)


def join_windows(tokens: Tensor, window: Size, size: Sequence[int]) -> Tensor:
    """Undo `cut_windows` for features of `size` (D, H, W): (n, N, C) -> (B, D, H, W, C)."""
    (d, h, w), (wd, wh, ww) = size, window
    x = tokens.view(-1, d // wd, h // wh, w // ww, wd, wh, ww, tokens.shape[-1])
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(-1, d, h, w, tokens.shape[-1])


def shift_mask(size: Sequence[int], window: Size, shift: Size, device: torch.device) -> Tensor:
    """Return -100 for tokens that only the roll made neighbours: (windows of a clip, N, N)."""
    region = torch.zeros(1, *size, 1, device=device)
    for axis, (side, extent, moved) in enumerate(zip(size, window, shift, strict=True)):
        if moved:
            place = torch.arange(side, device=device)
            label = (place >= side - extent).long() + (place >= side - moved).long()
            region = 3 * region + label.view([-1 if i == axis + 1 else 1 for i in range(5)])
    tokens = cut_windows(region, window).squeeze(-1)  # (windows, N)
    difference = tokens[:, None, :] - tokens[:, :, None]  # (windows, N, N)
    return torch.zeros_like(difference).masked_fill(difference != 0, -100.0)


class WindowAttention(nn.Module):
    """Self attention in windows, with mutual attention of two frames beside it if `mutual`."""

    relative_position_index: Tensor
    position_bias: Tensor

    def __init__(self, dim: int, window: Size, heads: int, mutual: bool, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.mutual = mutual
        table = torch.zeros(math.prod(2 * extent - 1 for extent in window), heads)
        self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))
        self.register_buffer("relative_position_index", relative_position_index(window))
        self.qkv_self = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(2 * dim if mutual else dim, dim)
        if mutual:
            self.register_buffer("position_bias", sine_code(window[1], window[2], dim))
            self.qkv_mut = nn.Linear(dim, 3 * dim, bias=qkv_bias)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(n, N, C) and mask (windows of a clip, N, N) -> (n, N, C)."""
        count = x.shape[1]
        q, k, v = self.split_heads(self.qkv_self(x))
        index = self.relative_position_index[:count, :count].reshape(-1)
        bias = self.relative_position_bias_table[index].view(count, count, self.heads)
        out = self.attend(q, k, v, mask, bias.permute(2, 0, 1))  # (n, N, C)

        if self.mutual:
            half = count // 2
            q, k, v = self.split_heads(self.qkv_mut(x + self.position_bias.repeat(1, 2, 1)))
            q1, q2 = q[:, :, :half], q[:, :, half:]  # (n, h, N / 2, c)
            k1, k2 = k[:, :, :half], k[:, :, half:]
            v1, v2 = v[:, :, :half], v[:, :, half:]
            mask = None if mask is None else mask[:, :half, :half]
            first, second = self.attend(q2, k1, v1, mask), self.attend(q1, k2, v2, mask)
            out = torch.cat([torch.cat([first, second], 1), out], 2)  # (n, N, 2C)
        return self.proj(out)

    def split_heads(self, qkv: Tensor) -> tuple[Tensor, ...]:
        """(n, N, 3C) -> query, key, value, (n, h, N, c) each."""
        n, count, _ = qkv.shape
        return qkv.reshape(n, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None = None
    ) -> Tensor:
        """(n, h, N, c) three times -> (n, N, C)."""
        n, heads, count, _ = q.shape
        logits = (q * self.scale) @ k.transpose(-2, -1)  # (n, h, N, N)
        if bias is not None:
            logits = logits + bias
        if mask is not None:
            logits = logits.view(-1, len(mask), heads, count, count) + mask[None, :, None]
            logits = logits.view(n, heads, count, count)
        return (logits.softmax(-1) @ v).transpose(1, 2).reshape(n, count, -1)


def relative_position_index(window: Size) -> Tensor:
    """Return the bias table's row of each pair of tokens: (N, N)."""
    wd, wh, ww = window
    axes = torch.meshgrid(torch.arange(wd), torch.arange(wh), torch.arange(ww), indexing="ij")
    place = torch.stack(axes).flatten(1)  # (3, N)
    dz, dy, dx = place[:, :, None] - place[:, None, :]  # (N, N) each
    return ((dz + wd - 1) * (2 * wh - 1) + dy + wh - 1) * (2 * ww - 1) + dx + ww - 1


def sine_code(height: int, width: int, dim: int) -> Tensor:
    """Return the fixed code of each place in a frame's window: (1, H * W, C)."""
    channel = torch.arange(dim // 2)
    period = 10000 ** (2 * (channel // 2) / (dim // 2))
    codes = []
    for count in (height, width):
        angle = torch.arange(1, count + 1) / (count + 1e-6) * 2 * math.pi
        phase = angle[:, None] / period  # (count, C / 2)
        codes.append(torch.where(channel % 2 == 0, phase.sin(), phase.cos()))
    rows = codes[0][:, None].expand(-1, width, -1)
    columns = codes[1][None].expand(height, -1, -1)
    return torch.cat([rows, columns], -1).reshape(1, height * width, dim)


class GEGLU(nn.Module):
    """Feed-forward part with a gate, on the last axis."""

    def __init__(self, dim: int, hidden: int, out_dim: int) -> None:
        super().__init__()
        self.fc11 = nn.Linear(dim, hidden)
        self.fc12 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc11(x)) * self.fc12(x))


class Block(nn.Module):
    """Window attention and feed-forward part, each with its residual: (B, D, H, W, C)."""

    def __init__(
        self,
        dim: int,
        window: Size,
        heads: int,
        shifted: bool,
        mutual: bool,
        drop_path: float,
        mlp_ratio: float,
        qkv_bias: bool,
        use_checkpoint_attn: bool,
        use_checkpoint_ffn: bool,
    ) -> None:
        super().__init__()
        self.window = window
        self.shifted = shifted
        self.use_checkpoint_attn = use_checkpoint_attn
        self.use_checkpoint_ffn = use_checkpoint_ffn
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, window, heads, mutual, qkv_bias)
        self.drop_path = StochasticDepth(drop_path, "row")
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = GEGLU(dim, int(dim * mlp_ratio), dim)

    def forward(self, x: Tensor) -> Tensor:
        if self.use_checkpoint_attn:
            x = x + self.drop_path(checkpoint(self.attention_part, x, use_reentrant=False))
        else:
            x = x + self.drop_path(self.attention_part(x))
        if self.use_checkpoint_ffn:
            return x + self.drop_path(checkpoint(self.mlp_part, x, use_reentrant=False))
        return x + self.drop_path(self.mlp_part(x))

    def attention_part(self, x: Tensor) -> Tensor:
        _, d, h, w, _ = x.shape
        window, shift = self.fit_window((d, h, w))
        back, bottom, right = (-s % e for s, e in zip((d, h, w), window, strict=True))
        x = F.pad(self.norm1(x), (0, 0, 0, right, 0, bottom, 0, back))
        size = x.shape[1:4]
        mask = None
        if any(shift):
            x = torch.roll(x, [-s for s in shift], (1, 2, 3))
            mask = shift_mask(size, window, shift, x.device)
        tokens = self.attn(cut_windows(x, window), mask)  # (n, N, C)
        x = join_windows(tokens, window, size)  # (B, D, H, W, C), padded
        if any(shift):
            x = torch.roll(x, shift, (1, 2, 3))
        return x[:, :d, :h, :w]

    def mlp_part(self, x: Tensor) -> Tensor:
        return self.mlp(self.norm2(x))

    def fit_window(self, size: Size) -> tuple[Size, Size]:
        """Return window and shift; an axis no longer than its window is one, without shift."""
        fitted = [min(side, extent) for side, extent in zip(size, self.window, strict=True)]
        shift = [
            extent // 2 if self.shifted and side > extent else 0
            for side, extent in zip(size, self.window, strict=True)
        ]
        return (fitted[0], fitted[1], fitted[2]), (shift[0], shift[1], shift[2])


class BlockGroup(nn.Module):
    """Blocks one after the other, every second one shifted: (B, C, D, H, W)."""

    def __init__(self, dim: int, drop_path: Sequence[float], **block: Any) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(dim, shifted=i % 2 == 1, drop_path=rate, **block)
            for i, rate in enumerate(drop_path)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 4, 1)  # (B, D, H, W, C)
        for block in self.blocks:
            x = block(x)
        return x.permute(0, 4, 1, 2, 3)


class ToChannelsLast(nn.Module):
    """(B, C, D, H, W) -> (B, D, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 4, 1)


class ToChannelsFirst(nn.Module):
    """(B, D, H, W, C) -> (B, C, D, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 4, 1, 2, 3)


class SpaceToChannels(nn.Module):
    """2x2 pixels become channels: (B, C, D, 2H, 2W) -> (B, D, H, W, 4C)."""

    def forward(self, x: Tensor) -> Tensor:
        b, c, d, h, w = x.shape
        x = x.reshape(b, c, d, h // 2, 2, w // 2, 2)  # (B, C, D, H, row, W, column)
        return x.permute(0, 2, 3, 5, 6, 4, 1).reshape(b, d, h // 2, w // 2, 4 * c)


class ChannelsToSpace(nn.Module):
    """Channels become 2x2 pixels: (B, 4C, D, H, W) -> (B, D, 2H, 2W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        b, c, d, h, w = x.shape
        x = x.reshape(b, 2, 2, c // 4, d, h, w)  # (B, column, row, C, D, H, W)
        return x.permute(0, 4, 5, 2, 6, 1, 3).reshape(b, d, 2 * h, 2 * w, c // 4)


def reshape_layers(in_dim: int, dim: int, before: int, after: int) -> nn.Sequential:
    """Change the scale from 1/before to 1/after; norm and projection at places 1 and 2."""
    if before == after:
        return nn.Sequential(ToChannelsLast(), nn.LayerNorm(dim), ToChannelsFirst())
    gather = SpaceToChannels() if after > before else ChannelsToSpace()
    width = in_dim * 4 if after > before else in_dim // 4
    return nn.Sequential(gather, nn.LayerNorm(width), nn.Linear(width, dim), ToChannelsFirst())


def on_channels(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a layer of the last axis to the channels of (B, C, D, H, W)."""
    return layer(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)


class Stage(nn.Module):
    """One of stages 1 to 7: rescaling, two groups of blocks, parallel warping."""

    def __init__(
        self,
        reshape: nn.Sequential,
        dim: int,
        window: Size,
        drop_path: Sequence[float],
        mutual_depth: int,
        groups: int,
        reach: float,
        **block: Any,
    ) -> None:
        super().__init__()
        self.reshape = reshape
        pair = (2, window[1], window[2])
        self.residual_group1 = BlockGroup(
            dim, drop_path[:mutual_depth], window=pair, mutual=True, **block
        )
        self.linear1 = nn.Linear(dim, dim)
        self.residual_group2 = BlockGroup(
            dim, drop_path[mutual_depth:], window=window, mutual=False, **block
        )
        self.linear2 = nn.Linear(dim, dim)
        self.pa_deform = DeformableAlignment(dim, groups, reach)
        self.pa_fuse = GEGLU(3 * dim, 3 * dim, dim)

    def forward(self, x: Tensor, backward: Tensor, forward: Tensor) -> Tensor:
        """(B, C', D, H', W') and flows (B, D - 1, 2, H, W) -> (B, C, D, H, W)."""
        x = self.reshape(x)
        x = x + on_channels(self.linear1, self.residual_group1(x))
        x = x + on_channels(self.linear2, self.residual_group2(x))
        x = align_neighbours(x, backward, forward, self.pa_deform)  # (B, 3C, D, H, W)
        return on_channels(self.pa_fuse, x)


class ReconstructionGroup(nn.Module):
    """Blocks of self attention with a residual: (B, C, D, H, W)."""

    def __init__(self, dim: int, drop_path: Sequence[float], **block: Any) -> None:
        super().__init__()
        self.residual_group = BlockGroup(dim, drop_path, mutual=False, **block)
        self.linear = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return x + on_channels(self.linear, self.residual_group(x))


class PlainVRT(nn.Module):
    """VRT with two-frame alignment; arguments as those of `spikedeblur.third_party.VRT.VRT`.

    Clips need two frames, and sides that are multiples of 8 and hold each stage's window.
    """

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
        use_checkpoint_attn: bool = False,
        use_checkpoint_ffn: bool = False,
    ) -> None:
        super().__init__()
        if (upscale, pa_frames) != (1, 2):
            raise ValueError(f"expected upscale 1 and pa_frames 2, got {upscale} and {pa_frames}")
        window = (window_size[0], window_size[1], window_size[2])
        single = (1, window[1], window[2])
        rates = torch.linspace(0, drop_path_rate, sum(depths)).split(list(depths))
        block = {
            "mlp_ratio": mlp_ratio,
            "qkv_bias": qkv_bias,
            "use_checkpoint_attn": use_checkpoint_attn,
            "use_checkpoint_ffn": use_checkpoint_ffn,
        }
        first, last = embed_dims[0], embed_dims[7]
        self.spynet = SpyNet()
        self.conv_first = nn.Conv3d(27, first, (1, 3, 3), padding=(0, 1, 1))
        scales = (1, 1, 2, 4, 8, 4, 2, 1)  # before and after each stage
        widths = (first, *embed_dims[:7])
        self.scales = scales[1:]
        for i, (before, after) in enumerate(pairwise(scales)):
            stage = Stage(
                reshape_layers(widths[i], widths[i + 1], before, after),
                widths[i + 1],
                window,
                rates[i].tolist(),
                mutual_depth=int(depths[i] * mul_attn_ratio),
                groups=deformable_groups,
                reach=10 / after,
                heads=num_heads[i],
                **block,
            )
            self.add_module(f"stage{i + 1}", stage)
        enter = (ToChannelsLast(), nn.LayerNorm(first), nn.Linear(first, last), ToChannelsFirst())
        self.stage8 = nn.ModuleList([nn.Sequential(*enter)])
        for i in range(7, len(depths)):
            self.stage8.append(
                ReconstructionGroup(
                    last,
                    rates[i].tolist(),
                    window=single if i in indep_reconsts else window,
                    heads=num_heads[i],
                    **block,
                )
            )
        self.norm = nn.LayerNorm(last)
        self.conv_after_body = nn.Linear(last, first)
        self.conv_last = nn.Conv3d(first, 3, (1, 3, 3), padding=(0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, 3, H, W) in [0, 1] -> (B, D, 3, H, W)."""
        backward = self.flows(x[:, :-1], x[:, 1:])
        forward = self.flows(x[:, 1:], x[:, :-1])
        clip = x.transpose(1, 2)  # (B, 3, D, H, W)
        seen = align_neighbours(clip, backward[0], forward[0], warp_nearest4)  # (B, 27, D, H, W)
        features = self.conv_first(seen)
        body = on_channels(self.conv_after_body, self.body(features, backward, forward))
        return (self.conv_last(features + body) + clip).transpose(1, 2)

    def flows(self, ref: Tensor, supp: Tensor) -> list[Tensor]:
        """Flows from (B, D - 1, 3, H, W) to the other, of four scales: (B, D - 1, 2, H, W)."""
        flows = self.spynet(ref.flatten(0, 1), supp.flatten(0, 1))
        return [flow.unflatten(0, ref.shape[:2]) for flow in flows]

    def body(self, x: Tensor, backward: list[Tensor], forward: list[Tensor]) -> Tensor:
        """U-shaped body and reconstruction: (B, C, D, H, W) -> (B, C of stage 8, D, H, W)."""
        skips: list[Tensor] = []
        for i, scale in enumerate(self.scales):
            level = scale.bit_length() - 1  # of the flows
            x = getattr(self, f"stage{i + 1}")(x, backward[level], forward[level])
            if i < 3:
                skips.append(x)
            elif i > 3:
                x = x + skips.pop()
        for part in self.stage8:
            x = part(x)
        return on_channels(self.norm, x)
