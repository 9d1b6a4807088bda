"""Training samples: crops of clips, in plain NumPy.

Everything random is a function of the seed, the epoch and the clip alone. So the number of
loading processes, the batch they work on and where a run was stopped change no sample.

Letters in shapes: T windows of a clip, K bins, H and W a frame's pixels, h and w a voxel grid's.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ....errors import SpikeDeblurError
from ...frames.images import to_unit
from ...sequences.contract import BoxOrAll, Span, WindowSequence
from ...storage.side_by_side import together
from .cache import Arrays, LRUCache
from .order import CHANGES, CROP, INSTANT, ClipIndex, seed_of
from .packed import join

MOST_REPLACED = 20
"""Most consecutive sequences that can't be read before training stops."""

_MIDDLE = 1e-6  # exposures from the middle, up to which an instant is the middle


class SampleError(SpikeDeblurError):
    """The data can't be trained on as configured; the message names the sequence."""


@dataclass
class ClipSamples:
    """Cuts training samples from sequences; picklable, and without state but its cache.

    Raises:
        SampleError: no sharp frames, or none at several instants and these are to be drawn, frames
            smaller than the crop, or sequences of several ratios of frame size to voxel size.
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
    instants: bool = False
    """Whether each sample draws one of the instants that its sequence has sharp frames of, the
    middle among them."""
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
            named = ", ".join(f"{ratio} ({seq})" for ratio, seq in ratios.items())
            raise SampleError(
                "expected one ratio of frame size to spike size in all sequences, got "
                f"{named}; train on one of them at a time"
            )
        self._sharp: list[tuple[_Sharp, ...]] = []
        if self.instants:
            calls = [partial(getattr, sequence, "instants") for sequence in self.sequences]
            several = together(calls, side_by_side=self.is_remote)
            self._sharp = [_choices(*each) for each in zip(several, self.names, strict=True)]
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
            does to it; and `unread`, (seq, why) of each clip that it replaces. With `instants`:
            `instant`, when `sharp` was, in exposures from the middle. With `beside`, in place of
            `voxels`: `spikes`, `spans` of `join`; `bins`, K; `columns`, (start, stop) of the crop
            in their bits; and `turned`, quarter turns and whether it is then mirrored, which are
            still to be done to the voxels.

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
        sharp = self._draw(epoch, clip) if self.instants else None
        sample = self.cut(clip, (top, top + size), (left, left + size), sharp)
        sample["changes"] = seed_of(self.seed, CHANGES, epoch, clip)
        if self.augment:
            for name in ("blur", "sharp", "voxels"):
                if name in sample:
                    turned = np.rot90(sample[name], turns, axes=(-2, -1))
                    sample[name] = turned[..., ::-1] if flip else turned
            if "spikes" in sample:
                sample["turned"] = (turns, flip)
        return sample

    def _draw(self, epoch: int, clip: int) -> int:
        """Return the number of the instant that a sample has the sharp frames of."""
        random = np.random.default_rng([self.seed, INSTANT, epoch, clip])
        return int(random.integers(len(self._sharp[self.index[clip].sequence])))

    def samples(self, epochs: Sequence[int], clips: Sequence[int]) -> list[dict[str, Any]]:
        """Return several samples, in order; those in a bucket are read side by side."""
        cuts = [partial(self.sample, *each) for each in zip(epochs, clips, strict=True)]
        return together(cuts, side_by_side=self.is_remote)

    def cut(
        self, clip: int, rows: Span, columns: Span, instant: int | None = None
    ) -> dict[str, Any]:
        """Return a sample of a clip's pixels in a box of the frames.

        The box is given in pixels of the frames; its sides are multiples of the ratio. With
        `instants`, sharp frames are those of the instant of a number.
        """
        number, start, length = self.index[clip]
        stop = start + length
        sequence = self.sequences[number]
        blur, sharp, voxels = self._read(number, (start, stop), rows, columns, instant)
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
        drawn = {} if instant is None else {"instant": self._sharp[number][instant].time}
        return {
            "blur": blur.transpose(0, 3, 1, 2),  # (T, 3, S, S)
            "sharp": sharp.transpose(0, 3, 1, 2),  # (T, 3, S, S)
            **spikes,
            **drawn,
            "samples": np.asarray(sequence.samples[start:stop], np.int64),
            "gain": float("nan") if sequence.gain is None else float(sequence.gain),
            "seq": self.names[number],
            "frame_index": [int(i) for i in sequence.frame_index[start:stop]],
            "t0": [float(t) for t in sequence.t0[start:stop]],
            "t1": [float(t) for t in sequence.t1[start:stop]],
        }

    def _read(
        self, number: int, windows: Span, rows: Span, columns: Span, instant: int | None
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
            if whole:
                return self.read(number, start, stop)
            return self.read(number, start, stop, box, small_box, instant)

        if cache is None:
            blur, sharp, *voxels = read(*windows, whole=False)
            return blur, sharp, voxels
        size = self.window_bytes(number)
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
                sharp = sharp if instant is None else sharp[:, instant]
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
        instant: int | None = None,
    ) -> Arrays:
        """Read windows [start, stop) of a sequence, as they are held in memory.

        Returns:
            blur (T, S, S, 3), sharp (T, S, S, 3), voxels (T, K, s, s); with `beside`, in their
            place packed spikes (n, s, b) of each window. With `instants`, sharp is that of the
            instant of a number; where none is given, of all of them, (T, M, S, S, 3).
        """
        sequence, beside = self.sequences[number], self.beside
        if self.instants:
            wanted = self._sharp[number]
            several = wanted if instant is None else wanted[instant : instant + 1]
            clip, small = (start, stop), small_box
            calls: list[Callable[[], Any]] = [
                partial(sequence.voxels, *clip, *small)
                if beside is None
                else partial(sequence.packed, *clip, beside, *small),
                partial(sequence.blur, *clip, *box),
                *(one.reader(sequence, *clip, *box) for one in several),
            ]
            spikes, blur, *frames = together(calls, side_by_side=sequence.is_remote)
            sharp = np.stack(frames, 1) if instant is None else frames[0]
            return blur, sharp, *([spikes] if beside is None else spikes)
        if beside is None:
            return sequence.clip(start, stop, box, small_box)
        blur, sharp, spikes = sequence.packed_clip(start, stop, beside, box, small_box)
        return blur, sharp, *spikes

    def window_bytes(self, number: int) -> int:
        """Return the most bytes of one whole window of a sequence in memory."""
        further = len(self._sharp[number]) - 1 if self.instants else 0
        return window_bytes(self.sequences[number], self.beside, further)


class _Sharp(NamedTuple):
    """An instant of which a sequence has sharp frames."""

    time: float
    """In exposures from the middle."""
    number: int | None
    """Its number among the sequence's `instants`; None: the middle, which is none of them."""

    def reader(self, sequence: WindowSequence, *clip: Any) -> Callable[[], np.ndarray]:
        """Return what reads its frames of windows [start, stop), in rows and columns."""
        if self.number is None:
            return partial(sequence.sharp, *clip)
        return partial(sequence.sharp_at, self.number, *clip)


def _choices(times: Sequence[float], name: str) -> tuple[_Sharp, ...]:
    """Return the instants to draw from of a sequence, the middle among them."""
    if not times:
        raise SampleError(
            f"{name}: DATA.INSTANTS: expected sharp frames at several instants of each exposure, "
            "found only those of the middle; make them with `simulate --instants 7`, or name those "
            "of the data set with `align --instants 7`, and voxelize again; or set it to false"
        )
    # 0, also where the middle's place in the exposure was rounded.
    choices = [_Sharp(0.0 if abs(t) < _MIDDLE else t, i) for i, t in enumerate(times)]
    return (*choices, *([] if any(c.time == 0 for c in choices) else [_Sharp(0.0, None)]))


@dataclass(slots=True)
class _Part:
    """Consecutive windows of a clip that are held, or come by one read."""

    start: int
    stop: int
    is_box: bool
    """Only the box of them is read; else they are held, whole, or will be."""
    arrays: Arrays | None


def window_bytes(sequence: WindowSequence, beside: float | None = None, further: int = 0) -> int:
    """Return the most bytes of one whole window in memory: blur, sharp, voxels or spikes.

    Args:
        sequence: the window's.
        beside: as `ClipSamples.beside`.
        further: number of sharp frames beside the first.
    """
    height, width = sequence.frame_shape
    small_height, small_width = sequence.voxel_shape
    frames = (6 + 3 * further) * np.dtype(sequence.frame_dtype).itemsize * height * width
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
