"""Which grid the light of spikes is brought to in a frame, and whether both can be of one field.

Each pixel of the grid covers a square of whole frame pixels, and none is larger than a spike's:

    spikes    frames     light in   frame pixels a side
    250x400   480x640    480x640    1
    396x640   720x1280   720x1280   1
    360x448   720x1280   360x640    2
    256x256   96x128     96x128     1
"""

from __future__ import annotations

SIDES = (1, 2, 4, 8)
"""Frame pixels that a resampled pixel may span on a side: what divides every training crop."""

NOTABLE = 1.05
"""Stretch of the spikes' pixels that is worth a warning; see `stretch`."""

LARGEST = 1.5
"""Largest stretch that is believed without a registration: 360x448 in 720x1280 has 1.43."""

_REGISTER = "give --calibration to align or restore"


def grid_shape(frames: tuple[int, int], spikes: tuple[int, int]) -> tuple[int, int]:
    """Return (h', w') of the light of spikes (h, w) in frames (H, W).

    Where H = r h and W = r w with a whole r, it is (h, w). Else r is the largest of `SIDES` that
    divides both sides of the frame and is at most H / h and W / w; 1 where spikes are finer.
    """
    (height, width), (h, w) = frames, spikes
    if height % h == 0 and (height // h * h, height // h * w) == frames:
        return spikes
    largest = max(min(height / h, width / w), 1)
    side = max(r for r in SIDES if r <= largest and height % r == 0 and width % r == 0)
    return height // side, width // side


def stretch(frames: tuple[int, int], spikes: tuple[int, int]) -> float:
    """Return how many times as long as wide, or as wide as long, a spike pixel is in the frame."""
    (height, width), (h, w) = frames, spikes
    tall = height / h / (width / w)
    return max(tall, 1 / tall)


def size_warning(frames: tuple[int, int], spikes: tuple[int, int]) -> str | None:
    """Return what is odd about the sizes (H, W) and (h, w) of one field; None: nothing."""
    times = stretch(frames, spikes)
    if times <= NOTABLE:
        return None
    if times > LARGEST:
        return contradiction(frames, spikes)
    return (
        f"spikes of {_size(spikes)} are taken to see all of the {_size(frames)} frames, though "
        f"their pixels are then {times:.2f} times as long as wide; if the cameras see different "
        f"fields, {_REGISTER}"
    )


def contradiction(frames: tuple[int, int], spikes: tuple[int, int]) -> str:
    """Return why sizes (H, W) and (h, w) can't be of one field, and what to do."""
    shapes = f"spikes of {_size(spikes)} and frames of {_size(frames)} can't show the same field"
    if stretch(frames, (spikes[1], spikes[0])) < stretch(frames, spikes):
        return f"{shapes}: one is turned; turn the frames by a quarter, or {_REGISTER}"
    return f"{shapes}; check --geometry, or {_REGISTER}"


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[0]}x{shape[1]}"
