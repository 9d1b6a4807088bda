"""Clips of a split, and those of each step: computed when they are asked for.

Nothing here grows with the number of clips: clips are numbered, and shuffled by number. So an
epoch of ten million clips costs what an epoch of ten costs, to set up and to send to workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

import numpy as np

from .shuffle import shuffled

CROP, IN_NETWORK, THINNING, CHANGES, INSTANT = 1, 2, 4, 5, 9
"""Random streams of a seed: crops, dropout, the windows of SPIKE_AUGMENT.THIN, other cameras, the
instants of DATA.INSTANTS."""
_CLIP_ORDER, _STEP_ORDER = 0, 3
_STORE_ORDER, _ORDER_IN_STORE = 6, 7

_BLOCK = 100
"""Samples of a mixture in which stores come by their shares, at least; the square of the number of
stores if that is more."""

_STEPS_AT_ONCE = 128  # shuffling a few thousand places costs hardly more than one


def seed_of(*key: int) -> int:
    """Return a seed for torch that follows from some numbers."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


class IndexedClip(NamedTuple):
    """Consecutive windows of one sequence."""

    sequence: int
    """Index of the sequence."""
    start: int
    """First window."""
    length: int
    """T, number of windows."""


@dataclass(frozen=True)
class ClipIndex:
    """All clips of a split, numbered: those of most windows first, then by sequence and start.

    Held as runs: clips of one length and one sequence, at even distances.
    """

    sequence: np.ndarray
    """(R,) int64: index of the run's sequence."""
    start: np.ndarray
    """(R,) int64: first window of the run's first clip."""
    stride: int
    """Windows between the starts of a run's clips."""
    length: np.ndarray
    """(R,) int64: T of the run's clips; falling."""
    count: np.ndarray
    """(R,) int64: clips of the run."""

    @classmethod
    def joined(cls, stores: Sequence[tuple[ClipIndex, int]]) -> ClipIndex:
        """Return the clips of several stores, those of each in their order, store after store.

        Args:
            stores: clips of each store, and the number of its sequences.
        """
        if len(stores) == 1:
            return stores[0][0]
        before = np.cumsum([0, *(sequences for _, sequences in stores)])
        indices = [
            replace(index, sequence=index.sequence + first)
            for (index, _), first in zip(stores, before[:-1], strict=True)
        ]
        names = ("sequence", "start", "length", "count")
        columns = {name: np.concatenate([getattr(i, name) for i in indices]) for name in names}
        return cls(stride=indices[0].stride, **columns)

    @classmethod
    def every_start(cls, lengths: Sequence[int], clip_len: int) -> ClipIndex:
        """Return the clips to train on.

        Every start gives a clip of `clip_len` windows; a sequence with fewer is one clip, whole.

        Args:
            lengths: windows of each sequence.
            clip_len: windows of a clip.
        """
        windows = np.asarray(lengths, np.int64)
        count = np.maximum(windows - clip_len + 1, 1)
        sequence, start = np.arange(windows.size), np.zeros_like(windows)
        return cls._of_runs(1, sequence, start, np.minimum(windows, clip_len), count)

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
        windows = np.asarray(lengths, np.int64)
        whole, rest = np.divmod(windows, clip_len)
        sequence = np.tile(np.arange(windows.size), 2)
        start = np.concatenate([np.zeros_like(windows), whole * clip_len])
        length = np.concatenate([np.full_like(windows, clip_len), rest])
        count = np.concatenate([whole, (rest > 0).astype(np.int64)])
        if most is not None and windows.sum() > most:
            clips = whole + (rest > 0)  # of each sequence
            kept = max(1, most // clip_len)
            number = (2 * np.arange(kept) + 1) * int(clips.sum()) // (2 * kept)
            after = np.cumsum(clips)
            sequence = np.searchsorted(after, number, side="right")
            start = (number - (after - clips)[sequence]) * clip_len
            length = np.minimum(windows[sequence] - start, min(clip_len, most))
            count = np.ones(kept, np.int64)
        return cls._of_runs(clip_len, sequence, start, length, count)

    @classmethod
    def _of_runs(cls, stride: int, *of_runs: np.ndarray) -> ClipIndex:
        sequence, start, length, count = of_runs
        order = np.flatnonzero(count)
        order = order[np.lexsort((start[order], sequence[order], -length[order]))]
        return cls(sequence[order], start[order], stride, length[order], count[order])

    def __len__(self) -> int:
        return int(self.count.sum())

    def __getitem__(self, clip: int) -> IndexedClip:
        if not 0 <= clip < len(self):
            raise IndexError(f"clip {clip} of {len(self)}")
        run = int(np.searchsorted(self._after, clip, side="right"))
        place = clip - int(self._after[run] - self.count[run])
        start = int(self.start[run]) + place * self.stride
        return IndexedClip(int(self.sequence[run]), start, int(self.length[run]))

    @cached_property
    def _after(self) -> np.ndarray:
        """(R,) int64: one past the number of each run's last clip."""
        return np.cumsum(self.count)

    @cached_property
    def bounds(self) -> np.ndarray:
        """(L, 2) int64: for each length that clips have, its first clip and one past its last."""
        falls = np.flatnonzero(np.diff(self.length, append=0))
        after = self._after[falls]
        return np.stack([np.concatenate([[0], after[:-1]]), after], axis=1)


class MicroBatch(NamedTuple):
    """Clips that one process loads and backpropagates at once."""

    epochs: np.ndarray
    """(b,) int64, how often each clip came before."""
    clips: np.ndarray
    """(b,) int64, numbers of clips of one length."""
    weight: float
    """Weight of the batch's mean loss: the step's gradient is then the mean over its samples."""
    place: int
    """Place of its first clip among those of the step; what is random in the network follows."""
    ends_step: bool
    """Whether the weights are updated after it."""


@dataclass(frozen=True)
class StepPlan:
    """Clips of each step, and how they are dealt to processes.

    A step takes `samples_a_step` clips of one length T from a shuffled order. The last step of
    each length takes what is left, so nothing is carried into the next epoch. Which clips a step
    holds depends on their number only: any number of processes see the same.
    """

    index: ClipIndex
    batch_size: int
    """Clips of one process's batch."""
    accumulation: int = 1
    """Batches of a process in a step, if it follows from them how many clips a step has."""
    seed: int = 0
    rank: int = 0
    world: int = 1
    samples_a_step: int = 0
    """Clips of a full step, all processes together, as the run began with; 0: it begins with
    `batch_size * accumulation * world`."""

    def __post_init__(self) -> None:
        whole = self.samples_a_step or self.batch_size * self.accumulation * self.world
        object.__setattr__(self, "samples_a_step", whole)

    @cached_property
    def batches_a_step(self) -> int:
        """Batches of a full step, of each process."""
        return -(-self.samples_a_step // (self.batch_size * self.world))

    @cached_property
    def steps_an_epoch(self) -> int:
        """Steps in which every clip is seen once."""
        return int(self._steps_of_each_length.sum())

    @cached_property
    def _steps_of_each_length(self) -> np.ndarray:
        counts = np.diff(self.index.bounds, axis=1)[:, 0]
        return -(-counts // self.samples_a_step)

    def batches(self, from_step: int, to_step: int) -> Iterator[MicroBatch]:
        """Yield this process's batches of some steps, epochs following one another."""
        step = from_step
        while step < to_step:
            epoch, place = divmod(step, self.steps_an_epoch)
            stop = min(place + _STEPS_AT_ONCE, self.steps_an_epoch, place + to_step - step)
            for clips in self.clips(epoch, place, stop):
                yield from self._deal(np.full_like(clips, epoch), clips, [clips.size])
            step += stop - place

    def clips(self, epoch: int, start: int, stop: int) -> list[np.ndarray]:
        """Return the clips (n,) int64 of each of an epoch's steps [start, stop)."""
        steps = self.steps_an_epoch
        key = (self.seed, _STEP_ORDER, epoch)
        numbers = shuffled(np.arange(start, stop), steps, key)
        after = np.cumsum(self._steps_of_each_length)
        lengths = np.searchsorted(after, numbers, side="right")
        taken: list[np.ndarray] = [np.empty(0)] * numbers.size
        for length in np.unique(lengths):
            first_clip, last_clip = self.index.bounds[length]
            count = int(last_clip - first_clip)
            at = np.flatnonzero(lengths == length)
            first_step = after[length] - self._steps_of_each_length[length]
            begin = (numbers[at] - first_step) * self.samples_a_step
            places = [np.arange(b, min(b + self.samples_a_step, count)) for b in begin]
            key_of_length = (self.seed, _CLIP_ORDER, epoch, int(length))
            clips = first_clip + shuffled(np.concatenate(places), count, key_of_length)
            ends = np.cumsum([p.size for p in places])
            for step, clips_of_step in zip(at, np.split(clips, ends[:-1]), strict=True):
                taken[step] = clips_of_step
        return taken

    def _deal(
        self, epochs: np.ndarray, clips: np.ndarray, ends: Sequence[int]
    ) -> Iterator[MicroBatch]:
        """Yield this process's batches of a step, whose clips change their length at `ends`."""
        stride, start = self.batch_size * self.world, 0
        while start < clips.size:
            stop = min(start + stride, next(end for end in ends if end > start))
            together = np.arange(start, stop)
            dealt = np.array_split(together, self.world)[self.rank]
            weight = dealt.size * self.world / clips.size
            # Every process must take part in the gradient exchange, if only with weight 0.
            dealt = dealt if dealt.size else together[:1]
            ends_step = stop == clips.size
            yield MicroBatch(epochs[dealt], clips[dealt], weight, int(dealt[0]), ends_step)
            start = stop


@dataclass(frozen=True)
class MixturePlan(StepPlan):
    """Clips of each step, from several stores by their shares.

    Samples are numbered over the whole run, and a step takes the next `samples_a_step` of them.
    Which store a sample comes from is shuffled within blocks, in each of which the stores have
    their shares; what a share does not fill is carried into the next block. Each store has a
    shuffled order of its own, in which each of its clips comes once before any comes twice.
    """

    counts: tuple[int, ...] = ()
    """Clips of each store; the index has them one after another."""
    shares: tuple[Fraction, ...] = ()
    """Share of the samples that come from each store; together 1."""

    @cached_property
    def batches_a_step(self) -> int:
        """Most batches of a step, of each process: clips of one length each."""
        lengths = np.unique(self.index.length).size
        return -(-self.samples_a_step // (self.batch_size * self.world)) + lengths - 1

    @cached_property
    def steps_an_epoch(self) -> int:
        """Steps that take as many clips as all stores hold."""
        return -(-len(self.index) // self.samples_a_step)

    def batches(self, from_step: int, to_step: int) -> Iterator[MicroBatch]:
        """Yield this process's batches of some steps; those of a step are sorted by length."""
        size = self.samples_a_step
        for step in range(from_step, to_step, _STEPS_AT_ONCE):
            stop = min(step + _STEPS_AT_ONCE, to_step)
            epochs, clips = self.samples(step * size, stop * size)
            for start in range(0, clips.size, size):
                at = slice(start, start + size)
                yield from self._deal_by_length(epochs[at], clips[at])

    def samples(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return how often each of the run's samples [start, stop) came before, and its clip."""
        block = max(_BLOCK, len(self.counts) ** 2)
        first = start // block
        parts = [self._block(number, block) for number in range(first, -(-stop // block))]
        stores, numbers = (
            np.concatenate(of_parts)[start - first * block : stop - first * block]
            for of_parts in zip(*parts, strict=True)
        )
        epochs, clips = np.empty_like(numbers), np.empty_like(numbers)
        before = np.cumsum([0, *self.counts])
        for store in np.unique(stores).tolist():
            count = self.counts[store]
            at = np.flatnonzero(stores == store)
            epochs[at], places = np.divmod(numbers[at], count)
            for epoch in np.unique(epochs[at]).tolist():
                here = epochs[at] == epoch
                key = (self.seed, _ORDER_IN_STORE, store, epoch)
                clips[at[here]] = before[store] + shuffled(places[here], count, key)
        return epochs, clips

    def _block(self, number: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the store of each sample of a block, and its number among all of that store."""
        before, after = (self._samples_before(n * size) for n in (number, number + 1))
        places = shuffled(np.arange(size), size, (self.seed, _STORE_ORDER, number))
        stores = np.searchsorted(np.cumsum(after - before), places, side="right")
        numbers = np.empty(size, np.int64)
        for store, first in enumerate(before.tolist()):
            at = np.flatnonzero(stores == store)
            numbers[at] = first + np.arange(at.size)
        return stores, numbers

    def _samples_before(self, sample: int) -> np.ndarray:
        """Return how many samples of each store come before the start of a block."""
        counts = np.array([sample * s.numerator // s.denominator for s in self.shares], np.int64)
        # The largest share takes what rounding leaves, and is large enough never to give back.
        counts[self.shares.index(max(self.shares))] += sample - counts.sum()
        return counts

    def _deal_by_length(self, epochs: np.ndarray, clips: np.ndarray) -> Iterator[MicroBatch]:
        lengths = np.array([self.index[clip].length for clip in clips.tolist()])
        order = np.argsort(-lengths, kind="stable")
        ends = [*(np.flatnonzero(np.diff(lengths[order])) + 1).tolist(), clips.size]
        yield from self._deal(epochs[order], clips[order], ends)
