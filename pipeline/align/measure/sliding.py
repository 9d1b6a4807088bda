"""How alike is an image to a TFP that slides over a recording? Correlations, lag by lag.

    recording  |..........................................|
    TFP             [--w--]->                                correlation with the image, per lag
    image                        ^ where the timeline puts it: lag 0

Only lags at which the whole TFP lies inside the recording have a value; the others are NaN.
Letters in shapes: G bands of rows, which make the estimates independent enough to see how far
chance moves them; P pixels of a band; L lags.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...spikes.dat import SpikeFile

BANDS = 8
"""G. Each band has its mean taken away, so that shading from top to bottom proves nothing."""

MOST_PIXELS = 65_536
"""Pixels compared of each image; of larger ones the rows with most texture are taken."""

Curve = npt.NDArray[np.floating]
Plane = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """An image, and where the timeline puts it in a recording."""

    image: Plane
    """(h, w) luminance at the spikes' pixels; NaN where they see past the frame."""
    spikes: SpikeFile
    at: float
    """Sample of the exposure's middle; may lie between two samples, or outside."""
    widths: tuple[int, ...]
    """Samples of the TFPs that it may look like: several for a sharp image, one for a blurred."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """Correlation per band of one image with a TFP of one width."""

    lags: Curve
    """(L,) samples, equally spaced, increasing."""
    products: Curve
    """(G, L): covariances; NaN outside the recording."""
    powers: Curve
    """(G, L): of the TFP."""
    own: Curve
    """(G,): of the image."""

    def curve(self, without: int | None = None) -> Curve:
        """Return the correlation (L,) over all bands but one; NaN where nothing is known."""
        kept = [g for g in range(len(self.own)) if g != without]
        power = self.powers[kept].sum(axis=0) * self.own[kept].sum()
        with np.errstate(invalid="ignore", divide="ignore"):
            curve = self.products[kept].sum(axis=0) / np.sqrt(power)
        return np.where(power > 0, curve, np.nan)


@dataclass(frozen=True, slots=True)
class Box:
    """Pixels that are compared."""

    rows: tuple[int, int]
    columns: tuple[int, int]

    def of(self, image: Plane) -> Plane:
        """Return that part of an image (h, w)."""
        return image[slice(*self.rows), slice(*self.columns)]


def busiest_box(images: list[Plane]) -> Box | None:
    """Return the pixels to compare: known in all images, and of many those with most texture.

    Rows are a multiple of `BANDS`, pixels at most MOST_PIXELS. None: images share no pixels.
    """
    box = _known_box(np.logical_and.reduce([np.isfinite(image) for image in images]))
    if box is None:
        return None
    images = [box.of(image) for image in images]
    height, width = images[0].shape
    if height < BANDS:
        return box
    rows = min(height, max(MOST_PIXELS // width, 2 * BANDS)) // BANDS * BANDS
    texture = sum(np.abs(np.diff(image, axis=1)).sum(axis=1, dtype=np.float64) for image in images)
    total = np.concatenate([[0.0], np.cumsum(texture)])
    first = int(np.argmax(total[rows:] - total[: height - rows + 1])) + box.rows[0]
    return Box((first, first + rows), box.columns)


def _known_box(known: npt.NDArray[np.bool_]) -> Box | None:
    """Return a rectangle of known pixels: the side with most unknown ones moves in, in turn."""
    top, bottom, left, right = 0, known.shape[0], 0, known.shape[1]
    while bottom - top > 1 and right - left > 1:
        inside = known[top:bottom, left:right]
        unknown = [float((~side).mean()) for side in (inside[0], inside[-1], *inside.T[[0, -1]])]
        if max(unknown) == 0 and inside.all():
            return Box((top, bottom), (left, right))
        side = int(np.argmax(unknown))
        top, bottom = top + (side == 0), bottom - (side == 1)
        left, right = left + (side == 2), right - (side == 3)
    return None


def slide(
    reference: Reference,
    box: Box,
    widths: tuple[int, ...],
    lags: tuple[float, float],
    step: int,
    *,
    every: int = 1,
) -> list[Likeness]:
    """Compare an image with TFPs at lags from lags[0] to lags[1].

    Args:
        reference: the image.
        box: the pixels compared.
        widths: of the TFPs, in steps.
        lags: first and last, in samples; all of the same number of steps for images whose `at`
            differ by fractions.
        step: samples that are read as one.
        every: lags are so many steps apart.

    Returns:
        One a width. The lags are exact, so they are whole only where the image's time is.
    """
    n_lags = int((lags[1] - lags[0]) // (step * every)) + 1
    found = []
    centred = _centred(box.of(reference.image))
    own = np.einsum("gp,gp->g", centred, centred).astype(np.float64)
    for width in widths:
        # Samples [first, first + width step) have their middle at first + (width step - 1) / 2.
        length = width * step
        first = round(reference.at + lags[0] - (length - 1) / 2)
        exact = first + (length - 1) / 2 - reference.at
        starts = first + step * every * np.arange(n_lags)
        inside = np.flatnonzero((starts >= 0) & (starts + length <= reference.spikes.n_frames))
        products, powers = (np.full((len(centred), n_lags), np.nan) for _ in range(2))
        if inside.size:
            a, b = int(starts[inside[0]]), int(starts[inside[-1]]) + length
            planes = _planes(reference.spikes, a, b, box, step)
            p, q = _correlate(planes, centred, width, every)
            products[:, inside], powers[:, inside] = p, q
        found.append(Likeness(exact + step * every * np.arange(n_lags), products, powers, own))
    return found


def _planes(
    spikes: SpikeFile, start: int, stop: int, box: Box, step: int
) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Return spikes (steps, h, w) summed over `step` samples each."""
    if step == 1:
        return spikes.read(start, stop, box.rows, box.columns)
    return spikes.counts((stop - start) // step, start, stop, box.rows, box.columns)


def _centred(image: Plane) -> Plane:
    """Return the image as bands (G, P), each of mean 0."""
    bands = image.reshape(BANDS if len(image) >= BANDS else 1, -1)
    return np.asarray(bands - bands.mean(axis=1, keepdims=True, dtype=np.float64), np.float32)


def _correlate(
    planes: npt.NDArray[np.generic], image: Plane, width: int, every: int
) -> tuple[Curve, Curve]:
    """Return covariances with `image` and powers (G, L) of sums of `width` planes in a row."""
    flat = planes.reshape(len(planes), *image.shape)  # (T, G, P)
    # About its mean, so that float32 keeps what varies.
    count = flat[:width].sum(axis=0, dtype=np.float32)
    count -= count.mean(axis=1, keepdims=True)
    size = image.shape[1]
    products, powers = [], []
    for i in range(len(flat) - width + 1):
        if i:
            count += flat[i + width - 1]
            count -= flat[i - 1]
        if i % every:
            continue
        total = count.sum(axis=1, dtype=np.float64)
        products.append(np.einsum("gp,gp->g", count, image))
        powers.append(np.einsum("gp,gp->g", count, count) - total * total / size)
    return np.stack(products, axis=1).astype(np.float64), np.stack(powers, axis=1)
