"""A small copy of an evaluation's picture, for a page: `picture.py before_after.png OUT.webp`."""

from __future__ import annotations

import sys

from PIL import Image


def write_small(source: str, out: str) -> None:
    """Write a picture as WebP at its own size, in a fourth of the bytes."""
    with Image.open(source) as picture:
        picture.convert("RGB").save(out, format="WEBP", quality=82, method=6)


if __name__ == "__main__":
    write_small(*sys.argv[1:])
