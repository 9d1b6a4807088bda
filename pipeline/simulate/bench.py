"""A bench with two real cameras, as their recorders leave it: what a user begins with.

    <out>/layout.yaml             says `align` where everything is
    <out>/take1/frames/IMG_0001.png ...
    <out>/take1/stamps.csv        when each exposure began, by the colour camera's recorder
    <out>/take1/spike.dat         with its side file, which is written last
    <out>/take1/sharp/IMG_0001.png ...   to judge by; no user has them

The stamps say nothing of the rolling shutter, and their clock is ahead of the spikes'.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...version import __version__
from ..frames.images import RGB, to_bytes, write_png
from ..host.files import require_inside, write_text
from ..host.locks import only_writer
from ..host.overwrite import require_free
from ..host.reporter import SILENT, Reporter
from ..spikes.camera import SpikeCamera, luminance
from ..spikes.geometry import SpikeGeometry
from ..spikes.sidefile import SideFile
from .calibration import SpikeStand
from .clips import rng
from .flaws import Flaws
from .job import must_record
from .record import DAT, begin_recording, end_recording, interpolate, seen_at, write_stream
from .scenes import REVISION, render_scene

TAKE, LAYOUT = "take1", "layout.yaml"
FRAMES, SHARP, STAMPS = "frames", "sharp", "stamps.csv"

LAYOUT_TEXT = """\
name: rig
split: test
blur: "{take}/frames/IMG_{frame}.png"
spikes:
  files: "{take}/spike.dat"
camera:
  times: "{take}/stamps.csv"
  shutter: 12ms
"""
"""Content of the layout file."""

_MARGIN = 0.05
"""Time before the first exposure and after the last one, in seconds."""

USUAL_FLAWS = Flaws(gain_spread=0.08, hot=50)
"""How the pixels of real spike cameras differ."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """Two cameras before one scene."""

    size: tuple[int, int] = (480, 640)
    """(H, W) of the colour frames, in pixels."""
    spike_size: tuple[int, int] = (250, 400)
    """(h, w) of the spikes, which see the whole frame, in pixels."""
    spike_rate: int = 20_000
    """Spike samples a second, in Hz."""
    scene_rate: int = 800
    """Frames of the scene a second, in Hz, between which its light changes evenly."""
    speed: float = 2.0
    """Speed of the scene, in the usual speed."""
    frame_rate: float = 30.0
    """Colour frames a second, in Hz."""
    shutter: float = 0.012
    """Length of each row's exposure, in seconds."""
    readout: float = 0.020
    """Time from a colour frame's first row to its last one, in seconds."""
    late: float = 0.007
    """Time by which frames were exposed later, on the spikes' clock, than their stamps say."""
    frames: int = 8
    """Frames that the colour camera took."""
    dropped: tuple[int, ...] = (2, 5)
    """Those that its recorder lost, from 0."""
    threshold: float = 2.0
    """Integral of light over samples at which a pixel of the spike camera fires."""
    seed: int = 0
    """Seed of scene, phases and pixels."""
    flaws: Flaws | None = USUAL_FLAWS
    """How the spike camera's pixels differ; None: they are equal."""

    def recorded(self) -> dict[str, Any]:
        """Return all settings, without those of equal pixels."""
        settings = asdict(self)
        flaws = settings.pop("flaws")
        return settings | (flaws or {})

    def stand(self) -> SpikeStand | None:
        """Return the spike camera, for its calibration; None: its pixels are equal."""
        if self.flaws is None:
            return None
        return SpikeStand(
            SpikeCamera(threshold=self.threshold),
            self.flaws.sensor(self.spike_size, self.seed),
            float(self.spike_rate),
            self.seed,
            asdict(self.flaws) | {"seed": self.seed},
        )

    @property
    def kept(self) -> list[int]:
        """Frames that the recorder wrote."""
        return [i for i in range(self.frames) if i not in self.dropped]

    def begins(self, frame: int) -> float:
        """Return when the first row's exposure of a frame begins on the spikes' clock, in s."""
        return _MARGIN + max(0.0, -self.readout) + frame / self.frame_rate

    @property
    def scene_frames(self) -> int:
        """Frames of the scene that the recording lasts."""
        last = self.begins(self.frames - 1) + max(0.0, self.readout) + self.shutter
        return int(np.ceil((last + _MARGIN) * self.scene_rate)) + 1


@dataclass(frozen=True, slots=True)
class BenchSummary:
    """What `simulate --rig` made."""

    take: str
    """Folder of the recording."""
    layout: str
    """Layout file for `align`."""
    frames: int
    """Blurred frames."""
    dropped: int
    """Frames that the colour camera's recorder lost."""
    samples: int
    """Spike samples."""
    written: bool
    """Whether the recording was made now; else it was there already."""


def simulate_bench(
    out: Path,
    bench: Bench | None = None,
    *,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> BenchSummary:
    """Record one scene with two cameras that no wire connects, into `out`.

    A recording that is there from the same settings is kept.

    Args:
        out: folder of the bench.
        bench: both cameras; None: the usual ones.
        overwrite: replace a recording from other settings, and files of others.
        reporter: hears each frame of the scene.

    Raises:
        SimulateError: a recording is there from other settings, or more flaws than half of the
            pixels.
        OverwriteError: another layout file is there.
    """
    bench = bench or Bench()
    stand = bench.stand()
    message = f"{out}: another `simulate` is writing there; wait for it, or stop it"
    with only_writer(out, message):
        take, layout = out / TAKE, out / LAYOUT
        written = must_record(out, [take], _digest(bench), overwrite=overwrite)
        if written:
            require_free(layout, overwrite=overwrite, is_ours=_is_layout)
            for folder in (take / FRAMES, take / SHARP):
                require_inside(out, folder)
            _record(take, bench, stand, reporter)
            write_text(layout, LAYOUT_TEXT)
    return BenchSummary(
        take=str(take),
        layout=str(layout),
        frames=len(bench.kept),
        dropped=bench.frames - len(bench.kept),
        samples=(bench.scene_frames - 1) * (bench.spike_rate // bench.scene_rate) + 1,
        written=written,
    )


def _is_layout(path: Path) -> bool:
    return path.read_text(encoding="utf-8") == LAYOUT_TEXT


def _digest(bench: Bench) -> str:
    """Return the hex SHA-256 of everything that decides the recording."""
    return hashlib.sha256(
        json.dumps([bench.recorded(), REVISION, __version__]).encode()
    ).hexdigest()


def _record(take: Path, bench: Bench, stand: SpikeStand | None, reporter: Reporter) -> None:
    dat = take / DAT
    begin_recording(dat, (take / FRAMES, take / SHARP))
    height, _ = bench.size
    delays = bench.readout * np.arange(height) / max(1, height - 1)
    colour = {
        i: _Picture(bench.begins(i) + delays, bench.shutter, bench.scene_rate, bench.size)
        for i in bench.kept
    }
    sharp = {
        i: _Picture(bench.begins(i) + delays + bench.shutter / 2, 0, bench.scene_rate, bench.size)
        for i in bench.kept
    }
    total = bench.scene_frames

    def light() -> Iterator[npt.NDArray[np.float32]]:
        """Yield the spike camera's light (h, w), exposing the colour frames on the way."""
        random = rng(bench.seed, "bench", "scene")
        scene = render_scene(random, bench.size, total, speed=bench.speed)
        for n, frame in enumerate(scene):
            for picture in (*colour.values(), *sharp.values()):
                picture.add(n, frame)
            reporter.progress(n + 1, total, "of the scene")
            yield seen_at(luminance(frame), bench.spike_size)

    camera = SpikeCamera(threshold=bench.threshold)
    samples = interpolate(light(), bench.spike_rate // bench.scene_rate)
    sensor = None if stand is None else stand.sensor
    spikes = camera.record(samples, rng(bench.seed, "bench", "camera"), sensor)
    h, w = bench.spike_size
    geometry = SpikeGeometry(height=h, width=w, flip_rows=True)
    write_stream(dat, spikes, geometry)
    rows = ["file,block_id,start_ms"]
    for name, i in enumerate(bench.kept, start=1):
        file = f"IMG_{name:04d}.png"
        write_png(take / FRAMES / file, to_bytes(colour[i].values))
        write_png(take / SHARP / file, to_bytes(sharp[i].values))
        rows.append(f"{file},{i},{1e3 * (bench.begins(i) - bench.late):.3f}")
    write_text(take / STAMPS, "\n".join(rows) + "\n")
    side = SideFile(
        geometry=geometry.describe(),
        rate=float(bench.spike_rate),
        gain=camera.gain,
        made_by={
            "tool": "spikedeblur simulate --rig",
            "version": __version__,
            "inputs": _digest(bench),
            "seed": bench.seed,
            "readout": bench.readout,
            "late": bench.late,
        },
    )
    end_recording(dat, side)


class _Picture:
    """A colour frame that each row of the scene falls on during an exposure of its own.

    Args:
        starts: when each row's exposure begins, (H,), in seconds.
        length: how long it lasts, in seconds; 0: the scene at that instant.
        rate: frames of the scene a second, in Hz; between two, the light changes evenly.
        size: (H, W) in pixels.
    """

    def __init__(
        self, starts: npt.NDArray[np.float64], length: float, rate: float, size: tuple[int, int]
    ) -> None:
        self.values = np.zeros((*size, 3), np.float64)
        """(H, W, 3), 0 to 255, of what was added."""
        self._starts, self._length = starts * rate, length * rate

    def add(self, number: int, frame: RGB) -> None:
        """Add the share of a frame of the scene that falls in each row's exposure."""
        since = self._starts - number
        if self._length:
            share = (_hat_until(since + self._length) - _hat_until(since)) / self._length
        else:
            share = np.clip(1 - np.abs(since), 0, None)
        rows = np.flatnonzero(share)
        if rows.size:
            seen = slice(rows[0], rows[-1] + 1)
            self.values[seen] += share[seen, None, None] * frame[seen]


def _hat_until(at: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the integral of max(0, 1 - |u|) over u up to `at`."""
    u = np.clip(at, -1, 1)
    return np.asarray(np.where(u < 0, (1 + u) ** 2 / 2, 1 - (1 - u) ** 2 / 2))
