"""Spikes behind a Bayer mosaic of colour filters, brought to one rate in the mean.

Pixels under different filters fire at different rates, so that a gray wall shows the mosaic as
texture. Those of the brighter colours lose spikes until all colours fire as often as the darkest,
over the whole recording. Bits stay bits, so counting, packing and storing go on as without filters.

Within a block of samples they are dropped as evenly as possible: each spike adds its share to a
pixel's sum, and one stays whenever the sum reaches 1. The sum begins at a phase that follows from
block and pixel alone, so a sample is the same whatever window it is read in.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .packed import Bytes

Shares = tuple[float, float, float, float]
"""Share of the spikes that stay, at each place of 2x2 pixels, row by row."""

BLOCK = 64
"""Samples of a block."""

_CLEARLY = 1.15
"""Least ratio of the places' rates that shows a mosaic."""
_EQUAL = 0.05
"""Most difference of the two green places, as a share of the largest difference of places."""


def shares_of(rates: npt.NDArray[np.floating], bayer: str) -> Shares:
    """Return the shares that bring the colours to the rate of the darkest.

    Args:
        rates: (4,) spikes a sample at each place of 2x2 pixels, row by row.
        bayer: order of the colours, such as RGGB.
    """
    colours = np.array(list(bayer))
    of_colour = {colour: float(rates[colours == colour].mean()) for colour in "RGB"}
    least = min(of_colour.values())
    if least <= 0:
        return (1.0, 1.0, 1.0, 1.0)
    a, b, c, d = (least / of_colour[colour] for colour in bayer)
    return a, b, c, d


def place_rates(pixels: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """Return the (4,) means of (..., H, W) at each place of 2x2 pixels, row by row."""
    height, width = pixels.shape[-2] // 2 * 2, pixels.shape[-1] // 2 * 2
    places = [pixels[..., y:height:2, x:width:2].mean() for y in (0, 1) for x in (0, 1)]
    return np.array(places, np.float64)


def likely_orders(rates: npt.NDArray[np.floating]) -> tuple[str, ...]:
    """Return the orders of colours that rates at the four places suggest; empty: no mosaic shows.

    Rates tell where green is, of which there are two, but not red from blue.
    """
    if min(rates) <= 0 or max(rates) < _CLEARLY * min(rates):
        return ()
    spread = float(max(rates) - min(rates))
    for green, orders in (((1, 2), ("RGGB", "BGGR")), ((0, 3), ("GRBG", "GBRG"))):
        if abs(rates[green[0]] - rates[green[1]]) <= _EQUAL * spread:
            return orders
    return ()


def thin(spikes: Bytes, shares: Shares, first: int, corner: tuple[int, int]) -> Bytes:
    """Drop spikes of whole blocks in place, and return them.

    Args:
        spikes: (T, h, w) uint8 of 0/1, which begin with a block.
        shares: share that stays, by place.
        first: number of the first sample, a multiple of `BLOCK`.
        corner: (row, column) of the first pixel in the upright image.
    """
    rows, columns = (np.arange(n) + at for n, at in zip(spikes.shape[1:], corner, strict=True))
    place = rows[:, None] % 2 * 2 + columns % 2
    share = np.array(shares, np.float32)[place]
    seed = (rows[:, None] * 73856093) ^ (columns * 19349663)
    for start in range(0, len(spikes), BLOCK):
        block = spikes[start : start + BLOCK]
        number = first // BLOCK + start // BLOCK
        total = _hashed(seed ^ (number * 83492791))
        for sample in block:
            total += share * sample
            sample[...] = total >= 1
            total -= sample
    return spikes


def _hashed(values: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return numbers in [0, 1) that look random, one for each value."""
    mixed = values.astype(np.uint64)
    for shift, factor in ((33, 0xFF51AFD7ED558CCD), (33, 0xC4CEB9FE1A85EC53)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    return np.asarray((mixed >> np.uint64(40)) / np.float64(1 << 24), np.float32)
