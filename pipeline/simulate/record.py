"""One clip, recorded by both cameras."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...version import __version__
from ..frames.images import to_bytes, write_png
from ..frames.srgb import decode_srgb, encode_srgb
from ..host.files import atomic_write, sweep, write_text
from ..spikes.camera import luminance
from ..spikes.dat import pack_spikes
from ..spikes.geometry import SpikeGeometry
from ..spikes.resample import Resampling
from ..spikes.sidefile import SideFile, side_file_path, write_side_file
from . import display
from .clips import SourceClip, rng
from .rig import SAMPLES_AT_ONCE, Rig
from .scenes import REVISION

DAT = "spike.dat"
UNFINISHED = ".unfinished"
"""File beside the spikes of a clip that is being written."""


def clip_folders(out: Path, clip: SourceClip, rig: Rig) -> list[Path]:
    """Return the folders of a clip's spikes, blurred frames and sharp frames."""
    split, group, name = clip.seq.split("/")
    tops = (f"spike_{rig.spike_scale}xds", f"blurry_{rig.exposure}", "fullRGB")
    return [out / f"{split}_{top}" / group / name for top in tops]


def record_clip(out: Path, clip: SourceClip, rig: Rig) -> int:
    """Record one clip with both cameras; returns the bytes of its spike file."""
    spike_folder, blurred, sharp = clip_folders(out, clip, rig)
    dat = spike_folder / DAT
    begin_recording(dat, (blurred, sharp))

    def light() -> Iterator[npt.NDArray[np.float32]]:
        """Yield the spike camera's light (h, w), writing the colour frames on the way."""
        half = rig.exposure // 2
        centres = rig.centres(clip.n_frames)
        kept = {centre + offset for centre in centres for offset in rig.sharp_offsets()}
        sums: dict[int, npt.NDArray[np.float64]] = {}
        for i, frame in enumerate(clip.render(rig.seed)):
            values = decode_srgb(frame) if rig.linear_light else frame
            if i in kept:
                write_png(sharp / f"{clip.first + i:04d}.png", frame)
            for centre in centres:
                if abs(i - centre) <= half:
                    total = sums.setdefault(centre, np.zeros(frame.shape, np.float64))
                    total += values
                if i == centre + half:
                    mean = sums.pop(centre) / rig.exposure
                    blur = encode_srgb(mean) if rig.linear_light else to_bytes(mean)
                    write_png(blurred / f"{clip.first + centre:04d}.png", blur)
            yield seen_at(luminance(values), (height, width))

    camera, clock = rig.camera(), rig.clock(clip.first)
    height, width = rig.spike_shape(clip.shape())
    samples = interpolate(light(), rig.spikes_per_frame)
    sensor = rig.sensor((height, width))
    spikes = camera.record(samples, rng(rig.seed, clip.seq, "camera"), sensor)
    geometry = SpikeGeometry(height=height, width=width, flip_rows=True)
    write_stream(dat, spikes, geometry)
    side = SideFile(
        geometry=geometry.describe(),
        rate=clock.rate,
        first=clock.first,
        gain=camera.gain,
        made_by={
            "tool": "spikedeblur simulate",
            "version": __version__,
            "inputs": inputs_digest(clip, rig),
            "frames_sha256": clip.frames_sha256(),
            **rig.recorded(),
        },
    )
    end_recording(dat, side)
    return dat.stat().st_size


def begin_recording(dat: Path, folders: Iterable[Path]) -> None:
    """Mark a recording as unfinished, and remove what is there of a former one.

    Args:
        dat: its spikes.
        folders: folders of its frames.
    """
    write_text(dat.parent / UNFINISHED, "")
    side_file_path(dat).unlink(missing_ok=True)
    sweep(dat.parent)
    dat.unlink(missing_ok=True)
    for folder in folders:
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)


def write_stream(
    dat: Path, spikes: Iterator[npt.NDArray[np.bool_]], geometry: SpikeGeometry
) -> None:
    """Write samples of spikes (h, w) to a file, atomically."""
    with atomic_write(dat) as file:
        while block := list(itertools.islice(spikes, SAMPLES_AT_ONCE)):
            file.write(pack_spikes(np.stack(block), geometry))


def end_recording(dat: Path, side: SideFile) -> None:
    """Write the side file, which marks a recording as complete."""
    write_side_file(dat, side)
    (dat.parent / UNFINISHED).unlink()


def inputs_digest(clip: SourceClip, rig: Rig) -> str:
    """Return the hex SHA-256 of everything that decides a clip's content."""
    files = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in clip.frames]
    made_from = [rig.recorded(), clip.seq, clip.first, clip.size, clip.length, files]
    if not clip.frames:
        drawn = [display.SPLIT, display.REVISION] if clip.is_display else ["scenes", REVISION]
        made_from.append(drawn)
    if clip.fastest != 1:
        made_from.append(clip.fastest)
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()


def seen_at(image: npt.NDArray[np.float32], shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Return an image (H, W) as pixels (h, w) over the same field see it: by the mean on each."""
    scale = image.shape[0] // shape[0]
    if image.shape == (scale * shape[0], scale * shape[1]):
        return area_mean(image, scale)
    height, width = image.shape
    return Resampling((height, width), shape).resampled(image)


def area_mean(image: npt.NDArray[np.float32], scale: int) -> npt.NDArray[np.float32]:
    """Return an image (H, W) at (H / scale, W / scale), by the mean over squares of pixels."""
    height, width = image.shape
    squares = image.reshape(height // scale, scale, width // scale, scale)
    return np.asarray(squares.mean(axis=(1, 3), dtype=np.float32))


def interpolate(
    light: Iterable[npt.NDArray[np.float32]], per_frame: int
) -> Iterator[npt.NDArray[np.float32]]:
    """Yield `per_frame` linearly interpolated images for each frame interval, then the last."""
    frames = iter(light)
    now = next(frames)
    for after in frames:
        for k in range(per_frame):
            yield now + np.float32(k / per_frame) * (after - now)
        now = after
    yield now
