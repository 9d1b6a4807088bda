"""Windows that are kept: read once, cut to boxes, and let go when they grow too large."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest

from spikedeblur.pipeline.sequences import kept
from spikedeblur.pipeline.sequences.contract import WindowSequence
from spikedeblur.pipeline.sequences.kept import KeptSequence


class Numbered(WindowSequence):
    """Five windows whose pixels tell their place, and a count of what was read."""

    seq, bins, gain, length = "test/a/b", 2, 0.5, 5
    has_sharp, has_spikes, is_remote, windows_are_raw = True, False, False, True
    frame_shape, voxel_shape = (4, 6), (2, 3)

    def __init__(self) -> None:
        self.reads: Counter[tuple[str, int]] = Counter()
        self.frames = np.arange(5 * 4 * 6 * 3).reshape(5, 4, 6, 3)
        self.counts = np.arange(5 * 2 * 2 * 3).reshape(5, 2, 2, 3)

    def _read_voxels(self, start, stop, box):
        self.reads.update(("voxels", i) for i in range(start, stop))
        return self.counts[start:stop, :, slice(*box[0]), slice(*box[1])]

    def _read_frames(self, kind, start, stop, box):
        self.reads.update((kind, i) for i in range(start, stop))
        frames = self.frames if kind == "blur" else -self.frames
        return frames[start:stop, slice(*box[0]), slice(*box[1])]


def ask(sequence: WindowSequence) -> list[np.ndarray]:
    """Read windows and boxes in an order in which a window comes again."""
    read = []
    for start, stop in ((0, 1), (0, 3), (2, 4), (1, 2)):
        read += [
            sequence.voxels(start, stop),
            sequence.voxels(start, stop, (0, 1), (1, 3)),
            sequence.blur(start, stop, (1, 3), (2, 6)),
            sequence.sharp(start, stop),
        ]
    return read


def test_each_window_is_read_once_and_boxes_are_cut_from_it():
    sequence = Numbered()
    for found, expected in zip(ask(KeptSequence(sequence)), ask(Numbered()), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert set(sequence.reads.values()) == {1}
    assert {kind for kind, _ in sequence.reads} == {"voxels", "blur", "sharp"}


@pytest.mark.parametrize("most", [0, 100, 700])
def test_windows_that_grow_too_large_are_let_go_and_read_again(monkeypatch, most):
    monkeypatch.setattr(kept, "KEPT_BYTES", most)
    sequence = KeptSequence(Numbered())
    for found, expected in zip(ask(sequence), ask(Numbered()), strict=True):
        np.testing.assert_array_equal(found, expected)
    largest = sequence.frames[0].nbytes
    assert sum(x.nbytes for x in sequence._kept.values()) <= max(most, largest)


def test_what_is_read_is_the_callers_to_change():
    sequence = KeptSequence(Numbered())
    sequence.blur(0, 1)[:] = 0
    np.testing.assert_array_equal(sequence.blur(0, 1), Numbered().blur(0, 1))


def test_all_else_is_as_in_the_sequence_itself_in_another_process_too():
    sequence = pickle.loads(pickle.dumps(KeptSequence(Numbered())))
    assert (sequence.seq, sequence.gain, sequence.length) == ("test/a/b", 0.5, 5)
    np.testing.assert_array_equal(sequence.blur(1, 3), Numbered().blur(1, 3))
    with pytest.raises(IndexError, match="windows 4:6"):
        sequence.blur(4, 6)
