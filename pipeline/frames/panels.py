"""Pictures beside each other, with captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_CAPTION_ROWS = 18
"""Height of a line of text of 10 pixels, in pixels."""
_GAP = 4
"""Distance of pictures, in pixels."""
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


class Row(NamedTuple):
    """Pictures of one size, side by side."""

    title: str
    """Line above them all; empty: none."""
    panels: Sequence[tuple[str, npt.NDArray[np.uint8]]]
    """Caption and (H, W, 3) uint8 of each."""


def draw_panels(rows: Sequence[Row], zoom: int = 1, text: int = 10) -> npt.NDArray[np.uint8]:
    """Return rows of pictures below each other on white, as (H, W, 3) uint8.

    Args:
        rows: pictures and their captions; a row without any has no line for them.
        zoom: side of a square that a pixel becomes, in pixels.
        text: size of the letters, in pixels.
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(text)
    line = text + _CAPTION_ROWS - 10

    def size(row: Row) -> tuple[int, int]:
        height, width = row.panels[0][1].shape[:2]
        lines = any(caption for caption, _ in row.panels) + bool(row.title)
        return (
            len(row.panels) * (zoom * width + _GAP) - _GAP,
            lines * line + zoom * height,
        )

    sizes = [size(row) for row in rows]
    whole = max(width for width, _ in sizes), sum(h for _, h in sizes) + _GAP * (len(rows) - 1)
    picture = Image.new("RGB", whole, _WHITE)
    draw = ImageDraw.Draw(picture)
    y = 0
    for row, (_, row_height) in zip(rows, sizes, strict=True):
        if row.title:
            draw.text((3, y + 3), row.title, fill=_BLACK, font=font)
        for i, (caption, pixels) in enumerate(row.panels):
            height, width = (zoom * side for side in pixels.shape[:2])
            x, top = i * (width + _GAP), y + row_height - height
            draw.text((x + 3, top - line + 3), caption, fill=_BLACK, font=font)
            panel = Image.fromarray(np.ascontiguousarray(pixels))
            picture.paste(panel.resize((width, height), Image.Resampling.NEAREST), (x, top))
        y += row_height + _GAP
    return np.asarray(picture)
