"""What training and evaluation read: one sequence of blurred windows.

The source may be a Zarr store, `.npy` voxels or `.dat` spikes counted on the
fly; the tensors are the same. Letters in shapes: N windows of the sequence,
T windows read, K bins, H and W the images' pixels, h and w the voxels'.
"""

from typing import Protocol, runtime_checkable

import numpy as np

Span = tuple[int, int]
"""(start, stop) of rows or columns, in pixels; 0 <= start < stop <= side."""


@runtime_checkable
class WindowSequence(Protocol):
    """N windows of one sequence in time order. Lazy, and picklable for workers.

    The metadata are there at once; pixels are read when asked for. Safe in
    processes that were forked or spawned: each opens the files for itself; and
    for reading in several threads at once.
    """

    @property
    def seq(self) -> str:
        """Name: `<split>/<group>/<clip>`, or `<split>/<sequence>`."""

    @property
    def bins(self) -> int:
        """K, the voxel's time bins."""

    @property
    def gain(self) -> float | None:
        """Spikes a sample at unit luminance; None: unknown."""

    @property
    def length(self) -> int:
        """N, the number of windows."""

    @property
    def frame_index(self) -> np.ndarray:
        """(N,) int64, increasing."""

    @property
    def t0(self) -> np.ndarray:
        """(N,) float64, seconds: first instant of the exposure."""

    @property
    def t1(self) -> np.ndarray:
        """(N,) float64, seconds: last instant of the exposure, which belongs to it."""

    @property
    def samples(self) -> np.ndarray:
        """(N,) int64: spike samples in each window."""

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(H, W) of blur and sharp, in pixels."""

    @property
    def voxel_shape(self) -> tuple[int, int]:
        """(h, w) of the voxels, in pixels."""

    @property
    def has_sharp(self) -> bool:
        """Whether every window has a sharp frame."""

    @property
    def is_remote(self) -> bool:
        """Whether reading waits for a network: several reads at once then take the time of one."""

    @property
    def windows_are_raw(self) -> bool:
        """True: voxels are integer counts. False: float32 with log1p already done."""

    @property
    def voxel_dtype(self) -> str:
        """uint8, or uint16 where a bin can exceed 255; float32 where not raw."""

    def voxels(
        self, start: int, stop: int, rows: Span | None = None, columns: Span | None = None
    ) -> np.ndarray:
        """Windows [start, stop) as (T, K, h, w) of `voxel_dtype`."""

    def blur(
        self, start: int, stop: int, rows: Span | None = None, columns: Span | None = None
    ) -> np.ndarray:
        """Windows [start, stop) as (T, H, W, 3) uint8, RGB."""

    def sharp(
        self, start: int, stop: int, rows: Span | None = None, columns: Span | None = None
    ) -> np.ndarray:
        """Windows [start, stop) as (T, H, W, 3) uint8, RGB.

        Raises:
            StoreError: the sequence has no sharp frames.
        """


@runtime_checkable
class SpikeWindows(Protocol):
    """A sequence that can give the spikes themselves, not only counts."""

    @property
    def has_spikes(self) -> bool:
        """Whether it has them."""

    def spikes(self, window: int, rows: Span | None = None) -> np.ndarray:
        """One exposure's spikes (samples, h, w) uint8 of 0/1, upright."""

    def spikes_beside(
        self, window: int, beside: int, rows: Span | None = None, columns: Span | None = None
    ) -> tuple[np.ndarray, int]:
        """One exposure's spikes, with up to `beside` samples before and after it.

        Returns:
            (samples, h, w) uint8 of 0/1, upright, and how many of them are before the exposure.
            Fewer where the recording ends, or more are not kept.
        """


def has_spikes(windows: WindowSequence) -> bool:
    """Whether a sequence has its spikes themselves at hand."""
    return isinstance(windows, SpikeWindows) and windows.has_spikes
