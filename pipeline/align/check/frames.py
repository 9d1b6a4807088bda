"""A sequence's frames, read once: are they readable, of one size, and do they show anything?"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from ...frames.colours import Colours, colours_of, common_colours
from ...frames.images import ImageError, decode_frame, read_image, to_8_bits
from ...frames.listing import shorten
from ...frames.srgb import decode_srgb
from ...host.reporter import counted
from ...spikes.camera import luminance
from .findings import Checking

BLACK = 2
"""Brightest value, of 255, up to which a frame counts as black."""


def check_images(checking: Checking, linear: bool) -> None:
    """Read a sequence's frames one at a time, and note what is wrong with them.

    Args:
        checking: gets the findings, and the blurred frames' luminance.
        linear: blurred frames average linear light, so that their luminance is taken there.
    """
    shape: tuple[int, int] | None = None
    black: list[str] = []
    frozen: list[str] = []
    before: dict[str, bytes] = {}
    colours: dict[str, Colours] = {}
    for window in checking.sequence.windows:
        for kind, name in (("blur", window.blur), ("sharp", window.sharp)):
            if name is None or name in checking.unreadable:
                continue
            path = Path(checking.paths[name])
            try:
                content = read_image(path)
                frame = decode_frame(content, path)
                colours[name] = colours_of(path, content)
            except ImageError as error:
                checking.note("unreadable", str(error))
                checking.unreadable.add(name)
                continue
            recorded = checking.sequence.files[name].sha256
            if recorded is not None and hashlib.sha256(content).hexdigest() != recorded:
                checking.note("changed", f"{name}: its content is not what was aligned")
            height, width = frame.shape[:2]
            shape = shape or (height, width)
            if (height, width) != shape:
                checking.note(
                    "size",
                    f"{name}: expected {shape[0]}x{shape[1]} as in the sequence's first frame, "
                    f"found {height}x{width}",
                )
            pixels = hashlib.blake2b(frame.tobytes()).digest()
            if int(to_8_bits(frame.max()[None]).item()) <= BLACK:
                black.append(name)
            elif before.get(kind) == pixels:
                frozen.append(name)
            before[kind] = pixels
            if kind == "blur" and name not in black and (colours[name].are_srgb or not linear):
                light = luminance(decode_srgb(frame) if linear else frame)
                checking.luminances[name] = float(light.mean(dtype=np.float64))
    if colours and (differ := common_colours(colours)):
        checking.note("colours", differ)
    if black:
        checking.note("black", f"{counted(len(black), 'black frame')}: {shorten(black)}")
    if frozen:
        checking.note(
            "frozen",
            f"{counted(len(frozen), 'frame')} the same as the one before: {shorten(frozen)}",
        )
