"""Frames at other instants of an exposure, from the one at its middle and the paths of its points.

Letters in shape comments: N windows, K bins, h and w rows and columns of spikes, H and W of frames.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .beyond_range import within_range
from .corrections import gray, halved
from .lag import delay
from .neighbours import Motion
from .normalize import DARK, LIMIT
from .path_sums import enlarged_sources, sources_of
from .paths import are_inside, points_at, resized, sampled, shifts
from .spike_motion import INTEGRALS, about, weights_at
from .told_by_spikes import FLOOR, SHORT, as_seen, told_by_spikes


def about_instant(voxels: Tensor, time: float) -> Tensor:
    """Return voxels (..., K, h, w) moved by whole bins, so that an instant is their middle.

    Beyond the end of the exposure, its last bin is repeated.

    Args:
        voxels: relative.
        time: the instant, in exposures from the middle; -1/2 to 1/2.
    """
    bins = torch.full((), -round(time * voxels.shape[-3]), device=voxels.device)
    return delay(voxels, bins.expand(voxels.shape[:-3]))


def moved_to(
    sharp: Tensor,
    maps: Tensor | None,
    blur: Tensor,
    voxels: Tensor,
    time: float,
    found: Motion | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Return what was seen at another instant of an exposure, and where that is unsure.

    Points are moved along their paths. Those that no point of the middle leads to were hidden then:
    they have the light that the spikes saw about the instant, in the blurred frame's colour. In the
    end, frames must show what the spikes saw about the instant, whatever the paths are.

    Args:
        sharp: (N, 3, H, W), frames at the middle of the exposure, whatever method made them.
        maps: (N, MAPS, H, W), those of `sharp_along_motion`, of the same frames; None: the maps of
            the instant are not asked for.
        blur: (N, 3, H, W), the blurred frames.
        voxels: (N, K, h, w), relative; H / h = W / w, a whole number.
        time: the instant, in exposures from the middle; -1/2 to 1/2.
        found: how the voxels' light moves; None: that is found here.

    Returns:
        (N, 3, H, W), `within_range`; and (N, MAPS, H, W), such maps of the instant: those of each
        point, which is unsure too where no point of the middle leads to it.
    """
    told = told_by_spikes(blur, voxels, found)
    size, scale = blur.shape[-2:], blur.shape[-1] // voxels.shape[-1]
    moves = told.moves(scale)
    around = shifts(told.paths, [time, time - SHORT / 3, time + SHORT / 3])
    shift = resized(scale * around.flatten(1, 2), size).unflatten(1, (3, 2)) * moves[:, :, None]
    visible = resized(weights_at(told.visible, [time]), size)
    there, beside = shift[:, :1], shift[:, 1:] - shift[:, :1]  # (N, 1, 2, H, W), (N, 2, 2, H, W)
    half = halved(there[:, 0])[:, None] / 2
    sources = enlarged_sources(sources_of(half, halved(visible)), there)
    points = points_at(sources, size)  # (N, 1, H, W, 2)
    came = 1 - moves * (1 - are_inside(points) * sampled(visible, points[:, 0]))
    moved = F.grid_sample(
        sharp + FLOOR, points[:, 0], mode="bicubic", padding_mode="border", align_corners=False
    )
    light = about(told.light, SHORT, time).clamp(min=0) + FLOOR  # (N, 1, h, w)
    hidden = resized(light / (F.avg_pool2d(gray(blur), scale) + FLOOR), size) * (blur + FLOOR)
    beside = sampled(beside.flatten(1, 2), points[:, 0]).view_as(beside)
    seen, differs = as_seen(came * moved + (1 - came) * hidden, told, light, beside)
    if maps is not None:
        maps = _moved_maps(maps, gray(blur), points[:, 0], came, differs)
    return within_range(seen - FLOOR, blur, told.light), maps


def _moved_maps(
    maps: Tensor, seen: Tensor, points: Tensor, came: Tensor, differs: Tensor
) -> Tensor:
    """Return the maps (N, MAPS, H, W) of an instant.

    Args:
        maps: those of the middle.
        seen: (N, 1, H, W), the luminance of the blurred frames, to which means are relative.
        points: (N, H, W, 2), where the points of the instant are in the middle.
        came: (N, 1, H, W), how surely they are visible there.
        differs: (N, 1, H, W), what `as_seen` returns of the instant.
    """
    means, rest = maps.split([INTEGRALS - 1, maps.shape[1] - INTEGRALS + 1], 1)
    light = sampled(means * (seen + DARK) + seen, points)
    deviation, hidden, residue, _, pace = sampled(rest, points).split(1, 1)
    means = ((light - seen) / (seen + DARK)).clamp(-LIMIT, LIMIT)
    hidden = 1 - came * (1 - hidden)
    return torch.cat([means, deviation, hidden, residue, differs.clamp(-LIMIT, LIMIT), pace], 1)
