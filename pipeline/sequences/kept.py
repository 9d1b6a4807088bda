"""A sequence whose windows are read once, however many methods and tiles ask for them.

`contract` explains the letters in shapes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from .contract import Box, FrameKind, WindowSequence
from .seen_through import SeenThrough

KEPT_BYTES = 256 * 2**20
"""Most bytes of whole windows that a sequence keeps; larger clips are read part by part."""


class KeptSequence(SeenThrough):
    """A sequence that keeps the frames and voxels of the windows that were read last.

    Windows are read whole, and boxes are cut from them; all is as in the sequence itself. Clips
    that would take more than `KEPT_BYTES` are read box by box.
    """

    def __init__(self, sequence: WindowSequence) -> None:
        super().__init__(sequence)
        self._kept: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()
        self._window_bytes: dict[str, int] = {}
        self._changing = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"_sequence": self._sequence}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_sequence"])  # type: ignore[misc]

    def _read_voxels(self, start: int, stop: int, box: Box) -> np.ndarray:
        rows, columns = (slice(*span) for span in box)
        whole = self._whole("voxels", start, stop)
        if whole is None:
            return self._sequence.voxels(start, stop, *box)
        return np.stack([x[:, rows, columns] for x in whole])

    def _read_frames(self, kind: FrameKind, start: int, stop: int, box: Box) -> np.ndarray:
        rows, columns = (slice(*span) for span in box)
        whole = self._whole(kind, start, stop)
        if whole is None:
            return super()._read_frames(kind, start, stop, box)
        return np.stack([x[rows, columns] for x in whole])

    def _whole(self, kind: str, start: int, stop: int) -> list[np.ndarray] | None:
        """Return each window's frame (H, W, 3) or voxels (K, h, w); None: they are too large."""
        read = getattr(self._sequence, kind)
        if kind not in self._window_bytes:
            first = read(start, start + 1)[0]
            self._window_bytes[kind] = first.nbytes
            self._keep(kind, start, [first])
        if (stop - start) * self._window_bytes[kind] > KEPT_BYTES:
            return None
        with self._changing:
            found = {i: self._kept.get((kind, i)) for i in range(start, stop)}
        missing = [i for i, x in found.items() if x is None]
        if missing:  # together, since windows share samples
            first, last = missing[0], missing[-1] + 1
            several = read(first, last)
            self._keep(kind, first, several)
            found.update(zip(range(first, last), several, strict=True))
        return [x for x in found.values() if x is not None]

    def _keep(self, kind: str, first: int, several: Sequence[np.ndarray]) -> None:
        with self._changing:
            for window, x in enumerate(several, first):
                self._kept[kind, window] = x
            taken = sum(x.nbytes for x in self._kept.values())
            while taken > KEPT_BYTES and len(self._kept) > 1:
                taken -= self._kept.popitem(last=False)[1].nbytes
