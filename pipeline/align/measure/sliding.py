"""The correlation of an image with a TFP that slides over a recording, lag by lag.

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

from ...spikes.stream import SpikeStream

BANDS = 8
"""G, bands of rows. Each has its mean taken away, so that shading over them proves nothing."""

MOST_PIXELS = 65_536
"""Most pixels of an image that are compared; in larger ones, the rows with most texture."""

Curve = npt.NDArray[np.floating]
Plane = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """An image, and where the timeline puts it in a recording."""

    image: Plane
    """(h, w) luminance at the spikes' pixels; NaN where they see past the frame."""
    spikes: SpikeStream
    at: float
    """Sample of the exposure's middle; may be fractional, or outside the recording."""
    widths: tuple[int, ...]
    """Lengths of TFP that the image may look like, in samples; one for a blurred image."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """Covariances of one image with a TFP of one width, by band and lag."""

    lags: Curve
    """Lags, (L,), equally spaced and increasing, in samples."""
    products: Curve
    """Covariances of image and TFP, (G, L); NaN outside the recording."""
    powers: Curve
    """Sums of squares of the TFP, (G, L); NaN outside the recording."""
    image_powers: Curve
    """Sums of squares of the image, (G,)."""

    def curve(self, without: int | None = None) -> Curve:
        """Return the correlation (L,) over all bands but `without`; NaN where it is not known."""
        kept = [g for g in range(len(self.image_powers)) if g != without]
        power = self.powers[kept].sum(axis=0) * self.image_powers[kept].sum()
        with np.errstate(invalid="ignore", divide="ignore"):
            curve = self.products[kept].sum(axis=0) / np.sqrt(power)
        return np.where(power > 0, curve, np.nan)

    def of_band(self, band: int) -> Likeness:
        """Return the covariances of one band alone."""
        only = slice(band, band + 1)
        return Likeness(self.lags, self.products[only], self.powers[only], self.image_powers[only])


@dataclass(frozen=True, slots=True)
class Box:
    """Rows and columns of the pixels that are compared, each from start to stop."""

    rows: tuple[int, int]
    columns: tuple[int, int]

    def of(self, image: Plane) -> Plane:
        """Return the part of an image (h, w) inside the box."""
        return image[slice(*self.rows), slice(*self.columns)]


def busiest_box(images: list[Plane]) -> Box | None:
    """Return the box to compare: pixels known in all images; of many, the rows with most texture.

    It has a multiple of BANDS rows and at most MOST_PIXELS pixels. None: images share no pixels.
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
    """Return a box without unknown pixels: again and again, the side with most of them moves in."""
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
    reference: Reference, box: Box, widths: tuple[int, ...], lags: tuple[float, float], step: int
) -> list[Likeness]:
    """Compare an image with TFPs at lags from lags[0] to lags[1].

    Args:
        reference: the image.
        box: the pixels compared.
        widths: lengths of the TFPs, in steps.
        lags: first and last lag, in samples.
        step: samples that are read as one, and from one lag to the next.

    Returns:
        One result for each width. Lags are whole samples only where the image's time is one; their
        number is the same for all images.
    """
    n_lags = int((lags[1] - lags[0]) // step) + 1
    results = []
    earliest, end = reference.spikes.whole
    centred = _centred(box.of(reference.image))
    image_powers = np.einsum("gp,gp->g", centred, centred).astype(np.float64)
    for width in widths:
        # Samples [first, first + width step) have their middle at first + (width step - 1) / 2.
        length = width * step
        first = round(reference.at + lags[0] - (length - 1) / 2)
        exact = first + (length - 1) / 2 - reference.at
        starts = first + step * np.arange(n_lags)
        inside = np.flatnonzero((starts >= earliest) & (starts + length <= end))
        products, powers = (np.full((len(centred), n_lags), np.nan) for _ in range(2))
        if inside.size:
            a, b = int(starts[inside[0]]), int(starts[inside[-1]]) + length
            planes = _planes(reference.spikes, a, b, box, step)
            products[:, inside], powers[:, inside] = _correlate(planes, centred, width)
        results.append(Likeness(exact + step * np.arange(n_lags), products, powers, image_powers))
    return results


def _planes(
    spikes: SpikeStream, start: int, stop: int, box: Box, step: int
) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Return spikes (steps, h, w) summed over `step` samples each."""
    if step == 1:
        return spikes.read(start, stop, box.rows, box.columns)
    return spikes.counts((stop - start) // step, start, stop, box.rows, box.columns)


def _centred(image: Plane) -> Plane:
    """Return the image as bands (G, P), each of mean 0."""
    bands = image.reshape(BANDS if len(image) >= BANDS else 1, -1)
    return np.asarray(bands - bands.mean(axis=1, keepdims=True, dtype=np.float64), np.float32)


def _correlate(planes: npt.NDArray[np.generic], image: Plane, width: int) -> tuple[Curve, Curve]:
    """Return covariances with `image` and sums of squares (G, L) of `width` planes in a row."""
    flat = planes.reshape(len(planes), *image.shape)  # (T, G, P)
    # Without its mean, so that float32 keeps what varies.
    count = flat[:width].sum(axis=0, dtype=np.float32)
    count -= count.mean(axis=1, keepdims=True)
    size = image.shape[1]
    products, powers = [], []
    for i in range(len(flat) - width + 1):
        if i:
            count += flat[i + width - 1]
            count -= flat[i - 1]
        total = count.sum(axis=1, dtype=np.float64)
        products.append(np.einsum("gp,gp->g", count, image))
        powers.append(np.einsum("gp,gp->g", count, count) - total * total / size)
    return np.stack(products, axis=1).astype(np.float64), np.stack(powers, axis=1)
