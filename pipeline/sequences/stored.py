"""Reading a Zarr store: whole sequences only, lazily, in any number of processes."""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import Any

import numpy as np

from ..spikes.counts import count_windows
from ..spikes.geometry import SpikeGeometry
from ..spikes.packed import unpack_bits
from ..storage.base import Storage, StoreError
from ..storage.locate import open_storage
from ..storage.side_by_side import together
from ..store.arrays import METADATA, parse_array
from ..store.records import find_sequences, find_split, is_free, read_splits, root_kind
from ..store.schema import SequenceRecord, VoxelType, voxel_type
from ..store.shard import ShardedArray, Spans, scratch
from .contract import Span, WindowSequence

AT_ONCE_BYTES = 4 * 2**20
"""Packed spikes of a clip up to so many are read at once, so that what its windows share is
read once; beyond that window by window, which bounds memory."""


def open_store(
    path: str | os.PathLike[str], split: str | None = None, bins: int | None = None
) -> list[WindowSequence]:
    """Open all sequences of a store, or of one split of it, sorted by name.

    Only records and file sizes are read here.

    Args:
        path: the store's folder or URL.
        split: train, val or test; None: all.
        bins: K, temporal bins to count in; a store of counts has only its own. None: as the
            store says.

    Raises:
        StoreError: no store of ours, nothing in it, other bins than it can give, or a sequence
            that is not whole; names it.
    """
    store = open_storage(path)
    kind = root_kind(store)
    if kind not in ("packed", "counts"):
        other = "nothing there" if is_free(store) else "something else"
        found = other if kind is None else f"one of kind {kind}"
        raise StoreError(
            f"{store}: expected a store that `spikedeblur voxelize` wrote, found {found}; check "
            "the path"
        )
    records = sorted(
        find_split(store, split) if split else find_sequences(store),
        key=lambda found: found[0].split("/"),
    )
    incomplete = [seq for seq, record in records if record.complete is None]
    if incomplete:
        more = f" and {len(incomplete) - 5} more" if len(incomplete) > 5 else ""
        raise StoreError(
            f"{store}: {', '.join(incomplete[:5])}{more} not complete: a run of `voxelize` was "
            "stopped; run it again, it continues"
        )
    if not records:
        what = f"split {split!r}" if split else "sequence"
        there = sorted(set(splits_of(store).values())) or ["nothing"]
        raise StoreError(f"{store}: no {what} in this store; it has {', '.join(there)}")
    opening = [partial(StoreSequence, store, seq, record, bins) for seq, record in records]
    return list(together(opening, side_by_side=not store.is_local))


def splits_of(store: Storage) -> dict[str, str]:
    """Return the split of every sequence of a Zarr store, by seq."""
    moved = read_splits(store)
    return {seq: moved.get(seq, seq.split("/", 1)[0]) for seq, _ in find_sequences(store)}


class StoreSequence:
    """One whole sequence of a store; see `WindowSequence`.

    Of kind packed it holds the spikes themselves: any number of bins can be counted, and
    `spikes` returns them.
    """

    windows_are_raw = True

    def __init__(
        self, store: Storage, seq: str, record: SequenceRecord, bins: int | None = None
    ) -> None:
        if record.seq != seq:
            raise StoreError(
                f"{store}: the sequence at {seq} says that it is {record.seq}; undo the renaming"
            )
        self._store = store
        self._storage = store.child(seq)
        self._record = record
        self._bins = record.bins if bins is None else bins
        self._expected = record.arrays()
        self._small: dict[str, np.ndarray] = {}
        self._arrays: dict[str, ShardedArray] = {}
        self._opening = threading.Lock()
        self._require_bins(store)
        self._require_files()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_arrays": {}, "_opening": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"_opening": threading.Lock()})

    def __repr__(self) -> str:
        return f"StoreSequence({self.seq!r}, {self.length} windows, {self.bins} bins)"

    @property
    def is_remote(self) -> bool:
        """Whether the store is in a bucket."""
        return not self._storage.is_local

    @property
    def record(self) -> SequenceRecord:
        """All that is known of the sequence, its origin included."""
        return self._record

    @property
    def seq(self) -> str:
        """The group's path in the store."""
        return self._record.seq

    @property
    def bins(self) -> int:
        """K."""
        return self._bins

    @property
    def gain(self) -> float | None:
        """Spikes a sample at unit luminance; None: unknown."""
        return self._record.gain

    @property
    def length(self) -> int:
        """N."""
        return self._record.windows

    @property
    def frame_index(self) -> np.ndarray:
        """(N,) int64."""
        return self._read_small("frame_index")

    @property
    def t0(self) -> np.ndarray:
        """(N,) float64, seconds."""
        return self._read_small("t0")

    @property
    def t1(self) -> np.ndarray:
        """(N,) float64, seconds."""
        return self._read_small("t1")

    @property
    def samples(self) -> np.ndarray:
        """(N,) int64."""
        return self._read_small("samples")

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(H, W), pixels."""
        return self._record.frame_shape

    @property
    def voxel_shape(self) -> tuple[int, int]:
        """(h, w), pixels."""
        return self._record.voxel_shape

    @property
    def voxel_dtype(self) -> VoxelType:
        """uint8 or uint16."""
        return voxel_type(self._record.longest_window, self._bins)

    @property
    def has_sharp(self) -> bool:
        """Whether there are sharp frames."""
        return self._record.has_sharp

    @property
    def has_spikes(self) -> bool:
        """Whether `spikes` can be read: kind packed."""
        return self._record.kind == "packed"

    def counted_in(self, bins: int) -> StoreSequence:
        """Return the same sequence with other temporal bins; kind packed only.

        Raises:
            StoreError: a store of counts, or more bins than the shortest window has samples.
        """
        return StoreSequence(self._store, self.seq, self._record, bins)

    def voxels(
        self, start: int, stop: int, rows: Span | None = None, columns: Span | None = None
    ) -> np.ndarray:
        """Return raw counts (T, K, h, w), uint8 or uint16."""
        y, x = checked_crop(self, start, stop, rows, columns, self.voxel_shape)
        if self._record.kind == "counts":
            return self._read("voxels", ((start, stop), (0, self.bins), y, x))
        return self._count(start, stop, y, x)

    def spikes(self, window: int, rows: Span | None = None) -> np.ndarray:
        """Return one exposure's spikes (samples, h, w) uint8 of 0/1, upright; kind packed only.

        Raises:
            StoreError: a store of counts does not hold them.
        """
        return self.spikes_beside(window, 0, rows)[0]

    def spikes_beside(
        self, window: int, beside: int, rows: Span | None = None, columns: Span | None = None
    ) -> tuple[np.ndarray, int]:
        """Return one exposure's spikes, with some before and after it; see `SpikeWindows`.

        Beside an exposure, those are known that are of exposures before and after it too.

        Raises:
            StoreError: a store of counts does not hold them.
        """
        if self._record.kind != "packed":
            raise StoreError(
                f"{self._storage}: expected spikes, found counts in bins; voxelize again with "
                "--kind packed"
            )
        y, x = checked_crop(self, window, window + 1, rows, columns, self.voxel_shape)
        start = int(self.first_sample[window])
        stop = start + int(self.samples[window])
        first, last = start, stop
        if beside:
            known = self._unbroken(window)
            first, last = max(start - beside, known[0]), min(stop + beside, known[1])
        b0, b1 = x[0] // 8, -(-x[1] // 8)  # the bytes of a row that hold the columns
        packed = self._read("spikes", ((first, last), y, (b0, b1)))
        bits = unpack_bits(packed, count=x[1] - 8 * b0)
        return np.ascontiguousarray(bits[..., x[0] - 8 * b0 :]), start - first

    def _unbroken(self, window: int) -> Span:
        """Return the stored samples around a window that followed one another in the recording."""
        record = self._record
        own = int(self.first_sample[window])
        if record.first is None:  # each window has its own file
            return own, own + int(self.samples[window])
        started = np.rint((self.t0 - record.first) * record.rate)
        # Samples are stored in order, and none between windows that is not of one.
        together = started - self.first_sample == started[window] - own
        firsts = self.first_sample[together]
        return int(firsts.min()), int((firsts + self.samples[together]).max())

    def blur(
        self, start: int, stop: int, rows: Span | None = None, columns: Span | None = None
    ) -> np.ndarray:
        """Return blurred frames (T, H, W, 3) uint8."""
        y, x = checked_crop(self, start, stop, rows, columns, self.frame_shape)
        return self._read("blur", ((start, stop), y, x, (0, 3)))

    def sharp(
        self, start: int, stop: int, rows: Span | None = None, columns: Span | None = None
    ) -> np.ndarray:
        """Return sharp frames (T, H, W, 3) uint8."""
        require_sharp(self)
        y, x = checked_crop(self, start, stop, rows, columns, self.frame_shape)
        return self._read("sharp", ((start, stop), y, x, (0, 3)))

    def _count(self, start: int, stop: int, rows: Span, columns: Span) -> np.ndarray:
        """Count the spikes of windows [start, stop) in a box."""
        (y0, y1), (x0, x1) = rows, columns
        b0, b1 = x0 // 8, -(-x1 // 8)  # the bytes of a row that hold the columns
        geometry = SpikeGeometry(height=y1 - y0, width=8 * (b1 - b0), flip_rows=False)
        cut = (x0 - 8 * b0, x1 - 8 * b0)
        firsts = self.first_sample[start:stop]
        lasts = firsts + self.samples[start:stop]
        out = np.empty((stop - start, self.bins, y1 - y0, x1 - x0), self.voxel_dtype)
        row = (y1 - y0) * (b1 - b0)
        together = int(lasts.max() - firsts.min()) * row <= AT_ONCE_BYTES
        groups = (
            [slice(0, len(firsts))] if together else [slice(i, i + 1) for i in range(len(firsts))]
        )
        for group in groups:
            a, b = int(firsts[group].min()), int(lasts[group].max())
            packed = scratch("spikes", (b - a, y1 - y0, b1 - b0), "uint8")
            self._read("spikes", ((a, b), rows, (b0, b1)), packed)
            spans = zip(firsts[group] - a, lasts[group] - a, strict=True)
            count_windows(
                packed.reshape(-1),
                geometry,
                self.bins,
                [(int(first), int(last)) for first, last in spans],
                columns=cut,
                out=out[group],
            )
        return out

    @property
    def first_sample(self) -> np.ndarray:
        """(N,) int64: each window's first sample in `spikes`; kind packed only."""
        return self._read_small("first_sample")

    def _read_small(self, name: str) -> np.ndarray:
        if name not in self._small:
            self._open_all_if_remote()
        if name not in self._small:
            self._small[name] = self._checked_small(name, self._load_small(name))
        return self._small[name]

    def _load_small(self, name: str) -> np.ndarray:
        spec = self._expected[name]
        content = self._storage.read(spec.key(0))
        if content is None or len(content) != spec.chunk_bytes:
            raise _damaged(
                self._storage,
                spec.key(0),
                None if content is None else len(content),
                spec.chunk_bytes,
            )
        little = np.dtype(spec.dtype).newbyteorder("<")
        return np.frombuffer(content, little).astype(spec.dtype)

    def _open_all_if_remote(self) -> None:
        """Read what all crops of a sequence in a bucket need, in the time of one answer."""
        if not self.is_remote or self._arrays:
            return
        with self._opening:
            if self._arrays:
                return
            small = [name for name, spec in self._expected.items() if spec.shards is None]
            large = [name for name, spec in self._expected.items() if spec.shards is not None]
            loads = [partial(self._load_small, name) for name in small]
            opens = [partial(self._open, name) for name in large]
            found: list[Any] = together([*loads, *opens])
            values = dict(zip(small, found, strict=False))
            # `samples` first: the others are compared with it.
            for name in sorted(values, key=lambda name: name != "samples"):
                self._small[name] = self._checked_small(name, values[name])
            self._arrays.update(zip(large, found[len(small) :], strict=True))

    def _checked_small(self, name: str, values: np.ndarray) -> np.ndarray:
        """Refuse windows outside of what is stored: they would be read from elsewhere."""
        record = self._record
        wrong = False
        if name == "samples":
            wrong = (values.min(), values.max()) != (record.shortest_window, record.longest_window)
        elif name == "first_sample":
            last = values + self.samples
            wrong = bool(values.min() < 0 or last.max() > (record.stored_samples or 0))
        if wrong:
            raise StoreError(
                f"{self._storage}: {name} contradicts the sequence's record; the store is damaged: "
                "`voxelize --check` makes anew what is"
            )
        return values

    def _read(self, name: str, spans: Spans, out: np.ndarray | None = None) -> np.ndarray:
        self._open_all_if_remote()
        array = self._arrays.get(name)
        if array is None:
            array = self._arrays[name] = self._open(name)
        return array.read(spans, out)

    def _open(self, name: str) -> ShardedArray:
        assert self._record.complete is not None
        key = f"{name}/{METADATA}"
        content = self._storage.read(key)
        if content is None:
            raise _damaged(self._storage, key, None, None)
        spec, expected = parse_array(content, name, str(self._storage)), self._expected[name]
        if (spec.shape, spec.dtype) != (expected.shape, expected.dtype):
            raise StoreError(
                f"{self._storage}: {name} is {spec.dtype} {spec.shape}, expected {expected.dtype} "
                f"{expected.shape}; the store is damaged: "
                "`voxelize --check` makes anew what is"
            )
        files = self._record.complete.files
        for key in spec.files():
            if key not in files:
                raise _damaged(self._storage, key, None, None)
        return ShardedArray(self._storage, spec, files)

    def _require_bins(self, store: Storage) -> None:
        record = self._record
        if self._bins == record.bins:
            return
        if record.kind == "counts":
            raise StoreError(
                f"{store}: {self.seq} has {record.bins} bins, expected {self._bins}; set DATA.K "
                f"to {record.bins}, or voxelize again with --bins {self._bins}"
            )
        if not 1 <= self._bins <= record.shortest_window:
            raise StoreError(
                f"{store}: {self.seq} has a window of {record.shortest_window} spike samples, too "
                f"few for {self._bins} bins; set DATA.K to {record.shortest_window} or fewer"
            )

    def _require_files(self) -> None:
        """Refuse a sequence of which a file is missing or cut: Zarr would read zeros."""
        assert self._record.complete is not None
        found = self._storage.sizes_of(self._record.complete.files)
        for key, size in self._record.complete.files.items():
            if found.get(key) != size:
                raise _damaged(self._storage, key, found.get(key), size)


def _damaged(storage: Storage, key: str, found: int | None, expected: int | None) -> StoreError:
    what = "missing" if found is None else f"{found} bytes"
    return StoreError(
        f"{storage}: {key} is {what}, expected {expected if expected is not None else 'some'} "
        "bytes; the store is damaged: `voxelize --check` makes anew what is"
    )


def checked_crop(
    sequence: WindowSequence,
    start: int,
    stop: int,
    rows: Span | None,
    columns: Span | None,
    shape: tuple[int, int],
) -> tuple[Span, Span]:
    """Return rows and columns as spans; refuse what NumPy would quietly cut short."""
    if not 0 <= start < stop <= sequence.length:
        raise IndexError(f"{sequence.seq}: windows {start}:{stop} are not in 0:{sequence.length}")
    spans = []
    for span, side in zip((rows, columns), shape, strict=True):
        first, last = (0, side) if span is None else span
        if not 0 <= first < last <= side:
            raise IndexError(f"{sequence.seq}: pixels {first}:{last} are not in 0:{side}")
        spans.append((first, last))
    return spans[0], spans[1]


def require_sharp(sequence: WindowSequence) -> None:
    """Refuse to read sharp frames where there are none.

    Raises:
        StoreError: there are none.
    """
    if not sequence.has_sharp:
        raise StoreError(
            f"{sequence.seq}: no sharp frames here; take a split that has them for training and "
            "evaluation"
        )
