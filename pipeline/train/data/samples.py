"""Training samples: crops of clips, in plain NumPy.

Everything random is a function of the seed, the epoch and the clip alone. So the number of
loading processes, the batch they work on and where a run was stopped change no sample.

Letters in shapes: T windows of a clip, K bins, H and W a frame's pixels, h and w a voxel grid's.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any

import numpy as np

from ....errors import SpikeDeblurError
from ...frames.images import to_unit
from ...sequences.contract import BoxOrAll, Span, WindowSequence
from ...storage.side_by_side import together
from .cache import Arrays, LRUCache
from .order import CHANGES, CROP, ClipIndex, seed_of
from .packed import join

MOST_REPLACED = 20
"""Most consecutive sequences that can't be read before training stops."""


class SampleError(SpikeDeblurError):
    """The data can't be trained on as configured; the message names the sequence."""


@dataclass
class ClipSamples:
    """Cuts training samples from sequences; picklable, and without state but its cache.

    Raises:
        SampleError: no sharp frames, frames smaller than the crop, or sequences of several ratios
            of frame size to voxel size.
    """

    sequences: Sequence[WindowSequence]
    """All sequences of one split, with voxels in the frame's grid; see `seen_by`."""
    index: ClipIndex
    """Their clips."""
    _: KW_ONLY
    crop_size: int | None = None
    """Side of the square crop in pixels of the frames; None: only `cut` is used."""
    augment: bool = False
    """Whether crops are flipped and turned by quarters at random."""
    seed: int = 0
    """Seed of crops and augmentation."""
    cache: LRUCache | None = None
    """Windows kept in memory."""
    names: Sequence[str] = ()
    """Names of the sequences, for all that is printed or recorded; none: their own."""
    beside: float | None = None
    """Time on each side of an exposure, as a share of it, from which samples hold packed spikes;
    None: they hold voxels."""
    replace_unreadable: bool = False
    """Whether a clip that can't be read is replaced by the next of its length, of another
    sequence."""

    def __post_init__(self) -> None:
        self.is_remote = any(sequence.is_remote for sequence in self.sequences)
        self.names = self.names or [sequence.seq for sequence in self.sequences]
        ratios: dict[int, str] = {}
        for name, sequence in zip(self.names, self.sequences, strict=True):
            ratios.setdefault(_checked_ratio(sequence, self.crop_size, name), name)
        if len(ratios) > 1:
            several = ", ".join(f"{ratio} ({seq})" for ratio, seq in ratios.items())
            raise SampleError(
                "expected one ratio of frame size to spike size in all sequences, got "
                f"{several}; train on one of them at a time"
            )
        self.deep = any(sequence.frame_dtype != "uint8" for sequence in self.sequences)
        """Whether any frames have 16 bits; all are then float32 in [0, 1] in samples."""
        self.ratio = next(iter(ratios), 1)
        """Frame pixels that a voxel spans on a side."""
        if self.crop_size is not None and self.crop_size % self.ratio:
            raise SampleError(
                f"DATA.CROP_SIZE: expected a multiple of {self.ratio}, the ratio of frame size to "
                f"spike size, got {self.crop_size}; set it"
            )

    def sample(self, epoch: int, clip: int) -> dict[str, Any]:
        """Return one sample, the same whenever and wherever it is asked for.

        Arrays may be views in another order than memory's: stacking a batch copies them once.

        Returns:
            `blur`, `sharp` (T, 3, S, S) uint8, or float32 if `deep`; `voxels` (T, K, s, s) as
            stored; `samples` (T,) int64; `gain` float (NaN: unknown); its origin `seq`,
            `frame_index`, `t0`, `t1` (lists of T; seconds); `changes`, seed of what SPIKE_AUGMENT
            does to it; and `unread`, (seq, why) of each clip that it replaces. With `beside`,
            in place of `voxels`: `spikes`, `spans` of `join`; `bins`, K; `columns`, (start, stop)
            of the crop in their bits; and `turned`, quarter turns and whether it is then
            mirrored, which are still to be done to the voxels.

        Raises:
            SpikeDeblurError: the clip can't be read and is not replaced, or none of the next
                ones can be read.
        """
        unread: dict[int, str] = {}
        for other in self._in_its_place(clip, unread):
            try:
                named = [(self.names[number], why) for number, why in unread.items()]
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
        sample["changes"] = seed_of(self.seed, CHANGES, epoch, clip)
        if self.augment:
            for name in ("blur", "sharp", "voxels"):
                if name in sample:
                    turned = np.rot90(sample[name], turns, axes=(-2, -1))
                    sample[name] = turned[..., ::-1] if flip else turned
            if "spikes" in sample:
                sample["turned"] = (turns, flip)
        return sample

    def samples(self, epochs: Sequence[int], clips: Sequence[int]) -> list[dict[str, Any]]:
        """Return several samples, in order; those in a bucket are read side by side."""
        cuts = [partial(self.sample, *each) for each in zip(epochs, clips, strict=True)]
        return together(cuts, side_by_side=self.is_remote)

    def cut(self, clip: int, rows: Span, columns: Span) -> dict[str, Any]:
        """Return a sample of a clip's pixels in a box of the frames.

        The box is given in pixels of the frames; its sides are multiples of the ratio.
        """
        number, start, length = self.index[clip]
        stop = start + length
        sequence = self.sequences[number]
        blur, sharp, voxels = self._read(number, (start, stop), rows, columns)
        if self.beside is None:
            spikes: dict[str, Any] = {"voxels": voxels[0]}  # (T, K, s, s)
        else:
            known = [sequence.known_samples(i, self.beside) for i in range(start, stop)]
            parts, spans = join(known, voxels)
            first, last = (column // self.ratio for column in columns)
            spikes = {
                "spikes": parts,  # each (n, s, b)
                "spans": spans,  # (T, 3)
                "bins": sequence.bins,
                "columns": (first % 8, first % 8 + last - first),
                "turned": (0, False),
            }
        if self.deep:
            blur, sharp = to_unit(blur), to_unit(sharp)
        return {
            "blur": blur.transpose(0, 3, 1, 2),  # (T, 3, S, S)
            "sharp": sharp.transpose(0, 3, 1, 2),  # (T, 3, S, S)
            **spikes,
            "samples": np.asarray(sequence.samples[start:stop], np.int64),
            "gain": float("nan") if sequence.gain is None else float(sequence.gain),
            "seq": self.names[number],
            "frame_index": [int(i) for i in sequence.frame_index[start:stop]],
            "t0": [float(t) for t in sequence.t0[start:stop]],
            "t1": [float(t) for t in sequence.t1[start:stop]],
        }

    def _read(
        self, number: int, windows: Span, rows: Span, columns: Span
    ) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Read a box of some windows of a sequence, from memory where they are held there.

        A window that is not held is read whole, and held from then on, if there is room for it or
        if the box is at least half of it; otherwise only the box is read.

        Returns:
            blur (T, S, S, 3), sharp (T, S, S, 3), and a list of the voxels (T, K, s, s); with
            `beside`, a list of the packed spikes (n, s, b) of each window.
        """
        sequence, cache, ratio = self.sequences[number], self.cache, self.ratio
        box = (rows, columns)
        (y0, y1), (x0, x1) = ((start // ratio, stop // ratio) for start, stop in box)
        small_box = ((y0, y1), (x0, x1))

        def read(start: int, stop: int, whole: bool) -> Arrays:
            return self.read(number, start, stop, *(() if whole else (box, small_box)))

        if cache is None:
            blur, sharp, *voxels = read(*windows, whole=False)
            return blur, sharp, voxels
        size = window_bytes(sequence, self.beside)
        height, width = sequence.frame_shape
        mostly = 2 * (rows[1] - rows[0]) * (columns[1] - columns[0]) >= height * width
        parts: list[_Part] = []
        coming = 0  # bytes that will be held
        for window in range(*windows):
            held = cache.get((number, window))
            whole = held is None and (mostly or cache.has_room(coming + size))
            if whole:
                coming += size
            elif held is None and parts and parts[-1].is_box:
                parts[-1].stop = window + 1  # what lies between held windows comes in one read
                continue
            parts.append(_Part(window, window + 1, is_box=not whole and held is None, arrays=held))
        unread = [part for part in parts if part.arrays is None]
        reads = [partial(read, part.start, part.stop, whole=not part.is_box) for part in unread]
        together_read = together(reads, side_by_side=sequence.is_remote)
        for part, arrays in zip(unread, together_read, strict=True):
            part.arrays = arrays
            if not part.is_box:
                cache.put((number, part.start), arrays)
        y, x = (slice(*span) for span in box)
        small_y = slice(y0, y1)
        small_x = slice(x0, x1) if self.beside is None else slice(x0 // 8, -(-x1 // 8))
        blurs, sharps, all_voxels = [], [], []
        for part in parts:
            assert part.arrays is not None
            blur, sharp, *voxels = part.arrays
            if not part.is_box:
                blur, sharp = blur[:, y, x], sharp[:, y, x]
                voxels = [each[..., small_y, small_x] for each in voxels]
            blurs.append(blur)
            sharps.append(sharp)
            all_voxels += voxels
        if self.beside is None:
            all_voxels = [np.concatenate(all_voxels)]
        return np.concatenate(blurs), np.concatenate(sharps), all_voxels

    def read(
        self,
        number: int,
        start: int,
        stop: int,
        box: BoxOrAll = (None, None),
        small_box: BoxOrAll = (None, None),
    ) -> Arrays:
        """Read windows [start, stop) of a sequence, as they are held in memory.

        Returns:
            blur (T, S, S, 3), sharp (T, S, S, 3), voxels (T, K, s, s); with `beside`, in their
            place packed spikes (n, s, b) of each window.
        """
        sequence, beside = self.sequences[number], self.beside
        if beside is None:
            return sequence.clip(start, stop, box, small_box)
        blur, sharp, spikes = sequence.packed_clip(start, stop, beside, box, small_box)
        return blur, sharp, *spikes


@dataclass(slots=True)
class _Part:
    """Consecutive windows of a clip that are held, or come by one read."""

    start: int
    stop: int
    is_box: bool
    """Only the box of them is read; else they are held, whole, or will be."""
    arrays: Arrays | None


def window_bytes(sequence: WindowSequence, beside: float | None = None) -> int:
    """Return the most bytes of one whole window in memory: blur, sharp, voxels or spikes.

    Args:
        sequence: the window's.
        beside: as `ClipSamples.beside`.
    """
    height, width = sequence.frame_shape
    small_height, small_width = sequence.voxel_shape
    frames = 6 * np.dtype(sequence.frame_dtype).itemsize * height * width
    if beside is not None:
        return frames + known_at_most(sequence, beside) * small_height * -(-small_width // 8)
    voxel = np.dtype(sequence.voxel_dtype).itemsize
    return frames + voxel * sequence.bins * small_height * small_width


def known_at_most(sequence: WindowSequence, beside: float) -> int:
    """Return the most samples that are known of a window, with those beside it."""
    longest = sequence.longest_window
    return longest + 2 * int(beside * longest)


def _checked_ratio(sequence: WindowSequence, crop_size: int | None, name: str) -> int:
    """Return how many frame pixels a voxel spans on a side, if the sequence can be trained on."""
    height, width = sequence.frame_shape
    if not sequence.has_sharp:
        raise SampleError(
            f"{name}: has no sharp frames, which training and validation compare "
            "with; choose another split or data set"
        )
    if crop_size is not None and min(height, width) < crop_size:
        raise SampleError(
            f"{name}: frames of {height}x{width} are smaller than DATA.CROP_SIZE "
            f"{crop_size}; set a smaller one"
        )
    return height // sequence.voxel_shape[0]
