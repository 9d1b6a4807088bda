"""A sequence's frames, read once: can they be read, are they of one size, do they show anything?"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from ...frames.images import ImageError, decode_rgb
from ...frames.listing import shorten
from ...frames.srgb import decode_srgb
from ...spikes.camera import luminance
from .findings import Checking

BLACK = 2
"""Frames whose brightest value, of 255, is no more than this are black."""


def check_images(checking: Checking, linear: bool) -> None:
    """Read the frames, one at a time."""
    shape: tuple[int, int] | None = None
    black: list[str] = []
    frozen: list[str] = []
    before: dict[str, bytes] = {}
    for window in checking.sequence.windows:
        for kind, name in (("blur", window.blur), ("sharp", window.sharp)):
            if name is None or name in checking.unreadable:
                continue
            path = Path(checking.paths[name])
            try:
                content = path.read_bytes()
                frame = decode_rgb(content, path)
            except (ImageError, OSError) as error:
                checking.tell("unreadable", str(error))
                checking.unreadable.add(name)
                continue
            recorded = checking.sequence.files[name].sha256
            if recorded is not None and hashlib.sha256(content).hexdigest() != recorded:
                checking.tell("changed", f"{name}: its content is not what was aligned")
            here = frame.shape[:2]
            if shape is None:
                shape = here
            if here != shape:
                checking.tell(
                    "size",
                    f"{name}: expected {shape[0]}x{shape[1]} as in the sequence's first frame, "
                    f"found {here[0]}x{here[1]}",
                )
            pixels = hashlib.blake2b(frame.tobytes()).digest()
            if int(frame.max()) <= BLACK:
                black.append(name)
            elif before.get(kind) == pixels:
                frozen.append(name)
            before[kind] = pixels
            if kind == "blur" and name not in black:
                light = luminance(decode_srgb(frame) if linear else frame)
                checking.luminances[name] = float(light.mean(dtype=np.float64))
    if black:
        checking.tell("black", f"{len(black)} frames are black: {shorten(black)}")
    if frozen:
        checking.tell("frozen", f"{len(frozen)} frames are the one before: {shorten(frozen)}")
