"""The data and settings behind published tables, so that like is compared with like.

A protocol is checked on the store that is evaluated, by what `align` found in the data set's
folders and by the number of spike samples: figures on GoPro's `blur` and `blur_gamma`, or on blur
of 33 and 65 frames, do not compare, and users confuse them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from ...errors import SpikeDeblurError
from ..host.reporter import counted
from ..sequences.contract import WindowSequence
from ..sequences.stored import StoreSequence
from ..store.schema import SequenceRecord


class ProtocolError(SpikeDeblurError):
    """There is no such protocol, or the data are not a protocol's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """What a published table was measured on."""

    what: str
    """The data set in words, for messages."""
    split: str
    spikes: tuple[int, int]
    """(h, w) of the spikes, in pixels."""
    samples: int | None = None
    """Spike samples in an exposure; None: differs by sequence."""
    blur_kind: str | None = None
    """The way in which blurred frames were averaged; None: the data set has one."""


PROTOCOLS = {
    "gopro-blur": Protocol(
        what="GOPRO_Large test, blur", split="test", spikes=(360, 640), blur_kind="blur"
    ),
    "gopro-blur-gamma": Protocol(
        what="GOPRO_Large test, blur_gamma", split="test", spikes=(360, 640), blur_kind="blur_gamma"
    ),
    "spk-x4k-33": Protocol(
        what="Spk-X4K1000FPS val, blur of 33 frames", split="val", spikes=(256, 256), samples=33
    ),
    "s-sdm": Protocol(
        what="S-SDM's GOPRO test, blur of 97 frames", split="test", spikes=(180, 320), samples=97
    ),
}


def protocol_split(name: str) -> str:
    """Return the split that a protocol is measured on.

    Raises:
        ProtocolError: no such protocol; lists those that there are.
    """
    return _protocol(name).split


def require_protocol(name: str, split: str, sequences: Sequence[WindowSequence]) -> None:
    """Refuse sequences of a store that are not a protocol's data.

    Raises:
        ProtocolError: names the sequence, what the protocol has, and what was found.
    """
    protocol = _protocol(name)
    if split != protocol.split:
        raise ProtocolError(
            f"expected the split {protocol.split} for the protocol {name} ({protocol.what}), got "
            f"{split}; give --split {protocol.split}"
        )
    for sequence in sequences:
        difference = _difference(protocol, cast(StoreSequence, sequence).record)
        if difference is not None:
            raise ProtocolError(
                f"{sequence.seq}: expected {protocol.what} for the protocol {name}, found "
                f"{difference}; evaluate without --protocol, or on the protocol's data"
            )


def _protocol(name: str) -> Protocol:
    if name not in PROTOCOLS:
        raise ProtocolError(f"expected a protocol among {', '.join(PROTOCOLS)}, got {name!r}")
    return PROTOCOLS[name]


def _difference(protocol: Protocol, record: SequenceRecord) -> str | None:
    """Return what is other than a protocol's data, in words; None: nothing."""
    if tuple(record.voxel_shape) != protocol.spikes:
        return f"spikes of {record.voxel_shape[0]}x{record.voxel_shape[1]}"
    lengths = {record.shortest_window, record.longest_window}
    if protocol.samples is not None and lengths != {protocol.samples}:
        longest = counted(record.longest_window, "sample")
        shortest = f"{record.shortest_window} to " if len(lengths) > 1 else ""
        return f"exposures of {shortest}{longest}"
    if protocol.blur_kind not in (None, record.blur_kind):
        return f"blurred frames from {record.blur_kind or 'another data set'}"
    return None
