"""Which clips an epoch holds, in which order, and what one training sample is. Plain NumPy.

Everything random is a function of the seed, the epoch and the clip alone. So the number of
loading processes, the batch they work on and where a run was stopped change no sample.

Letters in shapes: M clips, T windows of a clip, K bins, H and W a frame's pixels, h and w a
voxel grid's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ...errors import SpikeDeblurError
from ..store.sequence import Span, WindowSequence
from .cache import WindowCache

_ORDER, _CROP = 0, 1  # separate random streams of one seed


class SampleError(SpikeDeblurError):
    """The data can't be trained on as configured; the message names the sequence."""


@dataclass(frozen=True, slots=True)
class ClipIndex:
    """All clips of a split: three arrays, however many clips there are.

    A clip is `clip_len` consecutive windows of one sequence, and every start gives one. A
    sequence with fewer windows is one clip, whole.
    """

    sequence: np.ndarray
    """(M,) int32: index of the sequence."""
    start: np.ndarray
    """(M,) int32: first window."""
    length: np.ndarray
    """(M,) int32: T, windows of the clip."""

    @classmethod
    def every_start(cls, lengths: Sequence[int], clip_len: int) -> ClipIndex:
        """Return the clips of sequences with so many windows, for training."""
        counts = np.maximum(np.asarray(lengths, np.int64) - clip_len + 1, 1)
        sequence = np.repeat(np.arange(len(counts)), counts)
        first = np.repeat(np.cumsum(counts) - counts, counts)
        start = np.arange(counts.sum()) - first
        length = np.minimum(np.asarray(lengths, np.int64), clip_len)[sequence]
        return cls(sequence.astype(np.int32), start.astype(np.int32), length.astype(np.int32))

    @classmethod
    def each_window_once(
        cls, lengths: Sequence[int], clip_len: int, most: int | None = None
    ) -> ClipIndex:
        """Return clips that hold each window once, for validation.

        Args:
            lengths: windows of each sequence.
            clip_len: windows of a clip; the last one of a sequence may be shorter.
            most: keep clips of at most so many windows in all, evenly spread.
        """
        starts = [np.arange(0, length, clip_len) for length in lengths]
        sequence = np.repeat(np.arange(len(starts)), [s.size for s in starts])
        start = np.concatenate(starts) if starts else np.zeros(0, np.int64)
        length = np.minimum(np.asarray(lengths)[sequence] - start, clip_len)
        if most is not None and length.sum() > most:
            kept = max(1, most // clip_len)
            length = np.minimum(length, most)
            chosen = (2 * np.arange(kept) + 1) * start.size // (2 * kept)
            sequence, start, length = sequence[chosen], start[chosen], length[chosen]
        return cls(sequence.astype(np.int32), start.astype(np.int32), length.astype(np.int32))

    def __len__(self) -> int:
        return self.start.size


class MicroBatch(NamedTuple):
    """What one process loads and backpropagates at once."""

    epoch: int
    clips: np.ndarray
    """(b,) int64, indices into the clip index."""
    weight: float
    """Of the batch's mean loss, so that the step's gradient is the mean over its samples."""


@dataclass(frozen=True, slots=True)
class StepPlan:
    """The order of an epoch, and how each step's clips are dealt to processes.

    A step takes `batch_size * accumulation * world` clips of one length T from a shuffled
    order. The last step of each length takes what is left, so nothing is carried into the next
    epoch. Which clips a step holds depends on their number only: one process with accumulation
    6, or two with a batch of 3, see the same.
    """

    index: ClipIndex
    batch_size: int
    """Clips of one process's batch."""
    accumulation: int = 1
    """Batches of a step."""
    seed: int = 0
    rank: int = 0
    world: int = 1

    @property
    def samples_a_step(self) -> int:
        """Clips of a full step, all processes together."""
        return self.batch_size * self.accumulation * self.world

    @property
    def steps_an_epoch(self) -> int:
        """Steps in which every clip is seen once."""
        _, counts = np.unique(self.index.length, return_counts=True)
        return int(sum(-(-count // self.samples_a_step) for count in counts))

    def steps(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return an epoch's order (M,) int64 and the steps' (start, stop) in it, (S, 2)."""
        random = np.random.default_rng([self.seed, _ORDER, epoch])
        orders, bounds, before = [], [], 0
        for length in np.unique(self.index.length):
            clips = random.permutation(np.flatnonzero(self.index.length == length))
            starts = np.arange(0, clips.size, self.samples_a_step)
            stops = np.minimum(starts + self.samples_a_step, clips.size)
            bounds.append(np.stack([starts, stops], axis=1) + before)  # (steps, 2)
            orders.append(clips)
            before += clips.size
        return np.concatenate(orders), random.permutation(np.concatenate(bounds))

    def batches(self, from_step: int, to_step: int) -> Iterator[list[MicroBatch]]:
        """Yield each step's batches for this process, epochs following one another."""
        epoch, skip = divmod(from_step, self.steps_an_epoch)
        left = to_step - from_step
        while left > 0:
            order, bounds = self.steps(epoch)
            for start, stop in bounds[skip : skip + left]:
                yield self._deal(epoch, order[start:stop])
                left -= 1
            epoch, skip = epoch + 1, 0

    def _deal(self, epoch: int, clips: np.ndarray) -> list[MicroBatch]:
        batches = []
        for start in range(0, clips.size, self.batch_size * self.world):
            together = clips[start : start + self.batch_size * self.world]
            own = np.array_split(together, self.world)[self.rank]
            weight = own.size * self.world / clips.size
            # Every process must take part in the gradient exchange, if only with weight 0.
            own = own if own.size else together[:1]
            batches.append(MicroBatch(epoch, own, weight))
        return batches


class ClipSamples:
    """Cuts training samples from sequences; picklable, and without state but its cache.

    Args:
        sequences: all of one split, with sharp frames.
        index: their clips.
        crop_size: side of the square crop in pixels of the frames; None: only `cut` is used.
        augment: random flips and quarter turns.
        seed: of crops and augmentation.
        cache: windows kept in memory; None: none.

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
    ) -> None:
        self.sequences = list(sequences)
        self.index = index
        self.crop_size = crop_size
        self.augment = augment
        self.seed = seed
        self.cache = cache
        self.ratio = _one_ratio(self.sequences)
        _require_sharp(self.sequences)
        if crop_size is not None:
            _require_crop(self.sequences, crop_size, self.ratio)

    def sample(self, epoch: int, clip: int) -> dict[str, Any]:
        """Return one sample, the same whenever and wherever it is asked for.

        Returns:
            `blur`, `sharp` (T, 3, S, S) uint8; `voxels` (T, K, s, s) as stored; `samples` (T,)
            int64; `gain` float (NaN: unknown); and where it is from: `seq`, `frame_index`,
            `t0`, `t1` (lists of T; seconds).
        """
        assert self.crop_size is not None
        random = np.random.default_rng([self.seed, _CROP, epoch, clip])
        sequence = self.sequences[self.index.sequence[clip]]
        height, width = sequence.frame_shape
        size, ratio = self.crop_size, self.ratio
        top = ratio * int(random.integers((height - size) // ratio + 1))
        left = ratio * int(random.integers((width - size) // ratio + 1))
        turns, flip = int(random.integers(4)), bool(random.integers(2))
        sample = self.cut(clip, (top, top + size), (left, left + size))
        if self.augment:
            for name in ("blur", "sharp", "voxels"):
                turned = np.rot90(sample[name], turns, axes=(-2, -1))
                sample[name] = np.ascontiguousarray(turned[..., ::-1] if flip else turned)
        return sample

    def cut(self, clip: int, rows: Span, columns: Span) -> dict[str, Any]:
        """Return a clip's pixels in a box of the frames, with its metadata, as `sample` does.

        The box is given in pixels of the frames; its sides are multiples of the ratio.
        """
        number = int(self.index.sequence[clip])
        start = int(self.index.start[clip])
        stop = start + int(self.index.length[clip])
        sequence = self.sequences[number]
        blur, sharp, voxels = read_windows(
            sequence, number, (start, stop), rows, columns, self.ratio, self.cache
        )
        return {
            "blur": np.ascontiguousarray(blur.transpose(0, 3, 1, 2)),  # (T, 3, S, S)
            "sharp": np.ascontiguousarray(sharp.transpose(0, 3, 1, 2)),  # (T, 3, S, S)
            "voxels": np.ascontiguousarray(voxels),  # (T, K, s, s)
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

    def read(start: int, stop: int, whole: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if whole:
            return (
                sequence.blur(start, stop),
                sequence.sharp(start, stop),
                sequence.voxels(start, stop),
            )
        return (
            sequence.blur(start, stop, rows, columns),
            sequence.sharp(start, stop, rows, columns),
            sequence.voxels(start, stop, small_rows, small_columns),
        )

    if cache is None:
        return read(*windows, whole=False)
    height, width = sequence.frame_shape
    box = (rows[1] - rows[0]) * (columns[1] - columns[0])
    mostly = 2 * box >= height * width
    parts = []
    for window in range(*windows):
        held = cache.get((number, window))
        if held is None and (mostly or cache.has_room(window_bytes(sequence))):
            held = read(window, window + 1, whole=True)
            cache.put((number, window), held)
        if held is None:
            parts.append(read(window, window + 1, whole=False))
            continue
        y, x = slice(*rows), slice(*columns)
        small_y, small_x = slice(*small_rows), slice(*small_columns)
        parts.append((held[0][:, y, x], held[1][:, y, x], held[2][:, :, small_y, small_x]))
    blur, sharp, voxels = zip(*parts, strict=True)
    return np.concatenate(blur), np.concatenate(sharp), np.concatenate(voxels)


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
