"""Choices about the store that `voxelize` writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from ..spikes.between import Between
from ..storage.base import StoreError
from ..store.arrays import Codec

ZARR_KINDS = ("packed", "counts")
"""Kinds of Zarr stores; the first is the default."""

CODECS: tuple[Codec, ...] = get_args(Codec)
"""Compressions of counts; the first is the default."""

_KNOWN = {
    "format": ("zarr", "npy"),
    "kind": ZARR_KINDS,
    "codec": CODECS,
    "on_error": ("stop", "skip"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class VoxelizeOptions:
    """Choices of one run.

    Raises:
        StoreError: a value is not known, or two contradict each other.
    """

    bins: int = 32
    """K, temporal bins a window."""
    format: str = "zarr"
    """zarr, or npy for the unified layout's files."""
    kind: str | None = None
    """Content of a Zarr store: packed, the spikes themselves, which are counted when read, or
    counts. None: the kind of the store that is there; packed for a new one."""
    codec: str | None = None
    """Compression of counts: lz4 (where None), zstd, or none, which is read fastest and takes most
    space. A store may hold several: another codec makes no sequence anew."""
    overwrite: bool = False
    """Whether complete sequences that differ are made anew."""
    check: bool = False
    """Whether complete sequences are read back, and damaged ones made anew."""
    force: bool = False
    """Whether sequences are made whose spikes do not fit their frames, as `align` found."""
    on_error: str = "stop"
    """stop: a sequence that can't be made ends the run; skip: it is reported at the end."""
    between: Between | None = None
    """Times between which recordings are read; None: all of them."""
    dry_run: bool = False
    """Whether the run only checks and plans, and measures what the work would take."""

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise StoreError(f"expected 1 bin or more, found {self.bins}; correct --bins")
        for name, known in _KNOWN.items():
            value = getattr(self, name)
            if value is not None and value not in known:
                raise StoreError(f"{name} {value!r} is not known; give {', '.join(known)}")
        if self.format == "npy" and self.kind is not None:
            raise StoreError("format npy has no other kinds; leave --kind out")
