"""What one training sample is. Plain NumPy.

Everything random is a function of the seed, the epoch and the clip alone. So the number of
loading processes, the batch they work on and where a run was stopped change no sample.

Letters in shapes: T windows of a clip, K bins, H and W a frame's pixels, h and w a voxel grid's.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ....errors import SpikeDeblurError
from ...sequences.contract import Span, WindowSequence
from ...storage.side_by_side import together
from .cache import Arrays, WindowCache
from .order import CROP, ClipIndex

MOST_REPLACED = 20
"""Sequences in a row that can't be read: more are no accident."""


class SampleError(SpikeDeblurError):
    """The data can't be trained on as configured; the message names the sequence."""


class ClipSamples:
    """Cuts training samples from sequences; picklable, and without state but its cache.

    Args:
        sequences: all of one split, with sharp frames.
        index: their clips.
        crop_size: side of the square crop in pixels of the frames; None: only `cut` is used.
        augment: random flips and quarter turns.
        seed: of crops and augmentation.
        cache: windows kept in memory; None: none.
        replace_unreadable: give the next clip of the same length, of another sequence, in place
            of one that can't be read.

    Raises:
        SampleError: no sharp frames, frames smaller than the crop, or sizes of frames and
            voxels that are not in one whole ratio.
    """

    def __init__(
        self,
        sequences: Sequence[WindowSequence],
        index: ClipIndex,
        *,
        crop_size: int | None = None,
        augment: bool = False,
        seed: int = 0,
        cache: WindowCache | None = None,
        replace_unreadable: bool = False,
    ) -> None:
        self.sequences = list(sequences)
        self.index = index
        self.crop_size = crop_size
        self.augment = augment
        self.seed = seed
        self.cache = cache
        self.replace_unreadable = replace_unreadable
        self.is_remote = any(sequence.is_remote for sequence in self.sequences)
        self.ratio = _one_ratio(self.sequences)
        _require_sharp(self.sequences)
        if crop_size is not None:
            _require_crop(self.sequences, crop_size, self.ratio)

    def sample(self, epoch: int, clip: int) -> dict[str, Any]:
        """Return one sample, the same whenever and wherever it is asked for.

        Arrays may be views in another order than memory's: stacking a batch copies them once.

        Returns:
            `blur`, `sharp` (T, 3, S, S) uint8; `voxels` (T, K, s, s) as stored; `samples` (T,)
            int64; `gain` float (NaN: unknown); where it is from: `seq`, `frame_index`, `t0`, `t1`
            (lists of T; seconds); and in place of what: `unread`, (seq, why) of each clip that
            can't be read.

        Raises:
            SpikeDeblurError: it can't be read, and unreadable clips are not replaced, or none of
                the next ones can.
        """
        unread: dict[int, str] = {}
        for other in self._in_its_place(clip, unread):
            try:
                named = [(self.sequences[number].seq, why) for number, why in unread.items()]
                return self._augmented(epoch, other) | {"unread": named}
            except SpikeDeblurError as error:
                unread[self.index[other].sequence] = str(error)
                if not self.replace_unreadable or len(unread) > MOST_REPLACED:
                    raise
        raise SampleError(f"no clip can be read: {next(iter(unread.values()))}")

    def _in_its_place(self, clip: int, unread: Container[int]) -> Iterator[int]:
        """Yield a clip, then those after it of the same length and of other sequences."""
        count, length = len(self.index), self.index[clip].length
        for further in range(count):
            other = (clip + further) % count
            if self.index[other].length == length and self.index[other].sequence not in unread:
                yield other

    def _augmented(self, epoch: int, clip: int) -> dict[str, Any]:
        assert self.crop_size is not None
        random = np.random.default_rng([self.seed, CROP, epoch, clip])
        sequence = self.sequences[self.index[clip].sequence]
        height, width = sequence.frame_shape
        size, ratio = self.crop_size, self.ratio
        top = ratio * int(random.integers((height - size) // ratio + 1))
        left = ratio * int(random.integers((width - size) // ratio + 1))
        turns, flip = int(random.integers(4)), bool(random.integers(2))
        sample = self.cut(clip, (top, top + size), (left, left + size))
        if self.augment:
            for name in ("blur", "sharp", "voxels"):
                turned = np.rot90(sample[name], turns, axes=(-2, -1))
                sample[name] = turned[..., ::-1] if flip else turned
        return sample

    def samples(self, epoch: int, clips: Sequence[int]) -> list[dict[str, Any]]:
        """Return several samples, in order; of a store in a bucket they are read at once."""
        cuts = [partial(self.sample, epoch, clip) for clip in clips]
        return together(cuts, side_by_side=self.is_remote)

    def cut(self, clip: int, rows: Span, columns: Span) -> dict[str, Any]:
        """Return a clip's pixels in a box of the frames, with its metadata, as `sample` does.

        The box is given in pixels of the frames; its sides are multiples of the ratio.
        """
        number, start, length = self.index[clip]
        stop = start + length
        sequence = self.sequences[number]
        blur, sharp, voxels = read_windows(
            sequence, number, (start, stop), rows, columns, self.ratio, self.cache
        )
        return {
            "blur": blur.transpose(0, 3, 1, 2),  # (T, 3, S, S)
            "sharp": sharp.transpose(0, 3, 1, 2),  # (T, 3, S, S)
            "voxels": voxels,  # (T, K, s, s)
            "samples": np.asarray(sequence.samples[start:stop], np.int64),
            "gain": float("nan") if sequence.gain is None else float(sequence.gain),
            "seq": sequence.seq,
            "frame_index": [int(i) for i in sequence.frame_index[start:stop]],
            "t0": [float(t) for t in sequence.t0[start:stop]],
            "t1": [float(t) for t in sequence.t1[start:stop]],
        }


def read_windows(
    sequence: WindowSequence,
    number: int,
    windows: Span,
    rows: Span,
    columns: Span,
    ratio: int,
    cache: WindowCache | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read a box of some windows, from memory where they are held there.

    A window that is not held is read whole, and held from then on, if there is room for it or
    if the box is at least half of it; otherwise only the box is read.

    Returns:
        blur (T, S, S, 3), sharp (T, S, S, 3), voxels (T, K, s, s).
    """
    small_rows = (rows[0] // ratio, rows[1] // ratio)
    small_columns = (columns[0] // ratio, columns[1] // ratio)

    def read(start: int, stop: int, whole: bool) -> Arrays:
        box = () if whole else (rows, columns)
        small_box = () if whole else (small_rows, small_columns)
        blur, sharp, voxels = together(
            [
                partial(sequence.blur, start, stop, *box),
                partial(sequence.sharp, start, stop, *box),
                partial(sequence.voxels, start, stop, *small_box),
            ],
            side_by_side=sequence.is_remote,
        )
        return blur, sharp, voxels

    if cache is None:
        blur, sharp, voxels = read(*windows, whole=False)
        return blur, sharp, voxels
    height, width = sequence.frame_shape
    box = (rows[1] - rows[0]) * (columns[1] - columns[0])
    mostly = 2 * box >= height * width
    y, x = slice(*rows), slice(*columns)
    small_y, small_x = slice(*small_rows), slice(*small_columns)
    parts: list[_Part] = []
    coming = 0  # bytes that will be held
    for window in range(*windows):
        held = cache.get((number, window))
        whole = held is None and (mostly or cache.has_room(coming + window_bytes(sequence)))
        if whole:
            coming += window_bytes(sequence)
        elif held is None and parts and parts[-1].is_box:
            parts[-1].stop = window + 1  # what lies between held windows comes in one read
            continue
        parts.append(_Part(window, window + 1, is_box=not whole and held is None, arrays=held))
    unread = [part for part in parts if part.arrays is None]
    reads = [partial(read, part.start, part.stop, whole=not part.is_box) for part in unread]
    for part, arrays in zip(unread, together(reads, side_by_side=sequence.is_remote), strict=True):
        part.arrays = arrays
        if not part.is_box:
            cache.put((number, part.start), arrays)
    found = []
    for part in parts:
        assert part.arrays is not None
        blur, sharp, voxels = part.arrays
        if not part.is_box:
            blur, sharp = blur[:, y, x], sharp[:, y, x]
            voxels = voxels[:, :, small_y, small_x]
        found.append((blur, sharp, voxels))
    blurs, sharps, counts = zip(*found, strict=True)
    return np.concatenate(blurs), np.concatenate(sharps), np.concatenate(counts)


@dataclass(slots=True)
class _Part:
    """Consecutive windows of a clip that are held, or come by one read."""

    start: int
    stop: int
    is_box: bool
    """Only the box of them is read; else they are held, whole, or will be."""
    arrays: Arrays | None


def window_bytes(sequence: WindowSequence) -> int:
    """Return the bytes of one whole window in memory: blur, sharp, voxels."""
    height, width = sequence.frame_shape
    small_height, small_width = sequence.voxel_shape
    voxel = np.dtype(sequence.voxel_dtype).itemsize
    return 6 * height * width + voxel * sequence.bins * small_height * small_width


def _one_ratio(sequences: Sequence[WindowSequence]) -> int:
    """Return how many frame pixels a voxel spans on a side, the same in all sequences."""
    ratios: dict[int, str] = {}
    for sequence in sequences:
        (height, width), (h, w) = sequence.frame_shape, sequence.voxel_shape
        ratio = height // h
        if ratio < 1 or (h * ratio, w * ratio) != (height, width):
            raise SampleError(
                f"{sequence.seq}: expected frames a whole multiple of the spikes' size, got "
                f"{height}x{width} and {h}x{w}; crop or resize one of them"
            )
        ratios.setdefault(ratio, sequence.seq)
    if len(ratios) > 1:
        found = ", ".join(f"{ratio} ({seq})" for ratio, seq in ratios.items())
        raise SampleError(
            "expected one ratio of frame size to spike size in all sequences, got "
            f"{found}; train on one of them at a time"
        )
    return next(iter(ratios), 1)


def _require_sharp(sequences: Sequence[WindowSequence]) -> None:
    for sequence in sequences:
        if not sequence.has_sharp:
            raise SampleError(
                f"{sequence.seq}: has no sharp frames, which training and validation compare "
                "with; choose another split or data set"
            )


def _require_crop(sequences: Sequence[WindowSequence], crop_size: int, ratio: int) -> None:
    if crop_size % ratio:
        raise SampleError(
            f"DATA.CROP_SIZE: expected a multiple of {ratio}, the ratio of frame size to spike "
            f"size, got {crop_size}"
        )
    for sequence in sequences:
        if min(sequence.frame_shape) < crop_size:
            height, width = sequence.frame_shape
            raise SampleError(
                f"{sequence.seq}: frames of {height}x{width} are smaller than DATA.CROP_SIZE "
                f"{crop_size}; set a smaller one"
            )
