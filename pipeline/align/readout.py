"""A sequence's spikes as its rolling shutter sees them, in the pixels of the spike camera."""

from __future__ import annotations

from pathlib import Path

from ..frames.images import image_shape
from ..spikes.dat import SpikeFile
from ..spikes.rolling import Delays, RolledSpikes, delays_at, row_delays
from .manifest import AlignedSequence

SpikeView = SpikeFile | RolledSpikes
"""A spike file, in which each row may be read as late as it was exposed."""


def delays_of(sequence: AlignedSequence, root: Path, *, registered: bool = False) -> Delays | None:
    """Return the delay of each row of a sequence's spikes, in samples; None: there are none.

    Args:
        sequence: the sequence.
        root: the data set's folder, with the frames.
        registered: whether rows are those of registered spikes, which lie over the whole frame.
    """
    if not sequence.readout or not sequence.windows:
        return None
    height = image_shape(root / sequence.windows[0].blur)[0]
    registration = None if registered else sequence.registration()
    if registration is None:
        rows = sequence.spike_geometry().shape[0]
        return row_delays(sequence.readout, sequence.rate, rows, height)
    return delays_at(registration.frame_rows(), sequence.readout, sequence.rate, height)


def as_rolled(file: SpikeFile, delays: Delays | None) -> SpikeView:
    """Return a file whose rows are read with their delays."""
    return file if delays is None else RolledSpikes(file, delays)
