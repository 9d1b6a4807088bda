"""How large a tile of a frame the network can take, by the memory that is free."""

from __future__ import annotations

import math

import torch
from torch import nn

from ..configs.schema import Config
from .memory import free_memory, memory_taken

SIDES = (256, 192, 128, 64)
"""Tiles to choose from, in pixels. All cost the same a pixel of the frame: what tiles share is
a quarter of their side, so on a CPU larger ones would only take memory."""

WHOLE_PIXELS = 512 * 512
"""Frames up to this size go through the network whole if they fit; on a GPU, larger ones too."""

SHARE_OF_GPU, SHARE_OF_MAIN = 0.8, 0.5
"""Of the free memory, that a tile may take; of main memory other programs want some."""

_TRIED_SIDE = 128
"""In pixels of the network's trunk. What a pass takes beside its pixels is little by then."""


def choose_tile(
    model: nn.Module,
    config: Config,
    frame_shape: tuple[int, int],
    device: torch.device,
    frames: int,
) -> int | None:
    """Return the side of a tile that fits in free memory; None: whole frames do.

    A pass over a small clip of zeros is tried, and memory taken to grow with the pixels. Frames
    no larger than that clip are not asked about.

    Args:
        model: a `VRTWithSpike`, in eval mode.
        config: what it was trained with.
        frame_shape: (H, W), in pixels.
        device: where the model is.
        frames: of a clip.
    """
    scale = config.MODEL.TRUNK_SCALE
    pixels, tried = math.prod(frame_shape), (_TRIED_SIDE * scale) ** 2
    if pixels <= tried:
        return None
    clip = (1, frames)

    def restore(side: int) -> None:
        rgb = torch.zeros(*clip, 3, side * scale, side * scale, device=device)
        model(rgb, torch.zeros(*clip, config.DATA.K, side, side, device=device))

    with torch.inference_mode():
        restore(64)  # what is loaded and kept from the first pass on is not the pixels'
        taken = memory_taken(lambda: restore(_TRIED_SIDE), device)
    share = SHARE_OF_GPU if device.type == "cuda" else SHARE_OF_MAIN
    room = int(share * free_memory(device) / max(taken, 1) * tried)  # pixels
    if pixels <= room and (device.type == "cuda" or pixels <= WHOLE_PIXELS):
        return None
    return next((side for side in SIDES if side * side <= room), SIDES[-1])
