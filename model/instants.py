"""Frames at other instants of an exposure, from the one at its middle and the paths of its points.

Letters in shape comments: N windows, K bins, h and w rows and columns of spikes, H and W of frames.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .beyond_range import within_range
from .corrections import gray, halved
from .neighbours import Motion
from .path_sums import enlarged_sources, sources_of
from .paths import are_inside, points_at, resized, sampled, shifts
from .spike_motion import about, weights_at
from .told_by_spikes import FLOOR, SHORT, as_seen, told_by_spikes


def at_instant(
    sharp: Tensor, blur: Tensor, voxels: Tensor, time: float, found: Motion | None = None
) -> Tensor:
    """Return what was seen at another instant of an exposure.

    Points are moved along their paths. Those that no point of the middle leads to were hidden then:
    they have the light that the spikes saw about the instant, in the blurred frame's colour. In the
    end, frames must show what the spikes saw about the instant, whatever the paths are.

    Args:
        sharp: (N, 3, H, W), frames at the middle of the exposure, whatever method made them.
        blur: (N, 3, H, W), the blurred frames.
        voxels: (N, K, h, w), relative; H / h = W / w, a whole number.
        time: the instant, in exposures from the middle; -1/2 to 1/2.
        found: how the voxels' light moves; None: that is found here.

    Returns:
        (N, 3, H, W), `within_range`.
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
    seen, _ = as_seen(came * moved + (1 - came) * hidden, told, light, beside)
    return within_range(seen - FLOOR, blur, told.light)
