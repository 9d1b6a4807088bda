"""Simulated recordings whose true times and geometry are known, and the same made wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from spikedeblur.pipeline.align.exposure import exposure_window
from spikedeblur.pipeline.align.measure.verify import FrameAt
from spikedeblur.pipeline.frames.images import write_png
from spikedeblur.pipeline.simulate.clips import SourceClip
from spikedeblur.pipeline.simulate.record import area_mean, record_clip
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.simulate.scenes import render_scene
from spikedeblur.pipeline.spikes import SpikeClock, SpikeFile, parse_geometry, write_spikes
from spikedeblur.pipeline.spikes.camera import SpikeCamera, luminance
from spikedeblur.pipeline.spikes.registration import Registration
from spikedeblur.pipeline.spikes.sidefile import SideFile, write_side_file

FRAMES = 129
FPS = 1000.0
PER_FRAME = 8
EXPOSURE = 33


@dataclass(frozen=True)
class Truth:
    """One scene's recording: (FRAMES - 1) PER_FRAME + 1 = 1,025 spike samples at 8000 Hz."""

    seq: str
    dat: Path
    geometry: str
    blur: tuple[Path, ...]
    sharp: tuple[Path, ...]

    def spikes(self) -> np.ndarray:
        """(T, H, W) uint8, upright."""
        return SpikeFile.open(self.dat, parse_geometry(self.geometry)).read()

    def frames(
        self,
        *,
        lag: float = 0.0,
        drift: float = 0.0,
        dat: Path | None = None,
        geometry: str | None = None,
        blur: bool = True,
        sharp: bool = True,
    ) -> list[FrameAt]:
        """Return the exposures with a clock that is wrong by `lag` samples and a share `drift`.

        The true sample of a time is the clock's, plus the lag, plus `drift` times the clock's.
        """
        spikes = SpikeFile.open(dat or self.dat, parse_geometry(geometry or self.geometry))
        rate = FPS * PER_FRAME / (1 + drift)
        clock = SpikeClock(rate=rate, first=lag / (1 + drift) / rate)
        frames = []
        for b, s in zip(self.blur, self.sharp, strict=True):
            t0, t1 = exposure_window(int(b.stem), EXPOSURE, FPS)
            frames.append(
                FrameAt(
                    blur=b if blur else None,
                    sharp=s if sharp else None,
                    spikes=spikes,
                    clock=clock,
                    t0=t0,
                    t1=t1,
                )
            )
        return frames


def record_scene(
    folder: Path,
    index: int,
    size: tuple[int, int],
    *,
    threshold: float = 2.0,
    noise: float = 0.0,
    seed: int = 0,
) -> Truth:
    """Record one embedded scene below `folder`."""
    rig = Rig(
        exposure=EXPOSURE,
        fps=FPS,
        spikes_per_frame=PER_FRAME,
        threshold=threshold,
        noise=noise,
        seed=seed,
    )
    clip = SourceClip(seq=f"val/scenes/{index:05d}", size=size, length=FRAMES)
    record_clip(folder, clip, rig)
    return recorded_scene(folder, index, size)


def recorded_scene(folder: Path, index: int, size: tuple[int, int]) -> Truth:
    """Return a scene that `record_scene` has recorded."""
    blur, sharp = (
        tuple(sorted((folder / kind / "scenes" / f"{index:05d}").glob("*.png")))
        for kind in (f"val_blurry_{EXPOSURE}", "val_fullRGB")
    )
    dat = folder / "val_spike_2xds" / "scenes" / f"{index:05d}" / "spike.dat"
    geometry = f"{size[0] // 2}x{size[1] // 2},bottom-up"
    return Truth(f"val/scenes/{index:05d}", dat, geometry, blur, sharp)


def write_other(truth: Truth, name: str, spikes: np.ndarray) -> tuple[Path, str]:
    """Write spikes (T, H, W) beside a recording, bottom-up; returns (path, geometry)."""
    geometry = f"{spikes.shape[1]}x{spikes.shape[2]},bottom-up"
    path = truth.dat.with_name(f"{name}.dat")
    write_spikes(path, spikes, parse_geometry(geometry))
    return path, geometry


def make_wrong(truth: Truth, problem: str, rng: np.random.Generator) -> list[FrameAt]:
    """Return the exposures of a recording that is described or stored wrongly."""
    lag = float(rng.uniform(-100, 100))
    if problem == "rows flipped":
        return truth.frames(lag=lag, geometry=truth.geometry.replace("bottom-up", "top-down"))
    spikes = truth.spikes()
    height, width = spikes.shape[1:]
    if problem == "columns flipped":
        dat, _ = write_other(truth, "mirrored", spikes[:, :, ::-1])
        return truth.frames(lag=lag, dat=dat)
    if problem == "transposed":
        dat, _ = write_other(truth, "transposed", spikes.transpose(0, 2, 1))
        return truth.frames(lag=lag, dat=dat)
    assert problem == "geometry"
    wrong = [(2 * height, width // 2), (width, height), (height // 2, 2 * width)]
    if rng.random() < 0.5:  # another number of pixels, of which a shorter stream is a whole number
        wrong = [(height, width * 3 // 4), (height * 3 // 4, width)]
        spikes = spikes[: len(spikes) // 3 * 3]
    wrong = [shape for shape in wrong if shape != (height, width)]
    shape = wrong[int(rng.integers(len(wrong)))]
    dat, _ = write_other(truth, "cut", spikes)
    return truth.frames(lag=lag, dat=dat, geometry=f"{shape[0]}x{shape[1]},bottom-up")


def of_another(truth: Truth, other: Truth) -> list[FrameAt]:
    """Return the exposures of one scene beside the spikes of another."""
    return truth.frames(dat=other.dat)


def record_still(folder: Path, index: int, *, flat: bool) -> list[FrameAt]:
    """Record a scene without texture, or one that does not move; returns its exposures."""
    rng = np.random.default_rng([index, 3])
    image = next(render_scene(rng, (96, 96), 2))
    if flat:
        image = np.full_like(image, rng.integers(40, 200))
    place = folder / f"still{index:03d}"
    light = area_mean(luminance(image), 2)
    samples = (FRAMES - 1) * PER_FRAME + 1
    spikes = np.stack(list(SpikeCamera(noise=0.02).record([light] * samples, rng)))
    geometry = parse_geometry("48x48,bottom-up")
    write_spikes(place / "spike.dat", spikes, geometry)
    write_png(place / "frame.png", image)
    frame = place / "frame.png"
    truth = Truth("val/still", place / "spike.dat", geometry.describe(), (), ())
    return [
        replace(one, blur=frame, sharp=frame)
        for one in replace(truth, blur=_numbered(7), sharp=_numbered(7)).frames(lag=30.0)
    ]


def _numbered(count: int) -> tuple[Path, ...]:
    return tuple(Path(f"{16 + 15 * i:04d}.png") for i in range(count))


@dataclass(frozen=True)
class Moved:
    """A scene recorded by a spike camera that looks elsewhere than the colour camera."""

    frames: list[np.ndarray]
    """(H, W) float32 luminance each, at FPS."""
    spikes: np.ndarray
    """(T, H / 2, W / 2) bool, PER_FRAME a frame."""
    place: Registration

    def blur(self, centre: int) -> np.ndarray:
        """(H, W) float32 in steps of 1/255."""
        half = EXPOSURE // 2
        mean = np.mean(self.frames[centre - half : centre + half + 1], axis=0)
        return np.asarray(np.rint(255 * mean) / 255, np.float32)

    def tfp(self, centre: int) -> np.ndarray:
        """(H / 2, W / 2) float32 of the exposure, in spikes a sample."""
        half = EXPOSURE // 2
        exposed = self.spikes[(centre - half) * PER_FRAME : (centre + half) * PER_FRAME + 1]
        return exposed.mean(axis=0, dtype=np.float32)

    def pairs(self, *centres: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """TFPs and blurred frames of some exposures."""
        return [(self.tfp(centre), self.blur(centre)) for centre in centres]

    def write(self, root: Path, centres: tuple[int, ...], *, late: float = 0.0) -> Path:
        """Write a clip in the layout x4k1000fps; returns its `.dat`.

        The side file says that the recording began `late` samples later than it did.
        """
        for centre in centres:
            for kind, image in (
                (f"val_blurry_{EXPOSURE}", self.blur(centre)),
                ("val_fullRGB", self.frames[centre]),
            ):
                gray = np.rint(255 * image).astype(np.uint8)
                path = root / kind / "moved" / "clip" / f"{centre:04d}.png"
                write_png(path, np.repeat(gray[..., None], 3, axis=-1))
        dat = root / "val_spike_2xds" / "moved" / "clip" / "spike.dat"
        height, width = self.spikes.shape[1:]
        geometry = f"{height}x{width},bottom-up"
        write_spikes(dat, self.spikes, parse_geometry(geometry))
        rate = FPS * PER_FRAME
        write_side_file(dat, SideFile(geometry=geometry, rate=rate, first=late / rate, gain=0.5))
        return dat


def same_view(spike_shape: tuple[int, int], frame_shape: tuple[int, int]) -> Registration:
    """The registration of two cameras that see exactly the same."""
    y, x = frame_shape[0] / spike_shape[0], frame_shape[1] / spike_shape[1]
    return Registration((x, 0.0, 0.0, 0.0, y, 0.0, 0.0, 0.0, 1.0), spike_shape, frame_shape)


def furthest(first: Registration, second: Registration) -> float:
    """Return the largest distance of the two at the spikes' corners, in frame pixels."""
    h, w = first.spike_shape
    corners = np.array([(0, 0), (w, 0), (0, h), (w, h)], np.float64)
    apart = to_frame(first, corners) - to_frame(second, corners)
    return float(np.hypot(apart[:, 0], apart[:, 1]).max())


def to_frame(
    registration: Registration, points: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the frame points (..., 2) of spike points (..., 2)."""
    matrix = np.array(registration.matrix).reshape(3, 3)
    mapped = points @ matrix[:, :2].T + matrix[:, 2]
    return mapped[..., :2] / mapped[..., 2:]


def record_moved(
    index: int,
    side: int,
    *,
    shift: tuple[float, float],
    turn: float,
    scale: float,
    threshold: float = 2.0,
    length: int = EXPOSURE + 7,
) -> Moved:
    """Record an embedded scene by two cameras.

    Args:
        index: of the scene.
        side: of the frames, in pixels; spikes are half as large.
        shift: (x, y) of the spikes' middle in the frame, in frame pixels.
        turn: in degrees, about the middle.
        scale: size of a spike pixel in the frame, over 2.
        threshold: of the spike camera.
        length: frames.
    """
    rng = np.random.default_rng([index, 4])
    margin = 40 + side // 20
    c, s = scale * np.cos(np.radians(turn)), scale * np.sin(np.radians(turn))
    half = side / 2
    place = np.array(
        [[c, -s, half + shift[0] - (c - s) * half], [s, c, half + shift[1] - (s + c) * half]]
    )
    exact = np.vstack([place, [0, 0, 1]]) @ np.diag([2.0, 2.0, 1.0])
    truth = Registration(tuple(exact.ravel()), (side // 2, side // 2), (side, side))
    outer = place.copy()
    outer[:, 2] += margin
    frames, light = [], []
    for frame in render_scene(rng, (side + 2 * margin,) * 2, length):
        whole = luminance(frame)
        frames.append(whole[margin:-margin, margin:-margin])
        moved = Image.fromarray(whole).transform(
            (side, side), Image.Transform.AFFINE, tuple(outer.ravel()), Image.Resampling.BICUBIC
        )
        light.append(area_mean(np.clip(np.asarray(moved, np.float32), 0, 1), 2))
    between = (
        light[i] + (light[i + 1] - light[i]) * np.float32(k / PER_FRAME)
        for i in range(len(light) - 1)
        for k in range(PER_FRAME)
    )
    spikes = np.stack(list(SpikeCamera(threshold=threshold).record(between, rng)))
    return Moved(frames, spikes, truth)
