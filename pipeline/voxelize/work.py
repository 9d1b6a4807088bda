"""How much work a sequence is, by which the time left is told before its tasks are planned."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass

from ...errors import SpikeDeblurError
from ..align.manifest import AlignedSequence
from ..host.pieces import HashForm
from ..storage.base import merge_spans
from ..store.schema import Kind
from .compare import Seen
from .notes import ShardResult

GUESSES = {"spikes": 1.0, "windows": 2.0, "hashes": 0.5}
"""Time of a byte of each kind of part, in that of spikes, as long as none is measured."""


@dataclass(frozen=True, slots=True)
class Work:
    """The work of one sequence, in bytes of its files."""

    parts: Counter[str]
    """Bytes of each of the kinds of `GUESSES`: spikes that are packed anew; frames, with spikes
    that are counted for them; and pieces of recordings that are only hashed."""
    windows: int
    piece: int
    """Bytes of a piece that is only hashed."""

    def part(self, result: ShardResult) -> tuple[str, float]:
        """Return the kind of a task that is done, and its bytes."""
        if result.windows:
            return "windows", result.windows * self.parts["windows"] / self.windows
        if result.files:
            return "spikes", result.bytes_in
        return "hashes", self.piece * sum(map(len, result.hashes.values()))


def work_of(sequence: AlignedSequence, seen: Seen, kind: Kind) -> Work:
    """Return the work of a sequence.

    Args:
        sequence: entry of the manifest.
        seen: present state of each of its files.
        kind: kind of the store.
    """
    spans: dict[str, list[tuple[int, int]]] = {window.spikes: [] for window in sequence.windows}
    images = {name for w in sequence.windows for name in (w.blur, w.sharp, *w.instants)}
    frames = sum(file.size for path, file in seen.items() if path in images)
    parts = Counter({"windows": frames, "spikes": 0, "hashes": 0})
    piece = 0
    try:
        bits = sequence.spike_geometry().frame_bits
        for window in sequence.windows:
            start, stop = sequence.clock(window).samples(window.t0, window.t1)
            spans[window.spikes].append((start * bits // 8, -(-stop * bits // 8)))
    except SpikeDeblurError:
        return Work(parts, len(sequence.windows), piece)  # its plan says what is wrong
    for path, needed in spans.items():
        read = merge_spans(needed)
        several = read if kind == "packed" else needed  # others read each window by itself
        parts["spikes" if kind == "packed" else "windows"] += sum(b - a for a, b in several)
        size, recorded = seen[path].size, sequence.files[path]
        form = recorded.form
        if recorded.sha256 is None:
            form = HashForm.of_bytes(size, recorded.part)
        if form.piece is not None:  # a plain hash is made by who reads the file first
            piece = form.piece
            begins = [start for start, _ in form.spans(size)]
            unread = len(begins) - sum(
                bisect_left(begins, stop) - bisect_left(begins, start) for start, stop in read
            )
            parts["hashes"] += unread * piece
    return Work(parts, len(sequence.windows), piece)
