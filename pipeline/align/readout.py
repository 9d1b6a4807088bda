"""When the rolling shutter of a sequence exposes each row of its spikes."""

from __future__ import annotations

from pathlib import Path

from ..frames.images import image_shape
from ..spikes.rolling import Delays, delays_at, row_delays
from .manifest import AlignedSequence


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
