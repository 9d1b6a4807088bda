"""Reading a Zarr store: whole sequences only, lazily, in any number of processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .group import find_sequences, root_kind
from .schema import ArraySpec, SequenceRecord, StoreError
from .sequence import Span, WindowSequence

if TYPE_CHECKING:
    import zarr


def open_store(path: str | os.PathLike[str], split: str | None = None) -> list[WindowSequence]:
    """Open all sequences of a store, or of one split of it, sorted by name.

    Only records and file sizes are read here.

    Args:
        path: the store's folder.
        split: train, val or test; None: all.

    Raises:
        StoreError: no store of ours, nothing in it, or a sequence that is not whole; names it.
    """
    store = Path(path).absolute()
    kind = root_kind(store)
    if kind != "counts":
        found = "nothing there" if not store.exists() else "something else"
        raise StoreError(
            f"{store}: expected a store that `spikedeblur voxelize` wrote, found "
            f"{found if kind is None else f'one of kind {kind}'}; check the path"
        )
    records = list(find_sequences(store, split or ""))
    incomplete = [seq for seq, record in records if record.complete is None]
    if incomplete:
        more = f" and {len(incomplete) - 5} more" if len(incomplete) > 5 else ""
        raise StoreError(
            f"{store}: {', '.join(incomplete[:5])}{more} not complete: a run of `voxelize` was "
            "stopped; run it again, it continues"
        )
    if not records:
        what = f"split {split!r}" if split else "sequence"
        there = sorted({seq.split("/")[0] for seq, _ in find_sequences(store)}) or ["nothing"]
        raise StoreError(f"{store}: no {what} in this store; it has {', '.join(there)}")
    return [StoreSequence(store, seq, record) for seq, record in records]


class StoreSequence:
    """One whole sequence of a store; see `WindowSequence`."""

    windows_are_raw = True

    def __init__(self, store: Path, seq: str, record: SequenceRecord) -> None:
        if record.seq != seq:
            raise StoreError(
                f"{store}: the sequence at {seq} says that it is {record.seq}; undo the renaming"
            )
        self._folder = store / seq
        self._record = record
        self._specs = record.arrays()
        self._small: dict[str, np.ndarray] = {}
        self._opened: tuple[int, zarr.Group | None, dict[str, Any]] = (0, None, {})
        _require_files(self._folder, record, self._specs)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": (0, None, {})}

    def __repr__(self) -> str:
        return f"StoreSequence({self.seq!r}, {self.length} windows, {self.bins} bins)"

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
        return self._record.bins

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
    def voxel_dtype(self) -> str:
        """uint8 or uint16."""
        return self._record.voxel_dtype

    @property
    def has_sharp(self) -> bool:
        """Whether there are sharp frames."""
        return self._record.has_sharp

    def voxels(
        self, start: int, stop: int, rows: Span | None = None, columns: Span | None = None
    ) -> np.ndarray:
        """Return raw counts (T, K, h, w), uint8 or uint16."""
        y, x = checked_crop(self, start, stop, rows, columns, self.voxel_shape)
        return self._read("voxels", (slice(start, stop), slice(None), y, x))

    def blur(
        self, start: int, stop: int, rows: Span | None = None, columns: Span | None = None
    ) -> np.ndarray:
        """Return blurred frames (T, H, W, 3) uint8."""
        y, x = checked_crop(self, start, stop, rows, columns, self.frame_shape)
        return self._read("blur", (slice(start, stop), y, x))

    def sharp(
        self, start: int, stop: int, rows: Span | None = None, columns: Span | None = None
    ) -> np.ndarray:
        """Return sharp frames (T, H, W, 3) uint8."""
        require_sharp(self)
        y, x = checked_crop(self, start, stop, rows, columns, self.frame_shape)
        return self._read("sharp", (slice(start, stop), y, x))

    def _read_small(self, name: str) -> np.ndarray:
        if name not in self._small:
            self._small[name] = self._read(name, (slice(None),))
        return self._small[name]

    def _read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        array = self._array(name)
        try:
            return np.asarray(array[index])
        except (OSError, ValueError, RuntimeError) as error:
            raise StoreError(
                f"{self._folder}: can't read {name} ({error}); the store is damaged: voxelize "
                "this sequence again with --overwrite"
            ) from error

    def _array(self, name: str) -> Any:
        # Zarr's threads do not survive a fork: what the parent opened is not used in a child.
        if self._opened[0] != os.getpid():
            self._opened = (os.getpid(), None, {})
        pid, group, arrays = self._opened
        if name not in arrays:
            import zarr

            if group is None:
                group = zarr.open_group(self._folder, mode="r")
                self._opened = (pid, group, arrays)
            arrays[name] = _checked(group, self._specs[name], self._folder)
        return arrays[name]


def checked_crop(
    sequence: WindowSequence,
    start: int,
    stop: int,
    rows: Span | None,
    columns: Span | None,
    shape: tuple[int, int],
) -> tuple[slice, slice]:
    """Return rows and columns as slices; refuse what NumPy would quietly cut short."""
    if not 0 <= start < stop <= sequence.length:
        raise IndexError(f"{sequence.seq}: windows {start}:{stop} are not in 0:{sequence.length}")
    spans = []
    for span, side in zip((rows, columns), shape, strict=True):
        first, last = (0, side) if span is None else span
        if not 0 <= first < last <= side:
            raise IndexError(f"{sequence.seq}: pixels {first}:{last} are not in 0:{side}")
        spans.append(slice(first, last))
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


def _require_files(folder: Path, record: SequenceRecord, specs: dict[str, ArraySpec]) -> None:
    """Refuse a sequence of which a file is missing or cut: Zarr would read zeros.

    Zarr 3.1.6 accepts a switch against that and ignores it.
    """
    assert record.complete is not None
    expected = record.complete.files
    for spec in specs.values():
        for key in spec.shard_keys(0, record.windows):
            try:
                found: int | None = (folder / key).stat().st_size
            except OSError:
                found = None
            if found is None or found != expected.get(key):
                raise StoreError(
                    f"{folder}: {key} is {'missing' if found is None else f'{found} bytes'}, "
                    f"expected {expected.get(key)} bytes; the store is damaged: voxelize this "
                    "sequence again with --overwrite"
                )


def _checked(group: zarr.Group, spec: ArraySpec, folder: Path) -> Any:
    """Open an array, refusing metadata that is not what its sequence's record says."""
    try:
        array: Any = group[spec.name]
        found = (tuple(array.shape), str(array.dtype), array.shards, tuple(array.chunks))
    except (KeyError, OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(
            f"{folder}: can't open {spec.name} ({error}); the store is damaged: voxelize this "
            "sequence again with --overwrite"
        ) from error
    expected = (spec.shape, spec.dtype, spec.shards, spec.chunks)
    if found != expected:
        raise StoreError(
            f"{folder}: {spec.name} is (shape, type, shards, chunks) {found}, expected "
            f"{expected}; the store is damaged: voxelize this sequence again with --overwrite"
        )
    return array
