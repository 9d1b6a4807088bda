"""VRT for deblurring in the plain style in which such networks are published: a speed baseline.

It computes what `spikedeblur.third_party.VRT` computes, under the same state-dict names, with
standard operations: rolled windows, explicit softmax attention, one warping after the other.
Written from the same specification, not from the published code. Only the two constant buffers
come from our code.

Features between parts are (B, C, D, H, W): clips, channels, frames, rows, columns. In attention,
n counts windows of all clips, N the tokens of a window, h heads, c = C / h.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import StochasticDepth, deform_conv2d

from spikedeblur.third_party.VRT.attention import relative_position_index, sine_code

Size = tuple[int, int, int]


def sample(x: Tensor, position: Tensor, mode: str = "bilinear", padding: str = "zeros") -> Tensor:
    """Read `x` (B, C, H, W) at `position` (B, H, W, 2), x and y in pixels."""
    last = position.new_tensor([max(side - 1, 1) for side in (x.shape[3], x.shape[2])])
    grid = 2 * position / last - 1
    return F.grid_sample(x, grid, mode=mode, padding_mode=padding, align_corners=True)


def moved_positions(flow: Tensor) -> Tensor:
    """Return each pixel's place plus its flow (B, 2, H, W): (B, H, W, 2)."""
    sides = (torch.arange(n, device=flow.device, dtype=flow.dtype) for n in flow.shape[2:])
    y, x = torch.meshgrid(*sides, indexing="ij")
    return torch.stack([x, y], -1) + flow.permute(0, 2, 3, 1)


def warp_nearest4(x: Tensor, target: Tensor, flow: Tensor) -> Tensor:
    """Warp `x` to each of the four whole pixels around its place: (B, 4C, H, W)."""
    x_place, y_place = moved_positions(flow).unbind(-1)  # (B, H, W) each
    columns, rows = (x_place.floor(), x_place.ceil()), (y_place.floor(), y_place.ceil())
    corners = [torch.stack([column, row], -1) for column in columns for row in rows]
    return torch.cat([sample(x, corner, mode="nearest") for corner in corners], 1)


def join_neighbours(x: Tensor, backward: Tensor, forward: Tensor, align: Callable) -> Tensor:
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
        flow: Tensor | None = None
        flows: list[Tensor] = []
        for module, r, s in zip(self.basic_module, *map(self.pyramid, (ref, supp)), strict=True):
            if flow is None:
                flow = torch.zeros_like(r[:, :2])
            else:
                flow = 2 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)
            warped = sample(s, moved_positions(flow), padding="border")
            flow = flow + module(torch.cat([r, warped, flow], 1))
            flows.insert(0, flow)  # finest first
        height, width = ref.shape[-2:]
        return [resize_flow(flows[i], height // 2**i, width // 2**i) for i in range(4)]

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """Resize to multiples of 32, normalise, halve five times; coarsest first."""
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
        self.groups, self.reach = groups, reach
        self.weight = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(dim, dim, 3, 3), a=5**0.5))
        self.bias = nn.Parameter(torch.zeros(dim))
        layers: list[nn.Module] = []
        for width in (2 * dim + 2, dim, dim):
            layers += [nn.Conv2d(width, dim, 3, padding=1), nn.LeakyReLU(0.1, inplace=True)]
        self.conv_offset = nn.Sequential(*layers, nn.Conv2d(dim, 27 * groups, 3, padding=1))
        for parameter in self.conv_offset[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, neighbour: Tensor, target: Tensor, flow: Tensor) -> Tensor:
        warped = sample(neighbour, moved_positions(flow))
        seen = torch.cat([warped, target, flow], 1)  # (B, 2C + 2, H, W)
        first, second, mask = self.conv_offset(seen).chunk(3, 1)  # (B, 9 groups, H, W) each
        offset = self.reach * torch.tanh(torch.cat([first, second], 1))
        offset = offset + flow.flip(1).repeat(1, 9 * self.groups, 1, 1)  # (y, x) of each tap
        # In the flow's type: under autocast, bf16 has no such kernel on CPU.
        source, mask = neighbour.to(offset.dtype), mask.sigmoid().to(offset.dtype)
        aligned = deform_conv2d(source, offset, self.weight, self.bias, padding=1, mask=mask)
        return aligned.to(neighbour.dtype)


def cut_windows(x: Tensor, window: Sequence[int]) -> Tensor:
    """(B, D, H, W, C) of whole windows -> (n, N, C)."""
    (b, d, h, w, c), (wd, wh, ww) = x.shape, window
    x = x.view(b, d // wd, wd, h // wh, wh, w // ww, ww, c)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, wd * wh * ww, c)  # (n, N, C)


def join_windows(tokens: Tensor, window: Sequence[int], size: Sequence[int]) -> Tensor:
    """Undo `cut_windows` for features of `size` (D, H, W): (n, N, C) -> (B, D, H, W, C)."""
    (d, h, w), (wd, wh, ww) = size, window
    x = tokens.view(-1, d // wd, h // wh, w // ww, wd, wh, ww, tokens.shape[-1])
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(-1, d, h, w, tokens.shape[-1])


def shift_mask(x: Tensor, window: Sequence[int], shift: Sequence[int]) -> Tensor:
    """Return -100 for tokens that only the roll made neighbours: (windows of a clip, N, N)."""
    labels = []  # three regions along each axis
    for side, extent, moved in zip(x.shape[1:4], window, shift, strict=True):
        place = torch.arange(side, device=x.device)
        last = (place >= side - extent).int() + (place >= side - moved).int()
        labels.append(last if moved else torch.zeros_like(last))
    frame, row, column = torch.meshgrid(*labels, indexing="ij")
    region = (9 * frame + 3 * row + column)[None, ..., None]  # (1, D, H, W, 1)
    region = cut_windows(region, window).squeeze(-1)  # (windows, N)
    apart = region[:, None, :] != region[:, :, None]  # (windows, N, N)
    return x.new_zeros(apart.shape).masked_fill(apart, -100.0)


class WindowAttention(nn.Module):
    """Self attention in windows, with mutual attention of two frames beside it if `mutual`."""

    relative_position_index: Tensor
    position_bias: Tensor

    def __init__(self, dim: int, window: Size, heads: int, mutual: bool, qkv_bias: bool) -> None:
        super().__init__()
        self.heads, self.mutual = heads, mutual
        self.scale = (dim // heads) ** -0.5
        table = torch.empty(math.prod(2 * extent - 1 for extent in window), heads)
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
            mask = None if mask is None else mask[:, :half, :half]
            first = self.attend(q[:, :, half:], k[:, :, :half], v[:, :, :half], mask)
            second = self.attend(q[:, :, :half], k[:, :, half:], v[:, :, half:], mask)
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
        logits = (q * self.scale) @ k.transpose(-2, -1)  # (n, h, N, N)
        if bias is not None:
            logits = logits + bias
        if mask is not None:
            logits = logits.unflatten(0, (-1, len(mask))) + mask[:, None]  # (B, windows, h, N, N)
            logits = logits.flatten(0, 1)
        return (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)


class GEGLU(nn.Module):
    """Feed-forward part with a gate, on the last axis."""

    def __init__(self, dim: int, hidden: int, out_dim: int) -> None:
        super().__init__()
        self.fc11, self.fc12 = nn.Linear(dim, hidden), nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc11(x)) * self.fc12(x))


class BlockOptions(NamedTuple):
    """What all blocks of a network share."""

    mlp_ratio: float
    qkv_bias: bool
    use_checkpoint_attn: bool
    use_checkpoint_ffn: bool


class Block(nn.Module):
    """Window attention and feed-forward part, each with its residual: (B, D, H, W, C)."""

    def __init__(
        self, dim: int, window: Size, heads: int, mutual: bool, shifted: bool, rate: float,
        options: BlockOptions,
    ) -> None:  # fmt: skip
        super().__init__()
        self.window, self.shifted, self.options = window, shifted, options
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, window, heads, mutual, options.qkv_bias)
        self.mlp = GEGLU(dim, int(dim * options.mlp_ratio), dim)
        self.drop_path = StochasticDepth(rate, "row")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.run(self.attention, x, self.options.use_checkpoint_attn))
        return x + self.drop_path(self.run(self.feed_forward, x, self.options.use_checkpoint_ffn))

    def run(self, part: Callable[[Tensor], Tensor], x: Tensor, recompute: bool) -> Tensor:
        return checkpoint(part, x, use_reentrant=False) if recompute else part(x)

    def attention(self, x: Tensor) -> Tensor:
        d, h, w = x.shape[1:4]
        window = tuple(min(pair) for pair in zip((d, h, w), self.window, strict=True))
        sides = list(zip((d, h, w), window, strict=True))
        shift = tuple(e // 2 if self.shifted and side > e else 0 for side, e in sides)
        back, bottom, right = (-side % extent for side, extent in sides)
        x = F.pad(self.norm1(x), (0, 0, 0, right, 0, bottom, 0, back))
        size, mask = x.shape[1:4], None
        if any(shift):
            x = torch.roll(x, [-s for s in shift], (1, 2, 3))
            mask = shift_mask(x, window, shift)
        tokens = self.attn(cut_windows(x, window), mask)  # (n, N, C)
        x = join_windows(tokens, window, size)  # (B, D, H, W, C), padded
        if any(shift):
            x = torch.roll(x, shift, (1, 2, 3))
        return x[:, :d, :h, :w]

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.norm2(x))


class BlockGroup(nn.Module):
    """Blocks one after the other, every second one shifted: (B, C, D, H, W)."""

    def __init__(
        self, dim: int, window: Size, heads: int, mutual: bool, rates: list[float],
        options: BlockOptions,
    ) -> None:  # fmt: skip
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(dim, window, heads, mutual, i % 2 == 1, rate, options)
            for i, rate in enumerate(rates)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = to_channels_last(x)
        for block in self.blocks:
            x = block(x)
        return to_channels_first(x)


class Apply(nn.Module):
    """A function as a layer without parameters."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.forward = function


def to_channels_last(x: Tensor) -> Tensor:
    """(B, C, D, H, W) -> (B, D, H, W, C)."""
    return x.permute(0, 2, 3, 4, 1)


def to_channels_first(x: Tensor) -> Tensor:
    """(B, D, H, W, C) -> (B, C, D, H, W)."""
    return x.permute(0, 4, 1, 2, 3)


def on_channels(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a layer of the last axis to the channels of (B, C, D, H, W)."""
    return to_channels_first(layer(to_channels_last(x)))


def gather_pixels(x: Tensor) -> Tensor:
    """2x2 pixels become channels: (B, C, D, 2H, 2W) -> (B, D, H, W, 4C)."""
    b, c, d, h, w = x.shape
    x = x.reshape(b, c, d, h // 2, 2, w // 2, 2)  # (B, C, D, H, row, W, column)
    return x.permute(0, 2, 3, 5, 6, 4, 1).reshape(b, d, h // 2, w // 2, 4 * c)


def spread_pixels(x: Tensor) -> Tensor:
    """Channels become 2x2 pixels: (B, 4C, D, H, W) -> (B, D, 2H, 2W, C)."""
    b, c, d, h, w = x.shape
    x = x.reshape(b, 2, 2, c // 4, d, h, w)  # (B, column, row, C, D, H, W)
    return x.permute(0, 4, 5, 2, 6, 1, 3).reshape(b, d, 2 * h, 2 * w, c // 4)


def project(before: Callable[[Tensor], Tensor], in_dim: int, dim: int) -> nn.Sequential:
    """Norm and Linear at places 1 and 2, between changes of layout."""
    norm, linear = nn.LayerNorm(in_dim), nn.Linear(in_dim, dim)
    return nn.Sequential(Apply(before), norm, linear, Apply(to_channels_first))


class Stage(nn.Module):
    """One of stages 1 to 7: rescaling, two groups of blocks, parallel warping."""

    def __init__(
        self, in_dim: int, dim: int, before: int, after: int, window: Size, heads: int,
        rates: list[float], mutual_depth: int, groups: int, options: BlockOptions,
    ) -> None:  # fmt: skip
        super().__init__()
        if before < after:
            self.reshape = project(gather_pixels, 4 * in_dim, dim)
        elif before > after:
            self.reshape = project(spread_pixels, in_dim // 4, dim)
        else:
            layers = (Apply(to_channels_last), nn.LayerNorm(dim), Apply(to_channels_first))
            self.reshape = nn.Sequential(*layers)
        pair, first, second = (2, *window[1:]), rates[:mutual_depth], rates[mutual_depth:]
        self.residual_group1 = BlockGroup(dim, pair, heads, True, first, options)
        self.linear1 = nn.Linear(dim, dim)
        self.residual_group2 = BlockGroup(dim, window, heads, False, second, options)
        self.linear2 = nn.Linear(dim, dim)
        self.pa_deform = DeformableAlignment(dim, groups, reach=10 / after)
        self.pa_fuse = GEGLU(3 * dim, 3 * dim, dim)

    def forward(self, x: Tensor, backward: Tensor, forward: Tensor) -> Tensor:
        """(B, C', D, H', W') and flows (B, D - 1, 2, H, W) -> (B, C, D, H, W)."""
        x = self.reshape(x)
        x = x + on_channels(self.linear1, self.residual_group1(x))
        x = x + on_channels(self.linear2, self.residual_group2(x))
        x = join_neighbours(x, backward, forward, self.pa_deform)  # (B, 3C, D, H, W)
        return on_channels(self.pa_fuse, x)


class ReconstructionGroup(nn.Module):
    """Blocks of self attention with a residual: (B, C, D, H, W)."""

    def __init__(self, dim: int, *group: Any) -> None:
        super().__init__()
        self.residual_group = BlockGroup(dim, *group)
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
        options = BlockOptions(mlp_ratio, qkv_bias, use_checkpoint_attn, use_checkpoint_ffn)
        steps = torch.linspace(0, drop_path_rate, sum(depths)).split(list(depths))
        rates = [step.tolist() for step in steps]
        first, last = embed_dims[0], embed_dims[7]
        self.spynet = SpyNet()
        self.conv_first = nn.Conv3d(27, first, (1, 3, 3), padding=(0, 1, 1))
        scales, dims = (1, 1, 2, 4, 8, 4, 2, 1), (first, *embed_dims)
        for i in range(7):
            stage = Stage(
                dims[i], dims[i + 1], scales[i], scales[i + 1], window, num_heads[i], rates[i],
                int(depths[i] * mul_attn_ratio), deformable_groups, options,
            )  # fmt: skip
            self.add_module(f"stage{i + 1}", stage)
        self.stage8 = nn.ModuleList([project(to_channels_last, first, last)])
        for i in range(7, len(depths)):
            extent = (1, *window[1:]) if i in indep_reconsts else window
            group = (extent, num_heads[i], False, rates[i], options)
            self.stage8.append(ReconstructionGroup(last, *group))
        self.norm = nn.LayerNorm(last)
        self.conv_after_body = nn.Linear(last, first)
        self.conv_last = nn.Conv3d(first, 3, (1, 3, 3), padding=(0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, 3, H, W) in [0, 1] -> (B, D, 3, H, W)."""
        backward = self.flows(x[:, :-1], x[:, 1:])
        forward = self.flows(x[:, 1:], x[:, :-1])
        clip = x.transpose(1, 2)  # (B, 3, D, H, W)
        seen = join_neighbours(clip, backward[0], forward[0], warp_nearest4)  # (B, 27, D, H, W)
        features = self.conv_first(seen)
        body = on_channels(self.conv_after_body, self.body(features, backward, forward))
        return (self.conv_last(features + body) + clip).transpose(1, 2)

    def flows(self, ref: Tensor, supp: Tensor) -> list[Tensor]:
        """Flows from `ref` (B, D - 1, 3, H, W) to `supp` at 4 scales: (B, D - 1, 2, H, W)."""
        flows = self.spynet(ref.flatten(0, 1), supp.flatten(0, 1))
        return [flow.unflatten(0, ref.shape[:2]) for flow in flows]

    def body(self, x: Tensor, backward: list[Tensor], forward: list[Tensor]) -> Tensor:
        """U-shaped body and reconstruction: (B, C, D, H, W) -> (B, C of stage 8, D, H, W)."""
        stage = [getattr(self, f"stage{i}") for i in range(1, 8)]
        x1 = stage[0](x, backward[0], forward[0])
        x2 = stage[1](x1, backward[1], forward[1])
        x3 = stage[2](x2, backward[2], forward[2])
        x4 = stage[3](x3, backward[3], forward[3])
        x = stage[4](x4, backward[2], forward[2])
        x = stage[5](x + x3, backward[1], forward[1])
        x = stage[6](x + x2, backward[0], forward[0]) + x1
        for part in self.stage8:
            x = part(x)
        return on_channels(self.norm, x)
