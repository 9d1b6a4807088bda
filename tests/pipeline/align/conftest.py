"""Tiny data sets, made here from closed forms so that nothing under test makes its own truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_clips import GEOMETRY, record, texture, write_gray

from spikedeblur.pipeline.spikes import parse_geometry, write_spikes
from spikedeblur.pipeline.spikes.sidefile import SideFile, write_side_file


@pytest.fixture
def make_clip() -> Callable[..., np.ndarray]:
    """Write one raw X4K1000FPS clip; returns its spikes."""

    def make(
        root: Path,
        seq: str = "val/Type1/TEST01_003_f0433",
        *,
        exposure: int = 9,
        centres: tuple[int, ...] = (8, 16, 24),
        frames: int = 33,
        per_frame: int = 4,
        lag: float = 0.0,
        flat: bool = False,
        speed: float = 0.4,
        seed: int = 0,
        side: bool = True,
        sharp: bool = True,
    ) -> np.ndarray:
        split, clip = seq.split("/", 1)

        def image_at(frame: float) -> np.ndarray:
            return texture(frame, seed, flat, speed)

        spikes = record(image_at, (frames - 1) * per_frame + 1, per_frame, lag)
        dat = root / f"{split}_spike_2xds" / clip / "spike.dat"
        dat.parent.mkdir(parents=True, exist_ok=True)
        write_spikes(dat, spikes, parse_geometry(GEOMETRY))
        if side:
            write_side_file(dat, SideFile(geometry=GEOMETRY, rate=1000.0 * per_frame, gain=0.5))
        half = exposure // 2
        for c in centres:
            blur = np.mean([image_at(i) for i in range(c - half, c + half + 1)], axis=0)
            write_gray(root / f"{split}_blurry_{exposure}" / clip / f"{c:04d}.png", blur)
            if sharp:
                write_gray(root / f"{split}_fullRGB" / clip / f"{c:04d}.png", image_at(c))
        return spikes

    return make
