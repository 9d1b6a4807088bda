"""Reading a Zarr store: whole sequences only, lazily, in any number of processes."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import numpy as np

from ..frames.listing import shorten
from ..host.files import StrPath
from ..host.reporter import counted
from ..spikes.counts import count_windows
from ..spikes.geometry import SpikeGeometry
from ..spikes.intervals import HalfLight, Light, light_of_packed
from ..spikes.packed import unpack_bits
from ..spikes.sensor import PixelCorrection
from ..storage.base import Storage, StoreError
from ..storage.locate import open_storage
from ..storage.side_by_side import together
from ..store.arrays import DAMAGED, METADATA
from ..store.records import (
    find_sequences,
    find_split,
    is_free,
    read_splits,
    require_record,
    root_kind,
)
from ..store.schema import INSTANTS, SHARP_INSTANTS, SMALL_ARRAYS, SequenceRecord, voxel_type
from ..store.shard import Pending, Spans, StoredArray
from .contract import Box, FrameKind, KnownSamples, Span, WindowSequence
from .stored_sensor import stored_correction
from .verified import Verified

AT_ONCE_BYTES = 4 * 2**20
"""Most bytes of a clip's packed spikes that are read at once, so that samples shared by windows are
read once; larger clips are read window by window, which bounds memory."""


def open_store(
    path: StrPath, split: str | None = None, bins: int | None = None, *, verify: bool = False
) -> list[WindowSequence]:
    """Open all sequences of a store, or of one split of it, sorted by name.

    Only records and file sizes are read here.

    Args:
        path: the store's folder or URL.
        split: train, val or test; None: all.
        bins: K, temporal bins to count in; a store of counts has only its own. None: the
            store's bins.
        verify: compare each file with its checksum before the first of its pixels is read, once in
            a run; in folders only, since of a bucket only what is needed is transferred.

    Raises:
        StoreError: `voxelize` wrote no store here, it is empty, can't give these bins, or has an
            incomplete sequence; names it.
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
        key=lambda item: item[0].split("/"),
    )
    incomplete = [seq for seq, record in records if record.complete is None]
    if incomplete:
        raise StoreError(
            f"{store}: {shorten(incomplete)} not complete: a run of `voxelize` was stopped; run it "
            "again, it continues"
        )
    if not records:
        what = f"split {split!r}" if split else "sequence"
        splits = sorted(set(splits_of(store).values())) or ["nothing"]
        deal = (
            f"; `spikedeblur split MANIFEST --{split} 0.1` deals whole scenes out to it, then "
            "`voxelize` again"
            if split in ("val", "test") and splits != ["nothing"]
            else ""
        )
        raise StoreError(f"{store}: no {what} in this store; it has {', '.join(splits)}{deal}")
    firsts = np.cumsum([0, *(len(r.complete.crc32) for _, r in records if r.complete)]).tolist()
    flags = Verified(firsts[-1]) if verify and store.is_local else None
    opening = [
        partial(StoreSequence, store, seq, record, bins, None if flags is None else (flags, first))
        for (seq, record), first in zip(records, firsts[:-1], strict=True)
    ]
    return list(together(opening, side_by_side=not store.is_local))


def splits_of(store: Storage) -> dict[str, str]:
    """Return the split of every sequence of a Zarr store, by seq."""
    moved = read_splits(store)
    return {seq: moved.get(seq, seq.split("/", 1)[0]) for seq, _ in find_sequences(store)}


def has_split(path: StrPath, split: str) -> bool:
    """Return whether a store has sequences of a split."""
    return split in splits_of(open_storage(path)).values()


class StoreSequence(WindowSequence):
    """One whole sequence of a store.

    A sequence of kind packed holds the spikes themselves, which can be counted in any number of
    bins.
    """

    windows_are_raw = True
    first_sample: np.ndarray
    """(N,) int64: each window's first sample in `spikes`; kind packed only."""

    def __init__(
        self,
        store: Storage,
        seq: str,
        record: SequenceRecord,
        bins: int | None = None,
        verified: tuple[Verified, int] | None = None,
    ) -> None:
        if record.seq != seq:
            raise StoreError(
                f"{store}: the sequence at {seq} says that it is {record.seq}; undo the renaming"
            )
        self.record = record
        """Attributes of the sequence in the store, its origin included."""
        self.seq, self.gain, self.length = seq, record.gain, record.windows
        self.bins = record.bins if bins is None else bins
        self.frame_shape, self.voxel_shape = record.frame_shape, record.voxel_shape
        self.registered = record.registered_by is not None
        self.frame_dtype = record.frame_dtype
        named = record.sensor_sha256 is not None
        self.voxel_dtype = "float32" if named else voxel_type(record.longest_window, self.bins)
        self.has_sharp, self.has_spikes = record.has_sharp, record.kind == "packed"
        self.is_remote = not store.is_local
        self._store = store
        self._storage = store.child(seq).cached()
        self._specs = record.specs
        self._arrays: dict[str, StoredArray] = {}
        self._sensor: PixelCorrection | None = None
        self._sensor_is_own = True
        self._loading = threading.RLock()
        self._verified = verified
        """Flags of the store's files, and the first one of this sequence's; None: not compared."""
        self._require_bins()
        self._require_files()
        if verified is not None:
            require_record(self._storage, record)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__ | {"_arrays": {}, "_loading": None}
        return state | {"_sensor": None} if self._sensor_is_own else state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"_loading": threading.RLock()})

    def __getattr__(self, name: str) -> np.ndarray:
        """Return one of the small arrays, such as `t0`, which are read when first asked for."""
        if name not in SMALL_ARRAYS:
            raise AttributeError(f"{type(self).__name__} has no {name!r}")
        # From a bucket all of them come in the time of one answer.
        kept = self._specs.keys() & SMALL_ARRAYS.keys() if self.is_remote else {name}
        names = [other for other in SMALL_ARRAYS if other in kept]
        with self._loading:  # once, however many threads want them
            if name not in self.__dict__:
                loads = [partial(self._load_small, other) for other in names]
                loaded = together(loads, side_by_side=self.is_remote)
                # `samples` come first: the others are compared with it.
                for other, values in zip(names, loaded, strict=True):
                    self.__dict__[other] = self._checked_small(other, values)
        array: np.ndarray = self.__dict__[name]
        return array

    @property
    def instants(self) -> tuple[float, ...]:  # type: ignore[override]
        """When the sharp frames of `sharp_at` are; see `WindowSequence`."""
        if not self.record.instants:
            return ()
        return tuple(self._load_small(INSTANTS).tolist())

    @property
    def sensor(self) -> PixelCorrection | None:  # type: ignore[override]
        """How the pixels differ, as `correct_pixels` says or by the sequence's own maps."""
        if self._sensor is None and self._sensor_is_own:
            self._sensor = stored_correction(self._storage, self.record)
        return self._sensor

    def correct_pixels(self, sensor: PixelCorrection) -> None:
        """Have voxels correct the differences of pixels by another sensor than the sequence's own.

        Args:
            sensor: of `voxel_shape`.
        """
        self._sensor, self._sensor_is_own, self.voxel_dtype = sensor, False, "float32"

    def counted_in(self, bins: int) -> StoreSequence:
        """Return the same sequence with other temporal bins; kind packed only.

        Raises:
            StoreError: a store of counts, or more bins than the shortest window has samples.
        """
        counted = StoreSequence(self._store, self.seq, self.record, bins, self._verified)
        if self._sensor is not None and not self._sensor_is_own:
            counted.correct_pixels(self._sensor)
        return counted

    def _read_voxels(self, start: int, stop: int, box: Box) -> np.ndarray:
        return self._of_equal_pixels(self.recorded_counts, start, stop, box)

    def recorded_counts(self, start: int, stop: int, box: Box) -> np.ndarray:
        """Return a box of voxels (T, K, h, w) as the camera's pixels made them."""
        if self.has_spikes:
            return self._count(start, stop, *box)
        return self._read("voxels", ((start, stop), (0, self.bins), *box))

    def _read_frames(self, kind: FrameKind, start: int, stop: int, box: Box) -> np.ndarray:
        return self._read(kind, ((start, stop), *box, (0, 3)))

    def _read_instant(self, instant: int, start: int, stop: int, box: Box) -> np.ndarray:
        span = (instant, instant + 1)
        return self._read(SHARP_INSTANTS, ((start, stop), span, *box, (0, 3)))[:, 0]

    def _begin_frames(self, kind: FrameKind, start: int, stop: int, box: Box) -> Pending:
        if self.is_remote:
            return super()._begin_frames(kind, start, stop, box)
        return self._begin(kind, ((start, stop), *box, (0, 3)))

    def _read_spikes(self, window: int, beside: int, box: Box) -> tuple[np.ndarray, int]:
        """Read spikes; beside an exposure, only samples of other exposures are kept."""
        rows, columns = box
        first, start, stop = self._known(window, beside)
        (x0, x1), (b0, b1) = columns, _row_bytes(columns)
        packed = self._read("spikes", ((first, stop), rows, (b0, b1)))
        bits = unpack_bits(packed, count=x1 - 8 * b0)
        return np.ascontiguousarray(bits[..., x0 - 8 * b0 :]), start - first

    def _read_light(self, window: int, beside: int, box: Box, out: Light | HalfLight) -> None:
        """Write light of the bits as they are stored."""
        rows, columns = box
        known = self._known(window, beside)
        (x0, x1), (b0, b1) = columns, _row_bytes(columns)
        packed = self._read("spikes", ((known.first, known.stop), rows, (b0, b1))).reshape(-1)
        geometry = SpikeGeometry(height=rows[1] - rows[0], width=8 * (b1 - b0), flip_rows=False)
        cut = (x0 - 8 * b0, x1 - 8 * b0)
        before = known.start - known.first
        exposure = (before, before + int(self.samples[window]))
        every = (0, known.stop - known.first)
        light_of_packed(packed, geometry, self.bins, exposure, every, columns=cut, out=out)

    def _read_packed(self, start: int, stop: int, beside: float, box: Box) -> list[np.ndarray]:
        """Read the bytes of a box of spikes, each sample once."""
        rows, columns = box
        known = [self.known_samples(window, beside) for window in range(start, stop)]
        first = min(window.first for window in known)
        last = max(window.stop for window in known)
        bits = self._read("spikes", ((first, last), rows, _row_bytes(columns)))
        return [bits[window.first - first : window.stop - first] for window in known]

    def known_samples(self, window: int, beside: float) -> KnownSamples:
        """Return the stored samples of a window and beside it; see `WindowSequence`."""
        return self._known(window, int(beside * self.samples[window]))

    def _known(self, window: int, beside: int) -> KnownSamples:
        start = int(self.first_sample[window])
        stop = start + int(self.samples[window])
        if not beside:
            return KnownSamples(start, start, stop)
        kept = self._unbroken(window)
        return KnownSamples(max(start - beside, kept[0]), start, min(stop + beside, kept[1]))

    @property
    def longest_window(self) -> int:
        """Spike samples of the longest window, by the record."""
        return self.record.longest_window

    def _unbroken(self, window: int) -> Span:
        """Return the stored samples around a window that followed one another in the recording."""
        record = self.record
        first_sample = int(self.first_sample[window])
        if record.first is None:  # each window has its own file
            return first_sample, first_sample + int(self.samples[window])
        started = np.rint((self.t0 - record.first) * record.rate)
        # Samples are stored in order, and only those that windows need.
        unbroken = started - self.first_sample == started[window] - first_sample
        firsts = self.first_sample[unbroken]
        return int(firsts.min()), int((firsts + self.samples[unbroken]).max())

    def _count(self, start: int, stop: int, rows: Span, columns: Span) -> np.ndarray:
        """Count the spikes of windows [start, stop) in a box."""
        (y0, y1), (x0, x1) = rows, columns
        b0, b1 = _row_bytes(columns)
        geometry = SpikeGeometry(height=y1 - y0, width=8 * (b1 - b0), flip_rows=False)
        cut = (x0 - 8 * b0, x1 - 8 * b0)
        firsts = self.first_sample[start:stop]
        lasts = firsts + self.samples[start:stop]
        dtype = voxel_type(self.record.longest_window, self.bins)
        out = np.empty((stop - start, self.bins, y1 - y0, x1 - x0), dtype)
        row = (y1 - y0) * (b1 - b0)
        together = int(lasts.max() - firsts.min()) * row <= AT_ONCE_BYTES
        size = len(firsts) if together else 1
        for group in (slice(i, i + size) for i in range(0, len(firsts), size)):
            a, b = int(firsts[group].min()), int(lasts[group].max())
            packed = self._read("spikes", ((a, b), rows, (b0, b1))).reshape(-1)
            spans = np.stack([firsts[group] - a, lasts[group] - a], axis=1).tolist()
            count_windows(packed, geometry, self.bins, spans, columns=cut, out=out[group])
        return out

    def _require_whole(self, key: str) -> None:
        """Refuse a file that is not what was written, where files are compared."""
        crc32 = self.record.complete.crc32 if self.record.complete else {}
        if self._verified is not None and key in crc32:
            verified, first = self._verified
            verified.require(first + list(crc32).index(key), self._storage, key, crc32[key])

    def _load_small(self, name: str) -> np.ndarray:
        spec = self._specs[name]
        self._require_whole(spec.key(0))
        content = self._storage.read(spec.key(0))
        if content is None or len(content) != spec.chunk_bytes:
            size = None if content is None else len(content)
            raise self._damaged(spec.key(0), size, spec.chunk_bytes)
        little = np.dtype(spec.dtype).newbyteorder("<")
        return np.frombuffer(content, little)[: spec.shape[0]].astype(spec.dtype)

    def _checked_small(self, name: str, values: np.ndarray) -> np.ndarray:
        """Refuse windows outside of the stored samples, which would be read from elsewhere."""
        record = self.record
        wrong = False
        if name == "samples":
            wrong = (values.min(), values.max()) != (record.shortest_window, record.longest_window)
        elif name == "first_sample":
            last = values + self.samples
            wrong = bool(values.min() < 0 or last.max() > (record.stored_samples or 0))
        if wrong:
            raise StoreError(
                f"{self._storage}: {name} contradicts the sequence's record; {DAMAGED}"
            )
        return values

    def _begin(self, name: str, spans: Spans) -> Pending:
        array = self._arrays.get(name)
        if array is None:
            array = self._arrays[name] = self._open(name)
        return array.begin(spans)

    def _read(self, name: str, spans: Spans) -> np.ndarray:
        return self._begin(name, spans)()

    def _open(self, name: str) -> StoredArray:
        assert self.record.complete is not None
        self._require_whole(f"{name}/{METADATA}")
        spec = self._specs[name]
        files = self.record.complete.files
        for key in spec.files():
            if key not in files:
                raise self._damaged(key, None)
        return StoredArray(self._storage, spec, files, self._require_whole)

    def _require_bins(self) -> None:
        bins, record, where = self.bins, self.record, f"{self._store}: {self.seq}"
        if bins == record.bins:
            return
        if record.kind == "counts":
            raise StoreError(
                f"{where} has {counted(record.bins, 'bin')}, expected {bins}; set DATA.K to "
                f"{record.bins}, or voxelize again with --bins {bins}"
            )
        if not 1 <= bins <= record.shortest_window:
            raise StoreError(
                f"{where} has a window of "
                f"{counted(record.shortest_window, 'spike sample')}, too few for "
                f"{counted(bins, 'bin')}; set DATA.K to {record.shortest_window} or fewer"
            )

    def _require_files(self) -> None:
        """Refuse a sequence of which a file is missing or cut: Zarr would read zeros."""
        assert self.record.complete is not None
        sizes = self._storage.sizes_of(self.record.complete.files)
        for key, size in self.record.complete.files.items():
            if sizes.get(key) != size:
                raise self._damaged(key, sizes.get(key), size)

    def _damaged(self, key: str, found: int | None, expected: int | str = "some") -> StoreError:
        is_there = "missing" if found is None else f"{found} bytes"
        where = f"{self._storage}: {key}"
        return StoreError(f"{where} is {is_there}, expected {expected} bytes; {DAMAGED}")


def _row_bytes(columns: Span) -> Span:
    """Return the bytes [start, stop) of a packed row that hold the columns."""
    return columns[0] // 8, -(-columns[1] // 8)
